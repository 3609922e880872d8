"""The GPUs of this machine and their driver, from nvidia-smi."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from typing import TYPE_CHECKING

from dist_loader.preflight.facts import Gpu

if TYPE_CHECKING:
    from collections.abc import Mapping

_QUERY = ("--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits")


def list_gpus(env: Mapping[str, str], seconds: float = 5.0) -> tuple[tuple[Gpu, ...], str | None]:
    """The GPUs, and what nvidia-smi says if it shows none; nothing of either where it is not installed."""
    smi = shutil.which("nvidia-smi", path=env.get("PATH"))
    if smi is None:
        return (), None
    try:
        said = subprocess.run([smi, *_QUERY], capture_output=True, text=True, timeout=seconds, check=False, env=env)
    except (OSError, subprocess.TimeoutExpired) as error:
        return (), f"nvidia-smi does not work: {error}"
    if said.returncode:
        words = " ".join((said.stdout + said.stderr).split())
        return (), words[:200] or f"nvidia-smi ended with exit code {said.returncode}"
    return read(said.stdout), None


def read(text: str) -> tuple[Gpu, ...]:
    """The GPUs of nvidia-smi's lines, such as "NVIDIA H100 80GB HBM3, 550.54.15, 81559"."""
    rows = csv.reader(io.StringIO(text), skipinitialspace=True)
    # Cards whose memory is the host's own have "[N/A]" there.
    return tuple(Gpu(row[0], row[1], int(row[2]) if row[2].isdigit() else 0) for row in rows if len(row) == 3)
