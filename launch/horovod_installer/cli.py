"""The order of things."""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from horovod_installer import recipe
from horovod_installer.build import build, default_jobs
from horovod_installer.cache import Cache, CacheError, damage, discard, open_cache
from horovod_installer.environment import TENSORFLOW_PACKAGES, Environment, build_label, current, package_version
from horovod_installer.install import install, installed_label
from horovod_installer.preflight import missing
from horovod_installer.processes import CommandError, Workspace, signals_unwind
from horovod_installer.progress import say
from horovod_installer.verify import staging, verify

FAILED = 1
NOT_POSSIBLE_HERE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 something failed, 2 something is missing."""
    asked = parse(argv)
    env = current()
    label = build_label(env, gpu=asked.gpu)
    if already_there(env, label, asked):
        say(f"Horovod {recipe.VERSION} ({label}) is installed already")
        return 0
    lacking = missing(env, gpu=asked.gpu)
    if lacking or label is None:
        report = "\n".join(f"    {each}" for each in lacking)
        print(f"install_horovod: missing, so nothing was downloaded or compiled:\n{report}", file=sys.stderr)
        return NOT_POSSIBLE_HERE
    warn_untested()
    try:
        with signals_unwind():
            cache = open_cache(asked.cache, env.variables, env.prefix)
            provide(env, cache, label, asked)
    except CacheError as error:
        print(f"install_horovod: {error}", file=sys.stderr)
        return NOT_POSSIBLE_HERE
    except (CommandError, recipe.RecipeError, OSError) as error:
        print(f"install_horovod: {error}", file=sys.stderr)
        return FAILED
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="install_horovod.py",
        description=f"Build Horovod {recipe.VERSION} for this Python environment, check it on 2 ranks, install it.",
    )
    parser.add_argument("--gpu", action="store_true", help="with CUDA and NCCL; needs nvcc")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="finished wheels (default: ~/.cache/dist_loader)")
    parser.add_argument("--jobs", type=positive, metavar="N", default=default_jobs(), help="compilers at a time")
    parser.add_argument("--wheel-only", action="store_true", help="build and check, print the wheel's path, no install")
    parser.add_argument("--force", action="store_true", help="compile anew even if there is a finished wheel")
    return parser.parse_args(argv)


def positive(text: str) -> int:
    """A whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def already_there(env: Environment, label: str | None, asked: argparse.Namespace) -> bool:
    """Nothing is to be done."""
    return label is not None and not asked.force and not asked.wheel_only and installed_label(env) == label


def warn_untested() -> None:
    """Says so when this TensorFlow is not the one that the recipe was checked with."""
    version = package_version(*TENSORFLOW_PACKAGES) or ""
    if not version.startswith(f"{recipe.TENSORFLOW_CHECKED}."):
        say(f"TensorFlow {version} is untested here (checked: {recipe.TENSORFLOW_CHECKED}); trying all the same")


def provide(env: Environment, cache: Cache, label: str, asked: argparse.Namespace) -> None:
    """Finds or builds the wheel, proves that it works, installs it."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(cache.lock(lambda: say("another run is using the cache; waiting for it to end")))
        if already_there(env, label, asked):
            say(f"Horovod {recipe.VERSION} ({label}) was installed meanwhile")
            return
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="horovod-"))
        workspace = Workspace(Path(folder), cache.log(label))
        workspace.log.write_bytes(b"")
        wheel = None if asked.force else cached_wheel(cache, label)
        if wheel is None:
            wheel = cache.store(build(env, workspace, label=label, jobs=asked.jobs, gpu=asked.gpu))
        staged = stack.enter_context(staging(env))
        try:
            verify(env, wheel, staged, workspace, gpu=asked.gpu)
        except CommandError as error:
            raise CommandError(f"{error}\n  {wheel} stays in the cache; --force compiles it anew") from error
        if asked.wheel_only:
            say("the wheel works; its path:")
            print(wheel)
            return
        install(env, wheel, label, staged, workspace)
        say(f"Horovod {recipe.VERSION} ({label}) is installed")


def cached_wheel(cache: Cache, label: str) -> Path | None:
    """The finished wheel of this label, if it is there and undamaged."""
    wheel = cache.wheel(label)
    if wheel is None:
        return None
    if trouble := damage(wheel):
        say(f"the finished wheel {wheel} is damaged ({trouble}); compiling it anew")
        discard(wheel)
        return None
    say(f"using the finished wheel {wheel}")
    return wheel
