"""The Python environment that Horovod is built for, and the label that names such a build."""

import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from horovod_installer import recipe

TENSORFLOW_PACKAGES = ("tensorflow", "tensorflow-cpu", "tensorflow-rocm", "tf-nightly")
NCCL_PACKAGE = "nvidia-nccl-cu12"
LIBRARY_TO_ABOVE_PACKAGES = "../../.."  # from site-packages/horovod/tensorflow


@dataclass(frozen=True)
class Environment:
    """Where things are. Made by `current`; by hand in tests.

    Attributes:
        python: its interpreter.
        prefix: its root.
        packages: its site-packages.
        scripts: its bin folder.
        variables: the process environment that every child gets, with `scripts` first on PATH.
    """

    python: Path
    prefix: Path
    packages: Path
    scripts: Path
    variables: Mapping[str, str]

    def tool(self, *names: str) -> Path | None:
        """The first of these programs on PATH."""
        for name in names:
            if found := shutil.which(name, path=self.variables["PATH"]):
                return Path(found)
        return None


def current() -> Environment:
    """The environment of the interpreter that runs this."""
    scripts = Path(sysconfig.get_path("scripts"))
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("HOROVOD_", "PYTHON"))}
    keep |= {name: os.environ[name] for name in recipe.PASSED_ON if name in os.environ}
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"):  # those of a make that started us
        keep.pop(name, None)
    keep["TF_CPP_MIN_LOG_LEVEL"] = "2"  # an error is not to be looked for among start-up notes
    keep["PATH"] = os.pathsep.join(filter(None, (str(scripts), os.environ.get("PATH", ""))))
    return Environment(
        python=Path(sys.executable),
        prefix=Path(sys.prefix),
        packages=Path(sysconfig.get_path("platlib")),
        scripts=scripts,
        variables=keep,
    )


def package_version(*names: str) -> str | None:
    """The version of the first of these packages that is installed; nothing is imported."""
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def first_line(program: Path | None, argument: str) -> str | None:
    """What a program says about its version, or None where it is missing or does not run."""
    if program is None:
        return None
    try:
        done = subprocess.run([program, argument], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next((line.strip() for line in done.stdout.splitlines() if line.strip()), "")


def mpi_version(env: Environment) -> str | None:
    """The version line of the MPI on PATH, such as ``mpirun (Open MPI) 4.1.8``."""
    return first_line(env.tool("mpirun"), "--version")


def nvcc_program(env: Environment) -> Path | None:
    """The CUDA compiler: that of CUDA_HOME, else the one on PATH."""
    home = env.variables.get("CUDA_HOME")
    return Path(home, "bin", "nvcc") if home else env.tool("nvcc")


def nccl_folder() -> Path | None:
    """The folder of the NCCL wheel with ``include/`` and ``lib/`` in it."""
    try:
        files = importlib.metadata.files(NCCL_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    header = next((file for file in files if file.name == "nccl.h"), None)
    return Path(str(header.locate())).parent.parent if header else None


def runpath(env: Environment, nccl: Path | None) -> str:
    """Where the installed library looks for MPI and NCCL: relative to itself, so that a wheel fits every environment.

    Each way leads through the folder above site-packages, so that it is right beside site-packages, too, where a wheel
    is checked before it is installed. An MPI outside of the environment needs no entry: mpicxx adds its absolute path,
    or it is a system library.
    """
    folders = [nccl / "lib"] if nccl else []
    if mpi_in_environment(env):
        folders.insert(0, env.prefix / "lib")
    above = f"$ORIGIN/{LIBRARY_TO_ABOVE_PACKAGES}"
    return ";".join(f"{above}/{os.path.relpath(folder, env.packages.parent)}" for folder in folders)


def mpi_in_environment(env: Environment) -> bool:
    """The MPI came with a wheel into this environment."""
    mpicxx = env.tool("mpicxx")
    return mpicxx is not None and mpicxx.is_relative_to(env.prefix)


def build_label(env: Environment, *, gpu: bool) -> str | None:
    """Names the one build that fits here, such as ``tf2.21.0.openmpi4.1.8.cpu.4f0a91c2d3``.

    It becomes the local part of the wheel's version, so that the installed Horovod tells by itself what it was built
    for. Everything that makes two builds differ is in it, the readable part or the hash.

    Returns:
        The label, or None where TensorFlow or MPI (or what `gpu` needs) is missing.
    """
    tensorflow, mpi = package_version(*TENSORFLOW_PACKAGES), mpi_version(env)
    nccl, nvcc = (nccl_folder(), nvcc_version(env)) if gpu else (None, None)
    if tensorflow is None or mpi is None or (gpu and None in (nccl, nvcc)):
        return None
    facts = (
        recipe.fingerprint(runpath(env, nccl), gpu=gpu),
        tensorflow,
        sysconfig.get_config_var("SOABI"),
        platform.libc_ver(),
        mpi,
        None if mpi_in_environment(env) else str(env.tool("mpicxx")),
        nvcc,
        package_version(NCCL_PACKAGE) if gpu else None,
        sorted((name, env.variables[name]) for name in recipe.PASSED_ON if name in env.variables),
    )
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:10]
    return f"tf{plain(tensorflow)}.{mpi_name(mpi)}.{'gpu' if gpu else 'cpu'}.{digest}"


def nvcc_version(env: Environment) -> str | None:
    """The release of nvcc."""
    program = nvcc_program(env)
    if program is None:
        return None
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"release ([\d.]+)", done.stdout)
    return found[1] if found else done.stdout


def mpi_name(version_line: str) -> str:
    """A short name for an MPI: ``openmpi4.1.8``."""
    number = re.search(r"\d+(\.\d+)+", version_line)
    kind = "openmpi" if "Open MPI" in version_line or "OpenRTE" in version_line else "mpi"
    return kind + (number[0] if number else "")


def plain(version: str) -> str:
    """A version with nothing in it that a local version label forbids."""
    return re.sub(r"[^a-z0-9.]", ".", version.lower())
