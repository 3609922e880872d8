"""What ranks say to each other besides gradients: facts, lists and logs, as bytes, over MPI or over Horovod.

Importing this loads neither.
"""

from __future__ import annotations

from dist_loader.channel.alone import Alone
from dist_loader.channel.channel import SECONDS, Channel, Data
from dist_loader.channel.choose import beside_horovod, open_channel
from dist_loader.channel.logs import gather_logs

__all__ = ["SECONDS", "Alone", "Channel", "Data", "beside_horovod", "gather_logs", "open_channel"]
