"""The benchmark of the loader: its files, its checks and its report. What it measures is not measured here."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed

from benchmarks.loader import __main__ as program  # noqa: E402
from benchmarks.loader import corpus, measure, report, tune  # noqa: E402
from benchmarks.loader.contest import Contestant, NotMeasured, Round, interleaved  # noqa: E402
from benchmarks.loader.registry import LIMIT, OURS, OURS_IN_FIT, WAYS, Way  # noqa: E402

SMALL = corpus.KINDS["small"]
BY_NAME = {way.name: way for way in WAYS}
CORES = sorted(os.sched_getaffinity(0))[:1]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> corpus.Corpus:
    return corpus.make(SMALL, 64, tmp_path_factory.mktemp("corpus"), 2)


@pytest.fixture(scope="module")
def batch(files: corpus.Corpus) -> np.ndarray:
    """All that a way should deliver."""

    def read(path: str) -> np.ndarray:
        with Image.open(path) as image:
            return np.asarray(image.resize((224, 224)).convert("RGB"))

    return np.stack([read(path) for path in files.paths()])


def epoch(*batches: np.ndarray) -> measure.Epoch:
    return measure.observed(lambda: iter(batches))


def test_files_are_what_was_said(files: corpus.Corpus) -> None:
    paths = files.paths()
    sizes = []
    for path in paths:
        with Image.open(path) as image:
            sizes.append(image.size)
    assert len(paths) == 64
    assert (abs(np.array(sizes) / (455, 400) - 1) <= 0.06).all()
    assert 55_000 < np.mean([Path(path).stat().st_size for path in paths]) < 71_000
    assert len({Path(path).parent.name for path in paths}) == 10


@pytest.mark.parametrize("kind", corpus.KINDS.values(), ids=lambda kind: kind.name)
def test_pictures_are_the_same_every_time(kind: corpus.Kind) -> None:
    first, again, other = corpus.draw(kind, 3), corpus.draw(kind, 3), corpus.draw(kind, 4)
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert first.mode == ("L" if kind.gray else "RGB")
    assert min(first.size) / kind.reduction >= corpus.SIZE


def test_files_are_written_once(files: corpus.Corpus) -> None:
    before = [Path(path).stat().st_mtime_ns for path in files.paths()]
    again = corpus.make(SMALL, 64, files.folder.parent, 2)
    assert [Path(path).stat().st_mtime_ns for path in again.paths()] == before


def test_a_way_that_delivers_everything_in_any_order_is_accepted(files: corpus.Corpus, batch: np.ndarray) -> None:
    first = measure.warm_up(epoch(batch[40:], batch[:40]), files.fingerprints())
    assert measure.seconds(epoch(batch), first) > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda batch: batch[:-1], "63 images were delivered, not 64"),
        (lambda batch: np.concatenate([batch[:-1], batch[:1]]), "1 images were never delivered, and others twice"),
        (lambda batch: batch[..., ::-1], "levels from the file that it resembles most"),
        (lambda batch: batch[:, ::-1], "levels from the file that it resembles most"),
        (lambda batch: batch.astype(np.float32), "float32"),
        (lambda batch: batch[:, :200], r"\(64, 200, 224, 3\)"),
        (np.zeros_like, "levels from"),
    ],
    ids=["one missing", "one twice", "BGR", "upside down", "float32", "too small", "black"],
)
def test_a_way_that_does_something_else_is_found_out(
    files: corpus.Corpus, batch: np.ndarray, wrong: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    with pytest.raises(measure.WrongDelivery, match=message):
        measure.warm_up(epoch(wrong(batch)), files.fingerprints())


def test_work_that_is_skipped_in_a_timed_epoch_is_found_out(files: corpus.Corpus, batch: np.ndarray) -> None:
    first = measure.warm_up(epoch(batch), files.fingerprints())
    for less in (batch[:-1], np.zeros_like(batch)):
        with pytest.raises(measure.WrongDelivery):
            measure.seconds(epoch(less), first)


def test_a_contest_measures_what_runs_and_says_why_the_rest_does_not(files: corpus.Corpus) -> None:
    pytest.importorskip("cv2")  # resizes, in every limit
    ways = [Way("Pillow", "limit", "documented", {"decoder": "pillow"}), BY_NAME["FFCV"]]
    ways.append(Way("a peer", "no_such_module", "documented"))
    contestants = {way.name: Contestant(way, CORES) for way in ways}
    try:
        rounds, reasons = interleaved(contestants, files, lambda way: way.fixed, 2, lambda line: None)
    finally:
        for contestant in contestants.values():
            contestant.end()
    assert list(rounds) == ["Pillow"]
    assert len(rounds["Pillow"]) == 2
    assert all(one.rate > 0 and one.cost > 0 and 0 <= one.others <= 1 for one in rounds["Pillow"])
    assert "opencv" in reasons["FFCV"]
    assert "ModuleNotFoundError" in reasons["a peer"]


def test_a_process_that_is_killed_is_a_reason() -> None:
    contestant = Contestant(Way("gone", "limit", "documented"), CORES)
    try:
        contestant.ask("close")
        os.kill(contestant.process, signal.SIGKILL)
        with pytest.raises(NotMeasured, match="ended with code -9"):
            contestant.ask("close")
    finally:
        contestant.end()


def outcome(kind: str, ours: float, others: float = 0.0) -> report.Outcome:
    rates = {LIMIT: [100.0, 50.0, 100.0], OURS: [ours, ours / 2, ours], OURS_IN_FIT: [91.0, 44.0, 89.0]}
    rates |= {"tf.data": [70.0, 35.0, 70.0], "SPDL, OpenCV": [80.0, 40.0, 80.0], "Grain, Pillow": [1.0, 1.0, 1.0]}
    rounds = {name: [Round(rate, 1.0, others) for rate in values] for name, values in rates.items()}
    return report.Outcome(kind, 1024, 63.0, rounds, {"FFCV": "does not build"}, {name: {} for name in rates})


def test_the_last_lines_say_the_ratios_and_judge_them() -> None:
    lines = report.last_lines([outcome("small", 96.0), outcome("large", 90.0)])
    assert lines[-2:] == ["ratio_to_limit=0.96", "ratio_to_best_peer=1.20 (SPDL, OpenCV; small)"]
    assert "small: ImageSequence to the limit: 0.96 (goal 0.95: met)" in lines
    assert "large: ImageSequence to the limit: 0.90 (goal 0.95: not met)" in lines
    assert "small: model.fit to the limit: 0.89 (goal 0.9: not met)" in lines
    assert "small: to tf.data, as documented: 1.37 (goal 1.3: met)" in lines
    assert "large: to SPDL, OpenCV, tuned by hand: 1.12 (goal 1.5: not met)" in lines


def test_a_disturbed_run_says_so() -> None:
    assert not any("not to be quoted" in line for line in report.last_lines([outcome("small", 96.0, others=0.02)]))
    lines = report.last_lines([outcome("small", 96.0), outcome("large", 96.0, others=0.4)])
    assert lines[-3].startswith("not to be quoted: other programs took 40% of the cores")


def test_the_table_names_what_was_not_measured() -> None:
    table = report.table(outcome("small", 96.0))
    assert "| FFCV | not measured: does not build |" in table
    assert table.index(f"| {LIMIT} |") < table.index(f"| {OURS} |") < table.index("| SPDL, OpenCV |")


def test_nothing_measured_is_said_and_not_made_up() -> None:
    empty = report.Outcome("small", 64, 63.0, {OURS: [Round(1.0, 1.0, 0.0)]}, {LIMIT: "no decoder"}, {OURS: {}})
    assert report.last_lines([empty])[-2:] == [
        "ratio_to_limit=not measured",
        "ratio_to_best_peer=not measured (None; small)",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--images 0", "--images: must be a whole number above 0, not '0'"),
        ("--rounds -1", "--rounds: must be a whole number above 0, not '-1'"),
        ("--cores 0", "--cores: must be a whole number above 0, not '0'"),
        ("--cores 9999", f"--cores: this process may use {len(os.sched_getaffinity(0))}, not 9999"),
        ("--ways petastorm", "--ways: none has ['petastorm'] in its name; there are limit"),
        ("--kinds huge", "--kinds: invalid choice: 'huge'"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str, words: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks.loader", *arguments.split()])
    with pytest.raises(SystemExit, match="2"):
        program.main()
    assert words in capsys.readouterr().err


def test_a_run_in_which_nothing_could_be_measured_says_why_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: corpus.Corpus, tmp_path: Path
) -> None:
    arguments = ["--quick", "--images", "64", "--kinds", "small", "small", "--ways", "ffcv", "--cores", "1"]
    folders = ["--corpus", str(files.folder.parent), "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmarks.loader", *arguments, *folders])
    assert program.main() == 1
    shown = capsys.readouterr().out
    assert shown.count("| FFCV | not measured: ") == 1
    assert shown.splitlines()[-2:] == ["ratio_to_limit=not measured", "ratio_to_best_peer=not measured (None; small)"]
    assert "| FFCV | not measured: " in (tmp_path / "loader.md").read_text()


def test_a_folder_that_cannot_be_written_to_is_named_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks.loader", "--results", "/proc/self"])
    assert program.main() == 2
    ended = capsys.readouterr()
    assert not ended.out
    assert ended.err == (
        "benchmarks.loader: error: nothing can be written to /proc/self: give another folder with --results\n"
    )


def test_files_that_are_not_finished_do_not_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(kind: corpus.Kind, number: int) -> Image.Image:
        raise KeyboardInterrupt

    monkeypatch.setattr(corpus, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        corpus.make(SMALL, 64, tmp_path, 1)
    assert not list(tmp_path.iterdir())


def test_the_best_settings_are_kept_and_found(tmp_path: Path) -> None:
    path, way = tmp_path / "results" / "tuning.json", BY_NAME["PyTorch DataLoader, OpenCV"]
    assert tune.best_settings(path, SMALL, way) == way.untuned(SMALL)
    tried = [tune.Tried(settings, []) for settings in (way.untuned(SMALL), {"decoder": "opencv", "workers": 2})]
    tune.save(path, SMALL, way, tried)
    for kind in ("small", "png", "gray"):  # png and gray have no tuning of their own
        assert tune.best_settings(path, corpus.KINDS[kind], way) == {"decoder": "opencv", "workers": 2}
    assert tune.best_settings(path, corpus.KINDS["large"], way)["reduce"] is True
