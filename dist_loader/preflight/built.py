"""How the installed Horovod was built, and which MPI it is linked to, without loading TensorFlow."""

from __future__ import annotations

import json
import mmap
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from dist_loader.preflight.facts import Horovod

if TYPE_CHECKING:
    from collections.abc import Mapping

# Asked of the library itself, which may be called before MPI is started. In a process of its own: a library that does
# not fit this machine may crash.
_ASK = """
import ctypes, sys
text, length = ctypes.create_string_buffer(65536), ctypes.c_int()
ctypes.CDLL(sys.argv[1]).MPI_Get_library_version(text, ctypes.byref(length))
print(text.value.decode(errors="replace"))
"""


def library() -> Path | None:
    """Horovod's library for TensorFlow; None if it is not installed."""
    spec = find_spec("horovod")  # which loads nothing
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = [file for folder in folders for file in Path(folder).glob("tensorflow/mpi_lib*.so")]
    return found[0] if found else None


def look(env: Mapping[str, str]) -> Horovod | None:
    """How Horovod was built; None if it is not installed."""
    file = library()
    if file is None:
        return None
    try:
        against = json.loads((file.parents[1] / "metadata.json").read_text(encoding="utf-8")).get("tensorflow", "")
    except (OSError, ValueError):
        against = ""
    linked = _linked(file, env)
    mpi = next((name for name in linked if name.startswith("libmpi")), None)
    where = linked.get(mpi or "")
    return Horovod(
        tensorflow=str(against),
        gloo=_contains(file, b"GlooController"),
        mpi=None if mpi is None else (_version(where, env) if where else f"{mpi}, which is not found"),
        nccl=any(name.startswith("libnccl") for name in linked) or _contains(file, b"ncclAllReduce"),
        missing=tuple(n for n, found in linked.items() if found is None and not n.startswith("libtensorflow")),
    )


def short(version: str) -> str:
    """The name and number in what an MPI says of itself: "Open MPI 4.1.8", "MPICH 4.2.1"."""
    match = re.search(r"\(?(Open MPI)\)? v?(\d[\w.]*)", version)
    if match is None:
        match = re.search(r"(MPICH|HYDRA)[^\n]*?\s+Version:\s+(\d[\w.]*)", version) or re.search(
            r"(HYDRA)[^\0]*?Version:\s+(\d[\w.]*)", version
        )
    if match is not None:
        return f"{match[1].replace('HYDRA', 'MPICH')} {match[2]}"
    return next(iter(version.strip().splitlines()), "unknown")[:60]


def _linked(file: Path, env: Mapping[str, str]) -> dict[str, str | None]:
    """The shared libraries that a file needs, and where each is found."""
    try:
        said = subprocess.run(["ldd", str(file)], capture_output=True, text=True, timeout=5, check=False, env=env)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    pairs = re.findall(r"^\s*(\S+) => (not found|\S+)", said.stdout, re.MULTILINE)
    return {name: None if where == "not found" else where for name, where in pairs}


def _version(where: str, env: Mapping[str, str]) -> str:
    command = [sys.executable, "-S", "-c", _ASK, where]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False, env=env)
    except (OSError, subprocess.TimeoutExpired):
        return where
    return short(said.stdout) if said.returncode == 0 else where


def _contains(file: Path, word: bytes) -> bool:
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as all_of_it:
        return all_of_it.find(word) >= 0
