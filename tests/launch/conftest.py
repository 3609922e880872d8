"""The files in launch/ are scripts beside each other, not an installed package."""

import sys
from pathlib import Path

LAUNCH = Path(__file__).parents[2] / "launch"
if str(LAUNCH) not in sys.path:
    sys.path.insert(0, str(LAUNCH))
