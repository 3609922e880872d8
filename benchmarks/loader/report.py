"""From rates to a table, a plot and the last lines."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.loader.contest import Reasons, Rounds
from benchmarks.loader.registry import LIMIT, OURS, OURS_IN_FIT, WAYS, Role, Settings

GOAL_LIMIT = 0.95
GOAL_LIMIT_IN_FIT = 0.90
DISTURBED = 0.1  # a larger part of the cores in the hands of other programs makes the ratios worthless
GOAL_PEER = {"small": 1.3, "large": 1.5}


@dataclass(frozen=True)
class Outcome:
    """What was measured on one kind of image."""

    kind: str
    files: int
    kilobytes: float  # of a file, on average
    rounds: Rounds
    reasons: Reasons
    settings: dict[str, Settings]

    def median(self, name: str) -> float:
        """Images per second."""
        return statistics.median(one.rate for one in self.rounds[name])

    def cost(self, name: str) -> float:
        """Milliseconds of processor time per image."""
        return statistics.median(one.cost for one in self.rounds[name])

    @property
    def others(self) -> float:
        """The part of the cores that other programs took in the median round; 0 if nothing was measured."""
        parts = [one.others for rounds in self.rounds.values() for one in rounds]
        return statistics.median(parts) if parts else 0.0

    def ratio(self, name: str, to: str) -> float | None:
        """Median over the rounds of one rate to another; None if one of the two was not measured."""
        if name not in self.rounds or to not in self.rounds:
            return None
        pairs = zip(self.rounds[name], self.rounds[to], strict=True)
        return statistics.median(one.rate / other.rate for one, other in pairs)

    def best_peer(self, *roles: Role) -> str | None:
        """The fastest peer of these roles."""
        names = [way.name for way in WAYS if way.role in roles and way.name in self.rounds]
        return max(names, key=self.median, default=None)

    @property
    def documented(self) -> str | None:
        """The fastest peer, used as its documentation shows."""
        return self.best_peer("documented")

    @property
    def by_hand(self) -> str | None:
        """The fastest peer that an expert has tuned."""
        return self.best_peer("by hand")

    @property
    def fastest(self) -> str | None:
        """The fastest peer of all."""
        return self.best_peer("documented", "by hand")


def table(outcome: Outcome) -> str:
    """Markdown: every way, the fastest first, then what was not measured."""
    fastest = outcome.fastest
    lines = [
        f"### {outcome.kind}: {outcome.files} files of {outcome.kilobytes:.0f} kB",
        "",
        f"In the median round, other programs took {outcome.others:.0%} of the cores.",
        "",
        f"| way | images/s | spread | CPU ms/image | of the limit | beside {fastest or 'a peer'} | role | settings |",
        "|---|---:|---:|---:|---:|---:|---|---|",
    ]
    roles = {way.name: way.role for way in WAYS}
    for name in sorted(outcome.rounds, key=outcome.median, reverse=True):
        values = [one.rate for one in outcome.rounds[name]]
        settings = ", ".join(f"{key}={value}" for key, value in outcome.settings[name].items())
        rate = f"{outcome.median(name):,.0f} | {min(values):,.0f} to {max(values):,.0f}"
        ratios = f"{_number(outcome.ratio(name, LIMIT))} | {_number(outcome.ratio(name, fastest or ''))}"
        lines.append(f"| {name} | {rate} | {outcome.cost(name):.2f} | {ratios} | {roles[name]} | {settings} |")
    lines += [f"| {name} | not measured: {reason} |" for name, reason in outcome.reasons.items()]
    return "\n".join(lines) + "\n"


def last_lines(outcomes: list[Outcome]) -> list[str]:
    """What a person wants to know first, beside the goals.

    One line for each question and kind of image, then `ratio_to_limit=` and `ratio_to_best_peer=` of the first kind.
    """
    lines = []
    for one in outcomes:
        goal = GOAL_PEER.get(one.kind)
        lines += [
            _judged(f"{one.kind}: ImageSequence to the limit", one.ratio(OURS, LIMIT), GOAL_LIMIT),
            _judged(f"{one.kind}: model.fit to the limit", one.ratio(OURS_IN_FIT, LIMIT), GOAL_LIMIT_IN_FIT),
            _judged(f"{one.kind}: to {one.documented}, as documented", one.ratio(OURS, one.documented or ""), goal),
            _judged(f"{one.kind}: to {one.by_hand}, tuned by hand", one.ratio(OURS, one.by_hand or ""), goal),
        ]
    first = outcomes[0]
    worst = max(one.others for one in outcomes)
    if worst > DISTURBED:
        lines.append(
            f"not to be quoted: other programs took {worst:.0%} of the cores; run it again when they are quiet"
        )
    return [
        *lines,
        f"ratio_to_limit={_number(first.ratio(OURS, LIMIT))}",
        f"ratio_to_best_peer={_number(first.ratio(OURS, first.fastest or ''))} ({first.fastest}; {first.kind})",
    ]


def _judged(what: str, ratio: float | None, goal: float | None) -> str:
    if ratio is None or goal is None:
        return f"{what}: {_number(ratio)}"
    return f"{what}: {_number(ratio)} (goal {goal:g}: {'met' if ratio >= goal else 'not met'})"


def _number(ratio: float | None) -> str:
    return "not measured" if ratio is None else f"{ratio:.2f}"


def document(outcomes: list[Outcome], facts: dict[str, Any], plot_file: str | None) -> str:
    """The whole report, in Markdown."""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    rounds = (max(map(len, one.rounds.values()), default=0) for one in outcomes)
    counts = ", ".join(f"{one.kind} {number}" for one, number in zip(outcomes, rounds, strict=True))
    made = (
        f"Written by `{facts['command']}` on {facts['date']}, at commit {facts['commit']}. Medians of interleaved "
        f"rounds ({counts}); a ratio is the median of the rounds' ratios. "
        "What is measured, and how: [README](../README.md)."
    )
    machine = (
        f"{facts['cpu']}, {facts['cores']} of {facts['cores_of_the_machine']} cores, {facts['memory_gib']} GiB, "
        f"{facts['system']}, Python {facts['python']}; load average before the start {facts['load_average_before']}."
    )
    parts = ["# From paths to uint8 batches of 64 x 224 x 224 x 3", made]
    parts += [f"![images per second]({plot_file})"] if plot_file else []
    parts += [table(one) for one in outcomes]
    parts += ["### Goals", "\n".join(f"- {line}" for line in last_lines(outcomes)[:-2])]
    parts += ["### Machine", machine, versions + "."]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def plot(outcomes: list[Outcome], path: Path) -> None:
    """A bar for each way, a panel for each kind, as SVG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "dist_loader"  # the same bytes from the same figures
    colors = {"ours": "#d1495b", "limit": "#8d99ae", "documented": "#30638e", "by hand": "#00798c"}
    roles = {way.name: way.role for way in WAYS}
    figure, axes = plt.subplots(
        len(outcomes),
        1,
        figsize=(9, 0.27 * sum(len(one.rounds) + 3 for one in outcomes)),
        squeeze=False,
        gridspec_kw={"height_ratios": [max(1, len(one.rounds)) for one in outcomes]},
        layout="constrained",
    )
    for one, axis in zip(outcomes, axes[:, 0], strict=True):
        names = sorted(one.rounds, key=one.median)
        medians = [one.median(name) for name in names]
        rates = [[each.rate for each in one.rounds[name]] for name in names]
        below = [middle - min(values) for middle, values in zip(medians, rates, strict=True)]
        above = [max(values) - middle for middle, values in zip(medians, rates, strict=True)]
        axis.barh(names, medians, xerr=[below, above], color=[colors[roles[name]] for name in names], ecolor="#555555")
        axis.set_title(f"{one.kind}: {one.files} files of {one.kilobytes:.0f} kB", loc="left")
        axis.set_xlabel("images/s, median; lines: lowest to highest round")
        axis.spines[["top", "right"]].set_visible(False)
    labels = {"ours": "dist_loader", "limit": "limit", "documented": "peer as documented", "by hand": "peer by hand"}
    handles = [mpl.patches.Patch(color=color, label=labels[role]) for role, color in colors.items()]
    axes[0, 0].legend(handles=handles, loc="lower right", frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
