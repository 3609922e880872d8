"""horovodrun with its own arguments, but for one thing: `python -m dist_loader.preflight.horovodrun ARGS...`.

It imports TensorFlow in a process of its own to learn whether Horovod has Gloo or MPI, which is 4 of the 5 seconds that
it takes before it starts a rank. Here that is known already (`built.look`).
"""

from __future__ import annotations

import sys


def main() -> int:
    """Become horovodrun."""
    from horovod.runner import launch

    for check in ("gloo_built", "mpi_built"):
        if hasattr(launch, check):
            setattr(launch, check, lambda **_: True)
    return int(launch.run_commandline() or 0)


if __name__ == "__main__":
    sys.exit(main())
