"""From paths to uint8 batches: ours, its peers and the limit, side by side. See benchmarks/README.md.

python -m benchmarks.loader          about half an hour on 2 cores
python -m benchmarks.loader --quick  a minute: does everything still run?
python -m benchmarks.loader --tune   only looks for every way's best settings, which the others use
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.loader import corpus, facts, report, tune
from benchmarks.loader.contest import Contestant, NotMeasured, interleaved
from benchmarks.loader.registry import LIMIT, WAYS, Way
from dist_loader.cores import reading_threads
from dist_loader.world import World

RESULTS = Path(__file__).parents[1] / "results"
_QUICK = ("limit", "ours", "ours_fit", "tf_data", "py_dataset")  # modules that need no more than TensorFlow and OpenCV
_QUICK_KINDS = ("small", "png")
_FEWER = ("large", "png", "gray")  # kinds that get three rounds at most


def main() -> int:
    """The exit code: 1 if ours, the limit or all was not measured, 2 if a file was not written, 130: Ctrl-C."""
    args = _arguments()
    try:
        return _run(args)
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(f"benchmarks.loader: error: {error}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace) -> int:
    """Make the files, measure, report."""
    cores = sorted(os.sched_getaffinity(0))[: args.cores]
    images = args.images or (128 if args.quick else max(4096, 512 * len(cores)))
    results: Path = args.results or (args.corpus / "quick" if args.quick else RESULTS)
    results.mkdir(parents=True, exist_ok=True)
    if not os.access(results, os.W_OK):
        raise PermissionError(f"nothing can be written to {results}: give another folder with --results")
    rounds = args.rounds or (1 if args.quick else 5)
    known = facts.machine(cores)
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {line}", flush=True)

    corpora = []
    for name in dict.fromkeys(args.kinds) if args.kinds else (_QUICK_KINDS if args.quick else corpus.KINDS):
        kind = corpus.KINDS[name]
        say(f"{name}: {corpus.count(kind, images)} files in {args.corpus}")
        corpora.append(corpus.make(kind, images, args.corpus, len(cores)))

    ways = [way for way in WAYS if _wanted(way, args)]
    tuning = RESULTS / "loader_tuning.json"
    if args.tune:
        _tune(ways, corpora, cores, tuning, say)
        return 0
    contestants: dict[str, Contestant] = {}
    outcomes = []
    try:
        for way in ways:
            contestants[way.name] = Contestant(way, cores)
        for one in corpora:
            settings = {way.name: tune.best_settings(tuning, one.kind, way) for way in ways}
            rounds_of, reasons = interleaved(
                contestants,
                one,
                lambda way, settings=settings: settings[way.name],  # type: ignore[misc]
                min(3, rounds) if one.kind.name in _FEWER else rounds,
                say,
            )
            paths = one.paths()
            kilobytes = sum(Path(path).stat().st_size for path in paths) / len(paths) / 1000
            outcomes.append(report.Outcome(one.kind.name, len(paths), kilobytes, rounds_of, reasons, settings))
    finally:
        for contestant in contestants.values():
            contestant.end()

    plot_file: str | None = "loader.svg"
    try:
        report.plot(outcomes, results / "loader.svg")
    except ImportError:
        plot_file = None
        say("no plot: matplotlib is not installed")
    content = {"facts": known, "outcomes": [asdict(one) for one in outcomes]}
    (results / "loader.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (results / "loader.md").write_text(report.document(outcomes, known, plot_file), encoding="utf-8")
    say(f"written: {results / 'loader.md'}, loader.json{', loader.svg' if plot_file else ''}")
    print("\n" + "\n".join(report.table(one) for one in outcomes))
    print("\n".join(report.last_lines(outcomes)))
    needed = {way.name for way in ways if way.role in ("ours", "limit")}
    return int(any(needed & one.reasons.keys() or not one.rounds for one in outcomes))


def _tune(
    ways: list[Way], corpora: list[corpus.Corpus], cores: list[int], path: Path, say: Callable[[str], None]
) -> None:
    for way in ways:
        contestant = Contestant(way, cores)
        for one in corpora:
            if one.kind.name in _FEWER and way.name != LIMIT:
                continue  # the settings of the small images are used
            try:
                tune.save(path, one.kind, way, tune.tune(contestant, one, say))
            except NotMeasured as error:
                say(f"{one.kind.name}: {way.name}: not measured: {error}")
        contestant.end()


def _wanted(way: Way, args: argparse.Namespace) -> bool:
    if args.ways:
        return any(part.lower() in f"{way.name} {way.module}".lower() for part in args.ways)
    return not args.quick or way.module in _QUICK


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "benchmarks.loader", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="few files, one round, and no peer that is hard to install"
    )
    parser.add_argument("--tune", action="store_true", help="write results/loader_tuning.json anew, and no more")
    mine = reading_threads(World(0, 1, 0, 1))
    parser.add_argument(
        "--images",
        type=_above_zero,
        help="small files, a quarter as many large and PNG, half as many gray (by default 4096, or 512 for each core)",
    )
    parser.add_argument(
        "--rounds",
        type=_above_zero,
        help="that count, by default 5, or 1 with --quick; the other kinds than small have three at most",
    )
    parser.add_argument(
        "--cores",
        type=_above_zero,
        default=mine,
        help=f"how many to use, by default the {mine} that this process may use",
    )
    parser.add_argument("--kinds", nargs="+", choices=list(corpus.KINDS), metavar="KIND", help="by default all")
    parser.add_argument("--ways", nargs="+", metavar="PART", help="only ways with this in their name")
    parser.add_argument(
        "--corpus", type=Path, default=corpus.cache_folder(), metavar="DIR", help="where the files are: %(default)s"
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="where the report goes: benchmarks/results, or with --quick the folder quick of --corpus",
    )
    args = parser.parse_args()
    if args.cores > (there := len(os.sched_getaffinity(0))):
        parser.error(f"argument --cores: this process may use {there}, not {args.cores}")
    if not any(_wanted(way, args) for way in WAYS):
        parser.error(
            f"argument --ways: none has {args.ways} in its name; there are {', '.join(way.name for way in WAYS)}"
        )
    return args


def _above_zero(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
