"""Each way's best settings: from the first of each choice, one setting after the other is varied, the best is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.loader.contest import Contestant, NotMeasured, Round
from benchmarks.loader.corpus import Corpus, Kind
from benchmarks.loader.registry import Settings, Way

_ROUNDS = 2
_LIKE = {"png": "small", "gray": "small"}  # a kind without a tuning of its own, and the one whose settings it takes


@dataclass(frozen=True)
class Tried:
    """Settings, and the rounds with them."""

    settings: Settings
    rounds: list[Round]

    @property
    def best(self) -> float:
        """Images per second of the fastest round."""
        return max(one.rate for one in self.rounds)


def tune(contestant: Contestant, corpus: Corpus, say: Callable[[str], None]) -> list[Tried]:
    """All settings that were tried, the best one last.

    Raises:
        NotMeasured: it does not run at all.
    """
    way, images = contestant.way, len(corpus.paths())

    def attempt(settings: Settings) -> Tried:
        contestant.open(corpus, settings)
        tried = Tried(settings, [contestant.round(corpus, images) for _ in range(_ROUNDS)])
        say(f"{corpus.kind.name}: {way.name}: {settings}: {tried.best:.0f}, {tried.rounds[0].cost:.2f} ms")
        return tried

    everything = [attempt(way.untuned(corpus.kind))]
    best = everything[0]
    for name, values in way.choices(corpus.kind).items():
        for value in values[1:]:
            try:
                tried = attempt(best.settings | {name: value})
            except NotMeasured as error:
                say(f"{corpus.kind.name}: {way.name}: {name}={value}: {error}")
                continue
            everything.append(tried)
            if tried.best > best.best:
                best = tried
    everything.remove(best)
    return [*everything, best]


def save(path: Path, kind: Kind, way: Way, tried: list[Tried]) -> None:
    """Put the outcome for a way and a kind into a file, beside what it has of others."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = [asdict(one) for one in tried]
    content.setdefault(kind.name, {})[way.name] = rows
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def best_settings(path: Path, kind: Kind, way: Way) -> Settings:
    """What was tuned for a kind of image, or one like it; the first of each choice where nothing was."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in (kind.name, _LIKE.get(kind.name, kind.name)):
        rows = content.get(name, {}).get(way.name)
        if rows:
            settings: Settings = rows[-1]["settings"]
            return settings
    return way.untuned(kind)
