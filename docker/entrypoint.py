"""What the containers of the images run.

    worker                    serves a launcher in another container: an ssh server on port 2222
    keys                      makes the keys of a job, in the folder ~/.ssh that its containers share
    health                    exit code 0 unless this is a worker that does not let its own user in
    [OPTION...] SCRIPT.py...  dist-loader launch
    anything else             is a command

Standard library only; it starts before anything else is known to work.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

SSHD = "/usr/sbin/sshd"
# Named as Kubernetes' MPI operator names them, whatever their kind.
KEY, PUBLIC, AUTHORIZED = "id_rsa", "id_rsa.pub", "authorized_keys"
RANK = b"dist_loader.launching.rank"
LONGEST = 3600.0  # seconds that a worker waits for its ranks; who runs the container mostly says less
USAGE, NO_SUCH_COMMAND = 2, 127
WORDS = "worker, keys, health, a SCRIPT.py to launch, and commands"


def main(argv: list[str]) -> int:
    """Do what the arguments say; the exit code."""
    match argv:
        case ["worker"]:
            return worker(Path.home() / ".ssh")
        case ["keys"]:
            return keys(Path.home() / ".ssh")
        case ["health"]:
            return health(Path("/proc/1/cmdline").read_bytes())
        case [("worker" | "keys" | "health") as word, *rest]:
            return complain(f"{word} takes no arguments, but there is {rest[0]!r}", USAGE)
        case []:
            return complain(f"nothing to do; there are {WORDS}", USAGE)
        case [first, *_] if first.startswith("-") or first.endswith(".py"):
            return run(["dist-loader", "launch", *argv])
        case _:
            return run(argv)


def run(command: list[str]) -> int:
    """Become this command, so that signals and the exit code are its own."""
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        return complain(f"cannot run {command[0]!r}: {error.strerror}; there are {WORDS}", NO_SUCH_COMMAND)


def keys(folder: Path) -> int:
    """Make a key pair in the layout of the MPI operator. One that is there is kept."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if (folder / AUTHORIZED).exists():
        return 0
    try:
        for name in (KEY, PUBLIC):
            (folder / name).unlink(missing_ok=True)  # of one that was interrupted
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "dist_loader", "-f", str(folder / KEY)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        shutil.copy(folder / PUBLIC, folder / AUTHORIZED)
    except (OSError, subprocess.CalledProcessError) as error:
        return complain(f"keys: cannot write to {folder}: {error}", USAGE)
    return 0


def worker(folder: Path) -> int:
    """Serve until SIGTERM or SIGINT. Then the ranks in this container are told, and may write a checkpoint."""
    lacking = [name for name in (KEY, AUTHORIZED) if not os.access(folder / name, os.R_OK)]
    if lacking:
        return complain(
            f"worker: cannot read {' and '.join(lacking)} in {folder}: mount the keys of the job there, which "
            f"Kubernetes' MPI operator or the command keys makes",
            USAGE,
        )
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _: stopping.append(got))
    # The job's key is the host key, too: whoever does not have it is no worker of this job.
    own = ["-o", f"HostKey={folder / KEY}", "-o", f"AuthorizedKeysFile={folder / AUTHORIZED}"]
    config = Path(__file__).with_name("sshd_config")
    # In a session of its own: Ctrl-C is for this process, which ends it when the ranks have ended.
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(config), *own], start_new_session=True)
    while server.poll() is None and not stopping:
        time.sleep(0.2)
    if stopping:
        end_ranks()
        server.terminate()
        server.wait()
        return 0
    return complain(f"worker: the ssh server ended with exit code {server.returncode}", 1)


def end_ranks() -> None:
    """Hand SIGTERM to the ranks, and wait for them to end."""
    for rank in ranks():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(rank, signal.SIGTERM)
    deadline = time.monotonic() + LONGEST
    while ranks() and time.monotonic() < deadline:
        time.sleep(0.2)


def ranks() -> list[int]:
    """The processes that `dist-loader launch` starts for each rank: `python -m dist_loader.launching.rank ...`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if RANK in (process / "cmdline").read_bytes().split(b"\0")[:4]:
                found.append(int(process.name))
    return found


def health(first_process: bytes) -> int:
    """Whether a worker does its work. Whatever else a container does, it ends when it fails."""
    if b"worker" not in first_process.split(b"\0"):
        return 0
    return subprocess.run(["ssh", "-o", "ConnectTimeout=3", "localhost", "true"], check=False).returncode


def complain(what: str, code: int) -> int:
    """Tell the user, in one line; the exit code."""
    print(f"dist_loader: {what}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
