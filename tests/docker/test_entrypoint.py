"""What the containers run, as far as it needs no container."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ENTRYPOINT = Path(__file__).parents[2] / "docker" / "entrypoint.py"


def entrypoint(*arguments: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ENTRYPOINT, *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(home), **env},
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "nothing to do"),
        (("worker",), 2, "cannot read id_rsa and authorized_keys in "),
        (("worker", "-p", "22"), 2, "worker takes no arguments, but there is '-p'"),
        (("trian.sh", "x"), 127, "cannot run 'trian.sh': No such file or directory"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: tuple[str, ...], code: int, says: str, tmp_path: Path
) -> None:
    done = entrypoint(*arguments, home=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert done.stderr.startswith("dist_loader: ")
    assert says in done.stderr


def test_a_command_is_run_as_it_is(tmp_path: Path) -> None:
    done = entrypoint(
        sys.executable, "-c", "import sys; print(sys.argv[1:]); sys.exit(7)", "a b", "", "-x", home=tmp_path
    )
    assert (done.stdout, done.returncode) == ("['a b', '', '-x']\n", 7)


@pytest.mark.parametrize("arguments", [("-np", "2", "train.py", "a b"), ("train.py", "--data", "x")])
def test_a_script_and_options_go_to_launch(arguments: tuple[str, ...], tmp_path: Path) -> None:
    program = tmp_path / "dist-loader"
    program.write_text(f"#!{sys.executable}\nimport sys\nprint(sys.argv[1:])\n")
    program.chmod(0o755)
    done = entrypoint(*arguments, home=tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.stdout == f"{['launch', *arguments]}\n"


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_keys_are_made_once_and_are_private(tmp_path: Path) -> None:
    for _ in range(2):
        assert entrypoint("keys", home=tmp_path).returncode == 0
        made = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / ".ssh").iterdir()}
    assert set(made) == {"id_rsa", "id_rsa.pub", "authorized_keys"}
    assert made["authorized_keys"][0] == made["id_rsa.pub"][0]
    (tmp_path / ".ssh" / "authorized_keys").unlink()  # as if it had been interrupted
    assert entrypoint("keys", home=tmp_path).returncode == 0
    assert (tmp_path / ".ssh" / "id_rsa.pub").read_bytes() != made["id_rsa.pub"][0]
    assert (tmp_path / ".ssh" / "id_rsa").stat().st_mode & 0o777 == 0o600


def test_a_container_that_is_no_worker_is_healthy(tmp_path: Path) -> None:
    assert entrypoint("health", home=tmp_path).returncode == 0
