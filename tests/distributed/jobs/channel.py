"""Everything that a channel does, on real ranks; each writes what it saw: channel.py OUT alone|missing|ending.

"alone": without a training; "missing", "ending": beside the Horovod of one. In the end the last rank does not come, and
ends with its own exit code: when the others have noticed; or ("ending") while they wait for it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from dist_loader.channel import gather_logs, horovod, mpi, open_channel
from dist_loader.ending import end_now
from dist_loader.errors import ChannelError
from dist_loader.world import World

out, how = Path(sys.argv[1]), sys.argv[2]
mpi._PIECE = horovod._PIECE = 1 << 10

if how == "alone":
    channel = open_channel()
else:
    import dist_loader as dl

    strategy = dl.init("horovod")
    channel = strategy.devices.channel
rank, size = channel.rank, channel.size
seen: dict = {"kind": type(channel).__name__, "place": [rank, size] == [World.detect().rank, World.detect().size]}


def mine(length: int, of: int = rank) -> bytes:
    return bytes((of + at) % 256 for at in range(length))


seen["sizes"] = [
    [bytes(part) for part in channel.allgather(mine(base + step * rank), "sizes")]
    == [mine(base + step * other, other) for other in range(size)]
    for base, step in ((0, 0), (0, 1), (900, 100), (1024, 0), (3000, 1500), (0, 4096))
]
parts = channel.gather(memoryview(mine(5000 * (rank + 1))), "gathering")
seen["gathered"] = [bytes(part) == mine(5000 * (other + 1), other) for other, part in enumerate(parts)]
seen["broadcast"] = [bytes(channel.broadcast(mine(length), "telling")) == mine(length, 0) for length in (0, 7, 5000)]
time.sleep(0.3 * rank)
before = time.time()
channel.barrier("waiting")
seen["entered"], seen["left"] = before, time.time()

logs = out / f"host-{rank}"
logs.mkdir(exist_ok=True)
(logs / f"rank-{rank}.log").write_bytes(b"line of rank %d\n" % rank)
gather_logs(channel, logs)
seen["logs"] = sorted(file.name for file in logs.iterdir())
shared = out / "shared"
shared.mkdir(exist_ok=True)
(shared / f"rank-{rank}.log").write_bytes(b"line of rank %d\n" % rank)
seen["shared"] = [str(path) for path in gather_logs(channel, shared)]

last = rank == size - 1
seen["heavy"] = sorted({"tensorflow", "horovod", "keras"} & set(sys.modules))
if how == "ending" and not last:
    try:
        channel.barrier("the last", seconds=None)
    except Exception as error:  # as Horovod's own
        seen["said"] = f"{type(error).__name__}: {error}"
elif not last:
    try:
        channel.barrier("the last", seconds=2.0)
    except ChannelError as error:
        seen["missing"], seen["said"] = list(error.ranks), str(error)
(out / f"rank-{rank}.json").write_text(json.dumps(seen))
if last and how == "ending":
    time.sleep(0.5)
    sys.exit(7)
deadline = time.monotonic() + 20
while len(list(out.glob("rank-*.json"))) < size and time.monotonic() < deadline:
    time.sleep(0.05)
if not last:
    time.sleep(20 if how == "alone" else 0)  # nothing but mpirun ends this rank
end_now(7 if last else 75)
