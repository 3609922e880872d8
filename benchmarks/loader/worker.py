"""The process in which one way runs. `python -m benchmarks.loader.worker FILE_DESCRIPTOR MODULE CORES`.

It has its own process group, so that it can be halted while others are measured, and the processor cores that it is
given, as have the processes that it starts. Requests and answers are JSON, over an inherited socket.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.loader.corpus import KINDS, Corpus
from benchmarks.loader.measure import Epoch, Seen, observed, seconds, warm_up


class Runner:
    """Opens corpora for a way, one after the other or several at once, and runs epochs."""

    def __init__(self, module: str, cores: int) -> None:
        self._module = module
        self._cores = cores
        self._open: dict[str, tuple[Epoch, Seen]] = {}

    def open(self, kind: str, folder: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Get ready, and run an epoch that is checked and not timed."""
        self.close()
        corpus = Corpus(KINDS[kind], Path(folder))
        way = import_module(f"benchmarks.loader.ways.{self._module}")
        made: Callable[..., Any] = way.open_way(corpus, self._cores, **settings)
        epoch: Epoch = made if getattr(way, "OBSERVES", False) else observed(made)
        self._open[kind] = epoch, warm_up(epoch, corpus.fingerprints())
        return {"images": self._open[kind][1].images}

    def round(self, kind: str) -> dict[str, Any]:
        """Time one epoch."""
        return {"seconds": seconds(*self._open[kind])}

    def close(self) -> dict[str, Any]:
        """Let go of what is open."""
        self._open.clear()
        gc.collect()
        return {}


def main() -> None:
    """Answer until there is nobody left to ask."""
    descriptor, module, cores = int(sys.argv[1]), sys.argv[2], [int(core) for core in sys.argv[3].split(",")]
    os.setpgid(0, 0)
    os.sched_setaffinity(0, cores)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    warnings.simplefilter("ignore")
    runner = Runner(module, len(cores))
    connection = Connection(descriptor)
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except EOFError:
            break
        try:
            answer = getattr(runner, request.pop("do"))(**request)
        except Exception as error:  # noqa: BLE001 (whatever it is, the table says it)
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        connection.send_bytes(json.dumps(answer).encode())
    os._exit(0)  # what frameworks do at exit is not measured, and some of them hang


if __name__ == "__main__":
    main()
