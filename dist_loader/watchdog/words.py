"""How the watchdog says things to people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dist_loader.watchdog.lines import State, printable
from dist_loader.watchdog.seen import Seen, furthest_behind


def join(words: Sequence[str]) -> str:
    """Words as in "a, b and c"."""
    return " and ".join([*([", ".join(words[:-1])] if words[:-1] else []), *words[-1:]])


def ranks_text(numbers: Iterable[int]) -> str:
    """Numbers of ranks as in "rank 3" or "ranks 0-2, 5"."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
    return f"rank {text}" if len(runs) == 1 and runs[0][0] == runs[0][1] else f"ranks {text}"


def place_of(rank: Seen) -> str:
    """Where a rank is, as in "at epoch 1, step 57", as people count."""
    state = rank.state
    if state.doing == "preparing":
        return "before the first step"
    stage = "" if state.stage == "training" else f" of the {state.stage}"
    step = f"step {state.step + 1}" if state.step >= 0 else "before step 1"
    return f"at epoch {state.epoch + 1}, {step}{stage}"


def line_of(state: State) -> str:
    """What a rank does, or waits for."""
    if state.doing in ("step", "first step"):
        if state.detail:
            return f"waiting for input: {state.detail}"
        return "compiling and computing the first step" if state.doing == "first step" else "computing a step"
    what = {
        "preparing": "preparing",
        "callbacks": "in callbacks",
        "writing": "writing a checkpoint",
        "agreeing": "waiting for the other ranks",
        "between": "between steps",
    }[state.doing]
    return f"{what} ({state.detail})" if state.detail else what


def table(ranks: Sequence[Seen], silent: float) -> str:
    """A row for every rank: where it is and what it does there, or was and did if it is silent for so many seconds."""
    there = [
        rank for rank in ranks if rank.reached and rank.end is None and rank.closed is None and rank.silent <= silent
    ]
    behind = furthest_behind(there) if len(there) == len(ranks) else []
    waiting = {rank.rank for rank in there} - {rank.rank for rank in behind}
    rows = [("rank", "host", "epoch", "step", "for", "CPU", "")]
    for rank in ranks:
        state = rank.state
        if not rank.reached:
            rows.append((str(rank.rank), rank.host, "-", "-", "-", "-", "not known: it never reached this watchdog"))
            continue
        epoch, step = ("-", "-") if state.doing == "preparing" else (str(state.epoch + 1), str(state.step + 1))
        seconds = (f"{state.seconds:.0f} s", f"{state.cpu:.0f} s")
        rows.append((str(rank.rank), rank.host, epoch, step, *seconds, _row_text(rank, rank.rank in waiting, silent)))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = [
        "  ".join([row[0].rjust(widths[0]), row[1].ljust(widths[1]), *map(str.rjust, row[2:6], widths[2:6]), row[6]])
        for row in rows
    ]
    return "\n".join(f"  {line}".rstrip() for line in lines)


def _row_text(rank: Seen, waits: bool, silent: float) -> str:
    state = rank.state
    if rank.end is not None:
        words = {"done": "ended", "left": "left", "failed": "failed", "followed": "lost the other ranks"}[rank.end.how]
        return printable(" ".join(f"{words}: {rank.end.reason}".split()), 200) if rank.end.reason else words
    stage = "" if state.stage == "training" else f"{state.stage}, "
    text = stage + line_of(state)
    if waits and state.doing in ("step", "first step", "between") and not state.detail:
        text = f"{stage}waiting for the other ranks in a step"
    if rank.closed is not None:
        return f"died; before: {text}"
    return f"no word for {rank.silent:.0f} s; before: {text}" if rank.silent > silent else text
