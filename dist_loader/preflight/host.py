"""What runs on every host: `python -m dist_loader.preflight.host WANTED` prints its facts, one line of JSON."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import dist_loader
from dist_loader.launching.machine import addresses, count_gpus, interface_of
from dist_loader.preflight import built, data
from dist_loader.preflight.facts import Facts, Wanted, to_json
from dist_loader.preflight.gpus import list_gpus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MARK = "dist_loader-facts:"
PACKAGES = ("keras", "horovod", "numpy", "pillow", "simplejpeg", "opencv-python-headless")
TENSORFLOWS = ("tensorflow", "tensorflow-cpu", "tf-nightly", "tf-nightly-cpu")


def quick(env: Mapping[str, str] = os.environ) -> Facts:
    """What can be told about this machine in a millisecond."""
    client, _, server, *_ = [*env.get("SSH_CONNECTION", "").split(), "", "", ""]
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return Facts(
        host=env.get("SLURMD_NODENAME") or socket.gethostname(),
        python=platform.python_version(),
        shm=_free("/dev/shm"),  # noqa: S108 - only looked at
        free={folder: free for folder in (tempfile.gettempdir(),) if (free := _free(folder)) is not None},
        memlock=None if locked == resource.RLIM_INFINITY else locked,
        files=1 << 30 if files == resource.RLIM_INFINITY else files,
        infiniband=any(Path("/sys/class/infiniband").glob("*")),
        interfaces=addresses(),
        reached_by=interface_of(server) if server else None,
        client=client or None,
        clock=(time.time(), time.time()),
    )


def look(wanted: Wanted, env: Mapping[str, str] = os.environ) -> Facts:
    """What is to be told about this machine, in some seconds at most."""
    base = quick(env)
    tensorflow, version = _tensorflow()
    versions = {"dist_loader": dist_loader.__version__, **({"tensorflow": version} if version else {})}
    versions |= {name: found for name in PACKAGES if (found := _version(name)) is not None}
    gpus, problem = list_gpus(env)
    has_folder = Path(wanted.folder).is_dir()
    free = _free(wanted.folder) if has_folder else None
    return Facts(
        **{
            **vars(base),
            "versions": versions,
            "cpu_only": tensorflow.endswith("-cpu"),
            "gpus": gpus,
            "usable": count_gpus(env),
            "gpu_problem": problem,
            "horovod": built.look(env),
            "mpirun": _mpirun(wanted.mpirun, env) if wanted.mpirun else None,
            "free": base.free if free is None else {**base.free, wanted.folder: free},
            "has_folder": has_folder,
            "script": _digest(wanted.script) if wanted.script else None,
            "data": data.look(wanted.data, wanted.seconds) if wanted.data else None,
            "clock": (base.clock[0], time.time()),
        }
    )


def _version(name: str) -> str | None:
    from importlib import metadata  # 20 ms, which a launch on one machine can do without

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _tensorflow() -> tuple[str, str]:
    """The distribution that TensorFlow comes from, and its version."""
    found = ((name, _version(name)) for name in TENSORFLOWS)
    return next(((name, version) for name, version in found if version is not None), ("", ""))


def _free(folder: str) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _digest(file: str) -> str | None:
    try:
        return hashlib.blake2b(Path(file).read_bytes(), digest_size=8).hexdigest()
    except OSError:
        return None


def _mpirun(program: str, env: Mapping[str, str]) -> str | None:
    try:
        said = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=5, check=False, env=dict(env)
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return built.short(said.stdout + said.stderr) if said.returncode == 0 else None


def main(argv: Sequence[str]) -> int:
    """Print the facts."""
    facts = look(Wanted(**json.loads(argv[0])))
    print(f"{MARK}{json.dumps(to_json(facts))}", flush=True)
    os._exit(0)  # a thread may still wait for the file system


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
