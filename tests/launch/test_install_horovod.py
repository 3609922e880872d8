"""The installer, short of the minutes that a compiler takes: everything around the build is real."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from horovod_installer import cache as caches
from horovod_installer import recipe
from horovod_installer.cli import cached_wheel
from horovod_installer.environment import Environment, build_label, current, runpath
from horovod_installer.install import installed_label, set_aside
from horovod_installer.processes import CommandError, Workspace
from packaging.version import Version

SCRIPT = Path(__file__).parents[2] / "launch" / "install_horovod.py"


# ---- a whole environment, made of almost nothing


@pytest.fixture
def bare(tmp_path: Path) -> Environment:
    """A virtual environment with nothing in it, and nothing else on PATH."""
    root = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root], check=True, timeout=60)
    packages = next(root.glob("lib/python3*/site-packages"))
    return Environment(root / "bin" / "python", root, packages, root / "bin", {"PATH": str(root / "bin")})


def run_installer(env: Environment, *flags: str) -> subprocess.CompletedProcess[str]:
    variables = {**env.variables, "HOME": str(env.prefix), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([env.python, SCRIPT, *flags], env=variables, capture_output=True, text=True, timeout=120)


def add_program(folder: Path, name: str, prints: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{prints}'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def add_package(env: Environment, name: str, version: str, files: dict[str, str]) -> None:
    info = env.packages / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    for path, text in files.items():
        (env.packages / path).parent.mkdir(parents=True, exist_ok=True)
        (env.packages / path).write_text(text)
    record = [f"{path},sha256=x,{len(text)}" for path, text in files.items()]
    (info / "RECORD").write_text("\n".join([*record, f"{info.name}/METADATA,,", f"{info.name}/RECORD,,", ""]))


HOROVOD_FILES = {
    "horovod/__init__.py": "old",
    "horovod/tensorflow/mpi_lib.so": "machine code",
    "../../../bin/horovodrun": "run",
}


# ---- before anything starts


def test_all_that_is_missing_is_told_at_once_and_nothing_is_started(bare: Environment, tmp_path: Path) -> None:
    done = run_installer(bare, "--gpu", "--cache", str(tmp_path / "cache"))
    assert done.returncode == 2
    told = [line.strip() for line in done.stderr.splitlines()[1:]]
    names = [
        "C++ compiler",
        "make",
        "cmake",
        "mpicxx",
        "mpirun",
        "pip",
        "setuptools",
        "wheel",
        "packaging",
        "cloudpickle",
    ]
    names += ["psutil", "yaml", "numpy", "tensorflow", "nvcc", "tensorflow", "NCCL"]
    assert [next(name for name in names if line.startswith(name)) for line in told] == names
    assert all(";" in line for line in told), "a line names no remedy"
    assert not (tmp_path / "cache").exists()
    assert "compiling" not in done.stdout


def test_what_does_not_work_is_told_apart_from_what_is_not_there(bare: Environment) -> None:
    add_program(bare.scripts, "make", "GNU Make")
    (bare.scripts / "c++").write_text("#!/bin/sh\necho 'cc1plus is gone' >&2; exit 1\n")
    (bare.scripts / "c++").chmod(0o755)
    (bare.packages / "numpy.py").write_text("raise ImportError('built for another Python')")
    done = run_installer(bare)
    assert done.returncode == 2
    assert "cannot compile C++17 (cc1plus is gone)" in done.stderr
    assert "cannot be imported (ImportError: built for another Python)" in done.stderr
    assert "\n    make " not in done.stderr


# ---- already installed


@pytest.fixture
def installed(bare: Environment) -> tuple[Environment, str]:
    """An environment that holds the very Horovod that fits it, and that label."""
    add_program(bare.scripts, "mpirun", "mpirun (Open MPI) 4.1.8")
    add_program(bare.scripts, "mpicxx", "")
    add_package(bare, "tensorflow-cpu", "2.21.0", {})
    code = "from horovod_installer.environment import *; print(build_label(current(), gpu=False))"
    asked = subprocess.run(
        [bare.python, "-c", code],
        env=bare.variables,
        cwd=SCRIPT.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    label = asked.stdout.strip()
    add_package(bare, "horovod", f"{recipe.VERSION}+{label}", HOROVOD_FILES)
    return bare, label


def test_the_right_horovod_is_left_alone_at_once(installed: tuple[Environment, str]) -> None:
    env, label = installed
    start = time.monotonic()
    done = run_installer(env)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"({label}) is installed already" in done.stdout
    assert time.monotonic() - start < 5  # well under 1 s on an idle machine; a TensorFlow import is not


@pytest.mark.parametrize("path", HOROVOD_FILES)
def test_a_horovod_with_a_part_gone_or_cut_short_is_not_taken_for_installed(
    installed: tuple[Environment, str], path: str
) -> None:
    env, label = installed
    assert installed_label(env) == label
    (env.packages / path).write_text("")
    assert installed_label(env) is None
    (env.packages / path).unlink()
    assert installed_label(env) is None
    assert run_installer(env).returncode == 2  # and goes on to look at what it needs


def test_another_build_is_not_taken_for_this_one(installed: tuple[Environment, str]) -> None:
    env, _ = installed
    add_program(env.scripts, "mpirun", "mpirun (Open MPI) 4.1.6")
    assert "already" not in run_installer(env).stdout


# ---- the label


@pytest.fixture
def env(tmp_path: Path) -> Environment:
    """This interpreter, with an MPI made up for the purpose."""
    return with_mpi(tmp_path / "mpi", "mpirun (Open MPI) 4.1.8")


def with_mpi(folder: Path, version: str) -> Environment:
    folder.mkdir()
    add_program(folder, "mpirun", version)
    add_program(folder, "mpicxx", "")
    return replace(current(), variables={"PATH": f"{folder}:/usr/bin:/bin"})


def test_the_label_is_readable_stable_and_a_valid_local_version(env: Environment) -> None:
    label = build_label(env, gpu=False)
    assert label is not None
    assert label == build_label(env, gpu=False)
    assert label.startswith("tf2.")
    assert ".openmpi4.1.8.cpu." in label
    assert Version(f"{recipe.VERSION}+{label}").local == label


def test_another_mpi_or_option_is_another_build(env: Environment, tmp_path: Path) -> None:
    flag = {**env.variables, "HOROVOD_BUILD_ARCH_FLAGS": "-mavx512f"}
    labels = [
        build_label(env, gpu=False),
        build_label(with_mpi(tmp_path / "newer", "mpirun (Open MPI) 5.0.11"), gpu=False),
        build_label(with_mpi(tmp_path / "elsewhere", "mpirun (Open MPI) 4.1.8"), gpu=False),
        build_label(replace(env, variables=flag), gpu=False),
    ]
    assert None not in labels
    assert len(set(labels)) == len(labels)


def test_an_environment_that_brings_its_mpi_can_move_and_keep_its_build(tmp_path: Path) -> None:
    labels = set()
    for name in ("here", "there"):
        root = tmp_path / name
        (root / "bin").mkdir(parents=True)
        add_program(root / "bin", "mpirun", "mpirun (Open MPI) 4.1.8")
        add_program(root / "bin", "mpicxx", "")
        packages = root / "lib" / "python3.11" / "site-packages"
        moved = Environment(root / "bin" / "python", root, packages, root / "bin", {"PATH": str(root / "bin")})
        labels.add(build_label(moved, gpu=False))
    assert len(labels) == 1
    assert None not in labels


def test_the_library_finds_its_companions_installed_and_beside_site_packages(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    (tmp_path / "bin").mkdir()
    add_program(tmp_path / "bin", "mpicxx", "")
    here = Environment(
        tmp_path / "bin" / "python", tmp_path, packages, tmp_path / "bin", {"PATH": str(tmp_path / "bin")}
    )
    nccl = packages / "nvidia" / "nccl"
    (nccl / "lib").mkdir(parents=True)
    for folder in (packages, packages.with_name("staging")):
        library = folder / "horovod" / "tensorflow"
        library.mkdir(parents=True)
        ways = runpath(here, nccl).replace("$ORIGIN", str(library)).split(";")
        assert [Path(way).resolve() for way in ways] == [tmp_path / "lib", nccl / "lib"]


def test_no_label_without_an_mpi() -> None:
    assert build_label(replace(current(), variables={"PATH": ""}), gpu=False) is None


def test_the_recipe_is_part_of_the_label() -> None:
    assert recipe.fingerprint("a", gpu=False) != recipe.fingerprint("b", gpu=False)
    assert recipe.fingerprint("a", gpu=False) != recipe.fingerprint("a", gpu=True)


# ---- the source


def source_tree(root: Path) -> Path:
    cmake = root / "horovod" / "tensorflow" / "CMakeLists.txt"
    cmake.parent.mkdir(parents=True)
    cmake.write_text(
        "# TF SOURCES\n"
        'list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/mpi_ops.cc")\n'
        'list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/xla_mpi_ops.cc")\n'
        "\n"
        'set_target_properties(${TF_TARGET_LIB} PROPERTIES OUTPUT_NAME "mpi_lib")\n'
    )
    return cmake


def test_the_file_that_does_not_compile_is_left_out_and_the_library_finds_mpi_from_where_it_lies(
    tmp_path: Path,
) -> None:
    cmake = source_tree(tmp_path)
    recipe.apply_edits(tmp_path, recipe.edits("$ORIGIN/../lib", gpu=False))
    assert cmake.read_text() == (
        "# TF SOURCES\n"
        'list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/mpi_ops.cc")\n'
        "\n"
        'set_target_properties(${TF_TARGET_LIB} PROPERTIES OUTPUT_NAME "mpi_lib" BUILD_RPATH "$ORIGIN/../lib")\n'
    )


@pytest.mark.parametrize("times", [0, 2])
def test_a_line_that_is_not_there_exactly_once_is_an_error(tmp_path: Path, times: int) -> None:
    cmake = source_tree(tmp_path)
    line = 'list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/xla_mpi_ops.cc")\n'
    cmake.write_text(cmake.read_text().replace(line, line * times))
    with pytest.raises(recipe.RecipeError, match=rf"xla_mpi_ops.cc.* 1 times, found it {times} times"):
        recipe.apply_edits(tmp_path, recipe.edits("", gpu=False))


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(recipe.RecipeError, match=r"CMakeLists\.txt: not in the source"):
        recipe.apply_edits(tmp_path, recipe.edits("", gpu=False))


def test_the_gpu_source_asks_streams_for_their_handle(tmp_path: Path) -> None:
    source_tree(tmp_path)
    ops = tmp_path / "horovod" / "tensorflow" / "mpi_ops.cc"
    ops.write_text(
        f"GpuStreamHandle AsGpuStreamValue(Stream* stream);\n{recipe.GPU_STREAM}\n" * 1
        + f"{recipe.GPU_STREAM}\n" * 7
        + f"{recipe.GPU_STREAM_BROKEN}\n" * 4
    )
    kernels = tmp_path / "horovod" / "common" / "ops" / "cuda" / "CMakeLists.txt"
    kernels.parent.mkdir(parents=True)
    kernels.write_text("set(CMAKE_CUDA_STANDARD 11)\n")
    recipe.apply_edits(tmp_path, recipe.edits("", gpu=True))
    assert "AsGpuStreamValue" not in ops.read_text()
    assert ops.read_text().count("platform_specific_handle().stream") == 12
    assert kernels.read_text() == "set(CMAKE_CUDA_STANDARD 17)\n"


# ---- finished wheels


@pytest.fixture
def cache(tmp_path: Path) -> caches.Cache:
    folder = tmp_path / "cache"
    folder.mkdir()
    return caches.Cache(folder)


@pytest.fixture
def stored(cache: caches.Cache, tmp_path: Path) -> Path:
    wheel = tmp_path / f"horovod-{recipe.VERSION}+good-cp311-cp311-linux_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("horovod/__init__.py", "x = 1\n" * 1000)
    return cache.store(wheel)


def test_a_stored_wheel_is_found_whole(cache: caches.Cache, stored: Path) -> None:
    assert caches.damage(stored) is None
    assert cached_wheel(cache, "good") == stored
    assert cached_wheel(cache, "other") is None
    assert {file.suffix for file in cache.folder.iterdir()} == {".whl", ".sha256"}


def flip(wheel: Path) -> None:
    content = bytearray(wheel.read_bytes())
    content[len(content) // 2] ^= 1
    wheel.write_bytes(content)


def cut(wheel: Path) -> None:
    wheel.write_bytes(wheel.read_bytes()[:-100])


def forget_checksum(wheel: Path) -> None:
    caches.checksum_file(wheel).unlink()


def broken_from_the_start(wheel: Path) -> None:
    flip(wheel)
    caches.checksum_file(wheel).write_text(caches.checksum(wheel))


@pytest.mark.parametrize("harm", [flip, cut, forget_checksum, broken_from_the_start])
def test_a_damaged_wheel_is_thrown_away(
    cache: caches.Cache, stored: Path, harm: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    harm(stored)
    assert cached_wheel(cache, "good") is None
    assert list(cache.folder.iterdir()) == []
    assert "damaged" in capsys.readouterr().out


def test_a_wheel_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    def fail_half_way(target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        caches.write_whole(tmp_path / "wheel", fail_half_way)
    assert list(tmp_path.iterdir()) == []


def test_two_runs_take_turns(cache: caches.Cache) -> None:
    events: list[str] = []

    def second() -> None:
        with cache.lock(lambda: events.append("second waits")):
            events.append("second goes")

    with cache.lock(lambda: events.append("first waits")):
        other = threading.Thread(target=second)
        other.start()
        while "second waits" not in events and other.is_alive():
            time.sleep(0.01)
        time.sleep(0.2)
        events.append("first is done")
    other.join(10)
    assert events == ["second waits", "first is done", "second goes"]


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def place(asked: Path | None = None, **variables: str) -> Path:
        return caches.open_cache(asked, variables, tmp_path / "prefix").folder

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert place() == tmp_path / "home" / ".cache" / "dist_loader"
    assert place(XDG_CACHE_HOME=str(tmp_path / "xdg")) == tmp_path / "xdg" / "dist_loader"
    assert place(DIST_LOADER_CACHE=str(tmp_path / "ours"), XDG_CACHE_HOME="/nowhere") == tmp_path / "ours"
    assert place(tmp_path / "flag", DIST_LOADER_CACHE=str(tmp_path / "ours")) == tmp_path / "flag"


def test_a_home_that_cannot_be_written_is_no_obstacle_but_a_named_place_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    assert caches.open_cache(None, {}, tmp_path / "prefix").folder == tmp_path / "prefix" / "cache"
    with pytest.raises(caches.CacheError, match="--cache"):
        caches.open_cache(tmp_path / "file" / "cache", {}, tmp_path / "prefix")


# ---- all or nothing


@pytest.mark.parametrize("failure", [CommandError("import failed"), KeyboardInterrupt(), SystemExit(143)])
def test_after_a_failed_install_the_horovod_of_before_is_there(
    bare: Environment, tmp_path: Path, failure: BaseException
) -> None:
    add_package(bare, "horovod", "0.27.0", HOROVOD_FILES)
    before = contents(bare.prefix)
    with pytest.raises(type(failure)), set_aside(bare, tmp_path / "aside"):
        assert not (bare.packages / "horovod").exists()
        add_package(bare, "horovod", "0.28.1", {"horovod/__init__.py": "new", "horovod/half.so": "a part"})
        raise failure
    assert contents(bare.prefix) == before


def test_after_a_failed_first_install_nothing_is_there(bare: Environment, tmp_path: Path) -> None:
    before = contents(bare.prefix)
    with pytest.raises(CommandError), set_aside(bare, tmp_path / "aside"):
        add_package(bare, "horovod", "0.28.1", HOROVOD_FILES)
        raise CommandError("import failed")
    assert contents(bare.prefix) == before


def test_after_a_good_install_nothing_of_the_old_one_is_left(bare: Environment, tmp_path: Path) -> None:
    add_package(bare, "horovod", "0.27.0", {"horovod/gone_in_028.py": ""})
    with set_aside(bare, tmp_path / "aside"):
        add_package(bare, "horovod", "0.28.1", HOROVOD_FILES)
    assert not (bare.packages / "horovod" / "gone_in_028.py").exists()
    assert [info.name for info in bare.packages.glob("*.dist-info")] == ["horovod-0.28.1.dist-info"]


def contents(root: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in root.rglob("*") if file.is_file() and not file.is_symlink()}


# ---- child processes


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "work").mkdir()
    return Workspace(tmp_path / "work", tmp_path / "log")


def run(workspace: Workspace, script: str, timeout: float = 30) -> None:
    variables = {"PATH": os.environ["PATH"]}
    workspace.run("the step", ["sh", "-c", script], variables, timeout=timeout, while_waiting=lambda: None)


def test_a_step_that_fails_is_told_with_its_last_words_and_its_log(workspace: Workspace) -> None:
    with pytest.raises(CommandError) as told:
        run(workspace, "echo first; echo 'fatal: no such header' >&2; exit 3")
    assert "the step failed with exit code 3" in str(told.value)
    assert "fatal: no such header" in str(told.value)
    assert str(workspace.log) in str(told.value)


def test_a_step_that_hangs_is_ended_with_all_that_it_started(workspace: Workspace) -> None:
    with pytest.raises(CommandError, match="took longer than 1 s"):
        run(workspace, "sleep 600 & echo $! > child; wait", timeout=1)
    assert_ended(int((workspace.folder / "child").read_text()))


INTERRUPTED = """
import sys, tempfile
from pathlib import Path
from horovod_installer import processes
from horovod_installer.processes import Workspace, signals_unwind

processes.GRACE_SECONDS = 1
with signals_unwind(), tempfile.TemporaryDirectory(dir=sys.argv[1]) as folder:
    script = "trap '' TERM; sleep 600 & echo $! > child.part; mv child.part ../child; wait"
    Workspace(Path(folder), Path(sys.argv[1], "log")).run(
        "compiling", ["sh", "-c", script], {"PATH": "/usr/bin:/bin"}, timeout=60, while_waiting=lambda: None
    )
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_or_an_impatient_second_one_leaves_no_process_and_no_folder(
    tmp_path: Path, number: signal.Signals
) -> None:
    asked = subprocess.Popen([sys.executable, "-c", INTERRUPTED, tmp_path], cwd=SCRIPT.parent, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "child").exists():
            assert asked.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        asked.send_signal(number)
        time.sleep(0.3)  # by now it waits for the child, which refuses to end
        asked.send_signal(number)
        _, errors = asked.communicate(timeout=30)
    finally:
        asked.kill()
    assert asked.returncode == 128 + number
    assert number.name.encode() in errors
    assert_ended(int((tmp_path / "child").read_text()))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["child", "log"]


def assert_ended(process: int) -> None:
    """Gone, or a zombie that waits for the system to collect it."""
    status = Path(f"/proc/{process}/stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"
