"""Run by each of two ranks: proves that the Horovod at hand adds numbers up across processes.

    python allreduce.py FOLDER gloo|mpi cpu|gpu

FOLDER is where this Horovod must come from, so that a proof is never given by another one.
"""

import sys
from pathlib import Path

import horovod.tensorflow as hvd
import tensorflow as tf

RANKS = 2


def main(folder: str, controller: str, device: str) -> None:
    """Ends with an error unless everything is as it should be."""
    origin = Path(hvd.__file__).resolve()
    check(origin.is_relative_to(Path(folder).resolve()), f"Horovod comes from {origin}, not from {folder}")
    hvd.init()
    check(hvd.size() == RANKS, f"expected {RANKS} ranks, found {hvd.size()}")
    used = "mpi" if hvd.mpi_enabled() else "gloo"
    check(used == controller, f"ranks talk over {used}, not over {controller}")
    check(hvd.gloo_built() and hvd.mpi_built(), "Gloo or MPI was left out of the build")
    check(device == "cpu" or hvd.nccl_built(), "NCCL was left out of the build")
    total = hvd.allreduce(tf.constant([1.0, 10.0]) * (hvd.rank() + 1), op=hvd.Sum, name="proof")
    check(total.numpy().tolist() == [3.0, 30.0], f"the sum over ranks is {total.numpy()}, not [3, 30]")
    print(f"rank {hvd.rank()} of {hvd.size()} over {controller}: {total.numpy()}", flush=True)


def check(holds: object, otherwise: str) -> None:
    """Ends this rank with a reason."""
    if not holds:
        sys.exit(f"allreduce: {otherwise}")


if __name__ == "__main__":
    main(*sys.argv[1:])
