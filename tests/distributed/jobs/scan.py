"""`dist-loader scan` in a rank in which something goes on: scan.py OUT plain|killed|slow ARGUMENT...

"killed": the last rank kills itself while it lists; "slow": writing takes for ever. Each rank writes its modules.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import time
from pathlib import Path

from dist_loader.cli.main import main
from dist_loader.index import file, lister
from dist_loader.world import World

out, how, rank = Path(sys.argv[1]), sys.argv[2], World.detect().rank
atexit.register(lambda: (out / f"modules-{rank}.json").write_text(json.dumps(sorted(sys.modules))))


def kill(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def begin(path: Path, *_: object) -> None:
    path.write_bytes(b"half an index")
    (out / "writing").touch()
    time.sleep(60)


if how == "killed" and rank == World.detect().size - 1:
    lister.contents = kill
if how == "slow":
    file.write = begin
sys.exit(main(["scan", *sys.argv[3:]]))
