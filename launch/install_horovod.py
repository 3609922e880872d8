"""Builds Horovod against the TensorFlow and the MPI of this environment, proves that it works, and installs it.

    python launch/install_horovod.py [--gpu] [--cache DIR] [--jobs N] [--wheel-only] [--force]

Run it with the Python of the environment that is to have Horovod. Standard library only.
"""

import sys

from horovod_installer.cli import main

if __name__ == "__main__":
    sys.exit(main())
