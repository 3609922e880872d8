"""`dist-loader scan`: lists a folder of images once, alone or with all ranks that mpirun started."""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, NoReturn

from dist_loader.ending import ENDED_BY_ANOTHER, end_now
from dist_loader.errors import ChannelError, ConfigError, DistLoaderError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from dist_loader.channel import Channel

HELP = "list a folder of images once, also with many ranks: mpirun -np 8 dist-loader scan DIR"


def run(argv: Sequence[str]) -> int:
    """Scan; the exit code."""
    given = _parser().parse_args(argv)
    before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        return _scanned(given)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _scanned(given: argparse.Namespace) -> int:
    """List; the exit code. A rank that is alone with its error ends here."""
    from dist_loader.channel import Alone, open_channel

    channel: Channel = Alone()
    try:
        channel = open_channel()
        _scan(channel, given)
    except ChannelError as error:
        _complain(error)
        end_now(ENDED_BY_ANOTHER)  # MPI would wait for the rank that is missing
    except DistLoaderError as error:  # the same on all ranks
        if channel.rank == 0:
            _complain(error)
        return 2
    except BaseException as error:
        if channel.size == 1:
            raise
        if isinstance(error, SystemExit | KeyboardInterrupt):
            end_now(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 130)
        traceback.print_exc()
        end_now(1)  # at once, so that mpirun ends the other ranks, which wait for this one
    return 0


def _scan(channel: Channel, given: argparse.Namespace) -> None:
    """List, and on rank 0 write and tell."""
    from dist_loader.index.divided import gathered, on_rank_zero
    from dist_loader.index.keeping import Kept
    from dist_loader.index.progress import Progress

    begun = time.monotonic()
    kept = Kept.of(given.dir, given.suffixes, given.classes, given.out, given.cache)
    report = Progress(channel.rank == 0)
    try:
        found = gathered(channel, kept.top, kept.suffixes, kept.classes, given.threads, report.say)
        on_rank_zero(channel, lambda: None if found is None else kept.keep(found), "writing the index")
    finally:
        report.end()
    if found is not None:
        kept.tell(found, time.monotonic() - begun, channel.size)


def _stop(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)  # what is half written is removed on the way


def _complain(error: object) -> None:
    print(f"dist-loader: error: {error}", file=sys.stderr, flush=True)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong once, and not for every rank."""

    def error(self, message: str) -> NoReturn:
        from dist_loader.world import World

        try:
            speaks = World.detect().chief
        except ConfigError:
            speaks = True
        if speaks:
            super().error(message)
        time.sleep(1.0)  # mpirun ends all ranks as soon as one has ended: the one that speaks comes first
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    from dist_loader.cli.types import positive

    parser = _Parser(
        prog="dist-loader scan",
        description="Lists the images below DIR/<class>/, tells how many there are and their fingerprint, and keeps "
        "the list. Started by mpirun, the ranks divide the work.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("dir", metavar="DIR", help="the folder of class folders")
    add("--out", metavar="FILE", help="write the index here, for Index.open")
    add("--cache", metavar="DIR", help="write it where Index.from_directory(cache=DIR) and --index-cache DIR find it")
    add("--classes", type=_names, metavar="NAME,...", help="the classes and their numbering (default: the folders)")
    add("--suffixes", type=_names, metavar=".SUFFIX,...", help="how images' names end (default: .jpg, .png ...)")
    add("--threads", type=positive, default=16, metavar="N", help="folders that each rank lists at a time (default 16)")
    return parser


def _names(text: str) -> list[str]:
    """Names between commas."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of names with commas between them")
    return names
