"""All of Horovod goes in, or everything stays as it was."""

import contextlib
import importlib.metadata
import shutil
from collections.abc import Iterator
from pathlib import Path

from horovod_installer import recipe
from horovod_installer.build import pip
from horovod_installer.environment import Environment
from horovod_installer.processes import Workspace
from horovod_installer.progress import ticking

INSTALL_SECONDS = 300
CHECK = """
import importlib.metadata, sys
import horovod.tensorflow as hvd

assert hvd.mpi_built() and hvd.gloo_built(), "MPI or Gloo was left out of the build"
assert importlib.metadata.version("horovod") == sys.argv[1], importlib.metadata.version("horovod")
"""


def installed_label(env: Environment) -> str | None:
    """The label of the Horovod that is installed, or None where there is none or a part of it is gone."""
    found = next(iter(importlib.metadata.distributions(name="horovod", path=[str(env.packages)])), None)
    if found is None or not found.files:
        return None
    try:
        sizes_differ = any(file.size not in (None, Path(str(file.locate())).stat().st_size) for file in found.files)
    except OSError:
        return None
    return None if sizes_differ else found.version.removeprefix(f"{recipe.VERSION}+")


def install(env: Environment, wheel: Path, label: str, staging: Path, workspace: Workspace) -> None:
    """Installs a verified wheel in place of any other Horovod.

    Raises:
        CommandError: it could not be installed or imported; what was there before is there again.
    """
    steps: dict[str, list[str | Path]] = {
        "installing": [*pip(env), "install", "--no-deps", "--no-index", "--force-reinstall", wheel],
        "importing Horovod": [env.python, "-c", CHECK, f"{recipe.VERSION}+{label}"],
    }
    with ticking("installing it") as tick, set_aside(env, staging / "before"):
        for what, command in steps.items():
            workspace.run(what, command, env.variables, timeout=INSTALL_SECONDS, while_waiting=tick)


@contextlib.contextmanager
def set_aside(env: Environment, folder: Path) -> Iterator[None]:
    """Moves the present Horovod away, however damaged; brings it back if what follows does not end well.

    Args:
        env: whose Horovod.
        folder: a new folder on the same file system, so that moving is renaming.
    """
    folder.mkdir()
    moved = [(old, old.rename(folder / str(number))) for number, old in enumerate(parts(env))]
    try:
        yield
    except BaseException:
        for part in parts(env):
            remove(part)
        for old, kept in moved:
            kept.rename(old)
        raise


def parts(env: Environment) -> list[Path]:
    """Every file and folder at the top that belongs to an installed Horovod."""
    folder = env.packages / "horovod"
    found = [folder, env.scripts / "horovodrun", *env.packages.glob("horovod-*.dist-info")]
    return [part for part in found if part.exists()]


def remove(part: Path) -> None:
    """Removes a file or a folder."""
    if part.is_dir():
        shutil.rmtree(part)
    else:
        part.unlink()
