"""Mutated images: a picture or an error with a name, never a crash, or what was in the memory before.

`python -m benchmarks.fuzz` tries a hundred thousand in processes of their own (benchmarks/results/fuzz.md).
"""

import numpy as np
import pytest

from benchmarks.fuzz.images import mutated, originals
from benchmarks.fuzz.outcome import OUTCOMES, Trial

KINDS = originals()
IMAGES = 2000


def test_the_originals_are_pictures():
    trial = Trial(KINDS["JPEG"])
    assert {trial.of(data) for data in KINDS.values()} == {"picture"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(4))
def test_mutated_images_are_pictures_or_refused(part):
    trial, seen = Trial(KINDS["JPEG"]), dict.fromkeys(OUTCOMES, 0)
    for number in range(part * IMAGES // 4, (part + 1) * IMAGES // 4):
        kind, data = mutated(number, 1, KINDS)
        outcome = trial.of(data)
        seen[outcome] += 1
        assert outcome in ("picture", "refused", "black"), (number, kind)
    assert seen["picture"] > 50
    assert seen["refused"] > 50
    assert seen["black"] < 5  # palettes that were overwritten, and the like


def test_a_mutation_is_the_same_in_every_run():
    assert mutated(77, 3, KINDS) == mutated(77, 3, KINDS)
    assert len({mutated(number, 3, KINDS)[1] for number in range(500)}) > 490


def test_the_check_finds_memory_that_is_not_written(monkeypatch):
    trial = Trial(KINDS["JPEG"])
    read = type(trial._reader).read

    def but_for_a_row(self, numbers, epoch, out):
        before = out[:, 3].copy()
        read(self, numbers, epoch, out)
        np.copyto(out[:, 3], before)
        return 0.0

    monkeypatch.setattr(type(trial._reader), "read", but_for_a_row)
    assert trial.of(KINDS["PNG"]) == "leak"
