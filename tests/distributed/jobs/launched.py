"""A rank without TensorFlow, for launchers: it says who it is, and ends in one of several ways."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from dist_loader.world import World

world = World.detect()
restarts = int(os.environ["DIST_LOADER_RESTARTS"])
how, *more = sys.argv[1:]
print(json.dumps([f"rank {world.rank} of {world.size}", f"start {restarts}", how, *more]))
if how == "saves":
    signal.signal(signal.SIGTERM, lambda *_: (print(f"saved {world.rank}"), sys.exit(143)))
if how == "once" and restarts == 0 and world.rank == world.size - 1:
    time.sleep(3)  # the other one has something to say, too
    sys.exit(7)
if how != "fine" and restarts == 0:
    (Path(os.environ["TMPDIR"]) / "left").touch()  # as TensorFlow does when it is killed
    print("ready")
    time.sleep(100)
