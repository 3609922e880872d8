"""The folder of checkpoints: whole or not there, whatever happens to a writer or to a file."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_loader.errors import CheckpointError, ConfigError
from dist_loader.training.checkpoint import journal
from dist_loader.training.checkpoint.folder import Folder, Monitor
from dist_loader.training.checkpoint.journal import Journal
from dist_loader.training.checkpoint.position import Every, Position
from tests.distributed.launching import environment
from tests.failures import documented

ARRAYS = {
    "shared-0": np.arange(2000, dtype=np.float32).reshape(40, 50),
    "shared-1": np.array(7, np.int64),
    "own-0": np.array([1.5, -2], ml_dtypes.bfloat16),
    "metrics-0": np.zeros((0, 3)),
    "random-python": np.array([2**32 - 1], np.uint32),
    "flags": np.array([True, False]),
}


def written(path: Path, *positions: tuple[int, int], keep: int = 100) -> Folder:
    folder = Folder(path)
    folder.prepare()
    for position in positions:
        folder.write(Position(*position), {"at": list(position)}, ARRAYS, keep)
    return folder


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    last = written(tmp_path, (0, 3), (1, 0)).last()
    assert (last.position, last.state) == (Position(1, 0), {"at": [1, 0]})
    assert list(last.arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert last.arrays[name].dtype == array.dtype
        assert last.arrays[name].shape == array.shape
        assert last.arrays[name].tobytes() == array.tobytes()
    with np.load(last.path, allow_pickle=False) as plain:  # anybody can
        assert np.array_equal(plain["shared-0"], ARRAYS["shared-0"])


def test_the_last_ones_and_the_best_stay(tmp_path: Path) -> None:
    folder, accuracy = written(tmp_path), Monitor("val_accuracy", largest=True)
    for epoch, value in enumerate((0.1, 0.7, float("nan"), 0.6, 0.7, 0.2)):
        path = folder.write(Position(epoch + 1), {"epoch": epoch}, ARRAYS, keep=2)
        folder.note_best(path, accuracy, value)
    assert [position.epoch for position in folder.positions()] == [2, 5, 6]
    assert folder.best().state == {"epoch": 1}
    assert json.loads((tmp_path / "best.json").read_text()) == {
        "file": "epoch-00002-step-000000000.npz",
        "val_accuracy": 0.7,
    }


@pytest.mark.parametrize("value", [float("inf"), 1e300, 3.0])
def test_smaller_is_better_for_a_loss(value: float) -> None:
    loss = Monitor("val_loss", largest=False)
    assert loss.better(2.0, value)
    assert not loss.better(value, 2.0)
    assert not loss.better(float("nan"), value)
    assert loss.better(value, None)


def damages(path: Path) -> dict[str, bytes]:
    """A file's content, damaged in many ways."""
    whole = path.read_bytes()
    draw = np.random.default_rng(0)
    ways = {"empty": b"", "half": whole[: len(whole) // 2], "all but the end": whole[:-1], "zeros": bytes(len(whole))}
    for at in draw.choice(len(whole), 300, replace=False):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << int(draw.integers(8))
        ways[f"bit at {at}"] = bytes(flipped)
    return ways


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = written(tmp_path, (0, 3), (1, 0))
    newest = list(folder.positions().values())[-1]
    passed_over = 0
    for way, content in damages(newest).items():
        newest.write_bytes(content)
        caplog.clear()
        last = folder.last()
        if last.position == Position(1, 0):  # a bit that says nothing of the content, such as a time
            assert all(last.arrays[name].tobytes() == array.tobytes() for name, array in ARRAYS.items()), way
            assert last.state == {"at": [1, 0]}, way
        else:
            passed_over += 1
            assert last.state == {"at": [0, 3]}
            assert str(newest) in caplog.text
            assert documented(caplog.messages[0])
    assert passed_over > 250


def test_no_checkpoint_that_can_be_read_is_an_error(tmp_path: Path) -> None:
    folder = written(tmp_path, (0, 3))
    (path,) = folder.positions().values()
    path.write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=f"{path.name}' is damaged"):
        folder.last()
    assert written(tmp_path / "empty").last() is None


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    folder = written(tmp_path, (0, 1), (0, 2))
    path = folder.positions()[Position(0, 2)]
    with zipfile.ZipFile(path, "w") as members:
        members.writestr("state.json", json.dumps({"types": {}}))
        with members.open("own-0.npy", "w") as member:
            np.lib.format.write_array(member, np.array([{"an": "object"}]), allow_pickle=True)
    assert folder.last().position == Position(0, 1)


HOLDING = """
import sys, time
from dist_loader.training.checkpoint.folder import Folder
Folder(sys.argv[1]).prepare()
print("there", flush=True)
time.sleep(60)
"""


def test_one_training_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"there\n"
        folder = Folder(tmp_path)
        with pytest.raises(CheckpointError, match="another training on this host writes to checkpoint_dir") as told:
            folder.prepare(patience=0)
        assert documented(str(told.value))
        other.kill()
    folder.prepare(patience=10)
    folder.prepare(patience=0)
    folder.release()
    Folder(tmp_path).prepare(patience=0)


KILLED = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from dist_loader.training.checkpoint.folder import Folder
from dist_loader.training.checkpoint.position import Position
arrays = {f"shared-{at}": np.full(150_000, at, np.float32) for at in range(6)}
draw = np.random.default_rng(int(sys.argv[2]))
folder = Folder(sys.argv[1])
folder.prepare()
epoch = 1
folder.write(Position(epoch), {"epoch": epoch}, arrays, 2)
parts = 0
for kill in range(100):
    if not (child := os.fork()):
        for later in range(epoch + 1, epoch + 1000):
            folder.write(Position(later), {"epoch": later}, arrays, 2)
    time.sleep(draw.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    parts += any(name.endswith(".part") for name in os.listdir(sys.argv[1]))
    last = folder.last()
    assert last.state["epoch"] == last.position.epoch >= epoch
    assert all((last.arrays[name] == array).all() for name, array in arrays.items())
    epoch = last.position.epoch
folder.prepare()
assert all(name.endswith(".npz") for name in os.listdir(sys.argv[1]))
print(parts)
"""


def test_a_kill_while_writing_leaves_one_that_can_be_loaded(tmp_path: Path) -> None:
    """A hundred times, at random moments."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), "5"], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20  # or the moments would not be those of writing


def test_a_full_disk_is_an_error_and_the_older_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path, (0, 3))
    fsync = os.fsync

    def full(fd: int) -> None:
        if os.fstat(fd).st_size > 4000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"No space left.*epoch-00000-step-000000003.npz, is still there"):
        folder.write(Position(1), {}, ARRAYS, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-00000-step-000000003.npz"]
    assert folder.last().position == Position(0, 3)


FULL = """
import sys
import numpy as np
from dist_loader.errors import CheckpointError
from dist_loader.training.checkpoint.folder import Folder
from dist_loader.training.checkpoint.position import Position
folder = Folder(sys.argv[1])
try:
    for step in range(10):
        folder.write(Position(0, step), {}, {"shared-0": np.zeros(100_000, np.uint8)}, 100)
except CheckpointError as error:
    print(error)
print(len(folder.positions()), folder.last().position.step)
"""


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=450k", "none", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs root, to mount a small file system")
    try:
        done = subprocess.run(
            [sys.executable, "-c", FULL, str(tmp_path)], env=environment(), capture_output=True, text=True, check=True
        )
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    message, found = done.stdout.splitlines()
    assert "No space left on device" in message
    assert documented(message)
    assert found == "4 3"


# --- the log of committed steps --------------------------------------------------------------------------------------


def committed(folder: Path) -> list[tuple[int, int]]:
    return [
        (line["epoch"], step)
        for line in journal.read(folder)
        for step in range(line["first"], line["first"] + line["steps"])
    ]


@given(st.data(), st.integers(1, 7))
def test_every_step_is_committed_exactly_once(tmp_path_factory: pytest.TempPathFactory, data, steps: int) -> None:
    """Over runs that are killed, go back to any earlier checkpoint, and leave torn lines."""
    folder = tmp_path_factory.mktemp("journal")
    where = st.integers(0, 4 * steps).map(lambda done: Position(*divmod(done, steps)))
    position = Position()
    for _ in range(data.draw(st.integers(1, 4))):
        log = Journal(folder, lambda epoch: steps, {"world_size": 2})
        log.start(position)
        for later in sorted(data.draw(st.lists(where, max_size=5))):
            if later > position:
                log.commit(later)
                position = later
        if data.draw(st.booleans()):
            with (folder / "steps.jsonl").open("a") as file:
                file.write(data.draw(st.sampled_from(['{"epoch": 3, "fir', "{}\n", "\x00\x00\n", '{"epoch": "x"}\n'])))
        position = data.draw(where.filter(lambda earlier, now=position: earlier <= now))
    Journal(folder, lambda epoch: steps, {}).start(position)
    done = position.epoch * steps + position.step
    assert committed(folder) == [divmod(step, steps) for step in range(done)]


# --- how often --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "steps", "seconds"),
    [
        (5, 5, None),
        ("12", 12, None),
        ("epoch", None, None),
        ("30s", None, 30),
        ("1.5 min", None, 90),
        ("2h", None, 7200),
    ],
)
def test_how_often_is_written_as_people_do(value: int | str, steps: int | None, seconds: float | None) -> None:
    assert Every.of(value) == Every(steps, seconds)


@pytest.mark.parametrize("value", [0, -1, True, 1.5, None, "", "0s", "-3s", "1d", "30 S", "s", "10m", "٣s", "1e3s", []])
def test_other_values_are_errors(value: object) -> None:
    with pytest.raises(ConfigError, match="checkpoint_every"):
        Every.of(value)
