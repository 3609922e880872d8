"""Source in, wheel out."""

import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

from horovod_installer import recipe
from horovod_installer.environment import Environment, nccl_folder, nvcc_program, runpath
from horovod_installer.processes import CommandError, Workspace
from horovod_installer.progress import percent_done, say, ticking

DOWNLOAD_SECONDS = 600
COMPILE_SECONDS = 3 * 3600
BYTES_PER_JOB = 2 * 2**30  # the compiler takes that much for the largest file


def build(env: Environment, workspace: Workspace, *, label: str, jobs: int, gpu: bool) -> Path:
    """A wheel of Horovod for this environment, in the workspace.

    Raises:
        CommandError: the download or the compiler failed.
        RecipeError: the source is not what the edits expect.
    """
    source = fetch_source(env, workspace)
    nccl = nccl_folder() if gpu else None
    recipe.apply_edits(source, recipe.edits(runpath(env, nccl), gpu=gpu))
    variables = {**env.variables, **recipe.options(gpu=gpu), "HOROVOD_LOCAL_VERSION": label, "MAKEFLAGS": f"-j{jobs}"}
    if nccl:
        variables |= gpu_variables(env, nccl, workspace.make("nccl"))
    target = workspace.make("wheel")
    command = [
        *pip(env),
        "wheel",
        "--verbose",
        "--no-cache-dir",
        "--no-build-isolation",
        "--no-deps",
        "--no-index",
        "-w",
        target,
        source,
    ]
    say(f"the compiler's output goes to {workspace.log}")
    what = f"compiling Horovod {recipe.VERSION}, {jobs} files at a time"
    with ticking(what, lambda: percent_done(workspace.log)) as tick:
        workspace.run("compiling Horovod", command, variables, timeout=COMPILE_SECONDS, while_waiting=tick)
    wheel = next(target.glob(f"horovod-{recipe.VERSION}+{label}-*.whl"), None)
    if wheel is None:
        raise CommandError(workspace.explain(f"compiling ended well, but left no wheel of {label}"))
    return wheel


def fetch_source(env: Environment, workspace: Workspace) -> Path:
    """The unpacked release from the package index; pip checks that it is the pinned one."""
    folder = workspace.make("source")
    wanted = folder / "wanted.txt"
    wanted.write_text(f"horovod=={recipe.VERSION} --hash=sha256:{recipe.SOURCE_SHA256}\n")
    only_source = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
    command = [*pip(env), "download", *only_source, "-d", folder, "-r", wanted]
    what = f"downloading the source of Horovod {recipe.VERSION}"
    with ticking(what) as tick:
        workspace.run(what, command, env.variables, timeout=DOWNLOAD_SECONDS, while_waiting=tick)
    with tarfile.open(folder / f"horovod-{recipe.VERSION}.tar.gz") as archive:
        archive.extractall(folder)  # noqa: S202 - its checksum is pinned
    return folder / f"horovod-{recipe.VERSION}"


def gpu_variables(env: Environment, nccl: Path, home: Path) -> Mapping[str, str]:
    """Where CUDA and NCCL are. The NCCL wheel lacks the plain library name that a linker asks for."""
    (home / "include").symlink_to(nccl / "include")
    (home / "lib").mkdir()
    for name in ("libnccl.so", "libnccl.so.2"):
        (home / "lib" / name).symlink_to(nccl / "lib" / "libnccl.so.2")
    nvcc = nvcc_program(env)
    cuda = {"HOROVOD_CUDA_HOME": str(nvcc.resolve().parent.parent)} if nvcc else {}
    return {"HOROVOD_NCCL_HOME": str(home), **cuda}


def default_jobs() -> int:
    """Compilers at a time: one per core that we may use, as far as the memory goes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(len(os.sched_getaffinity(0)), memory // BYTES_PER_JOB))


def pip(env: Environment) -> list[str | Path]:
    """How pip is called: that of this environment, never asking anything."""
    return [env.python, "-m", "pip", "--no-input", "--disable-pip-version-check"]
