"""What a training did, for people and for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dist_loader.atomic import write_whole
from dist_loader.bad_samples.gathering import gather
from dist_loader.devices import Devices
from dist_loader.training.bound import Waits
from dist_loader.training.feed import Feed


@dataclass(frozen=True)
class Summary:
    """The figures of one call of `Strategy.fit`.

    Attributes:
        strategy: "single", "mirrored" or "horovod".
        launcher: "horovodrun", "mpirun", "mpiexec", "srun" or "none".
        world_size: processes.
        replicas: devices of each process.
        samples: samples in an epoch of the training; of a stream, in the last one, and None if that did not end.
        val_samples: samples of the validation, if there is one, in the same way.
        epochs: epochs trained, those before a resume included.
        steps_per_epoch: optimizer updates in an epoch, in the same way.
        device_batch: samples that one device computes at once; with "auto", what was found in the end.
        global_batch: samples behind one update.
        learning_rate: the optimizer's, as it is at the end; of a schedule its settings, warm-up and scaling among them.
        host_batch: decoded samples held in memory by each process, as it was asked for.
        images_per_second: samples trained on by all ranks together in a second, without validation and without the
            first step, in which TensorFlow compiles.
        input_wait_fraction: share of that time spent waiting for input, on the rank that waited most.
        bound: what bounds the training, in one sentence.
        waits: what each rank waited for.
        bad_samples: samples that could not be read, each counted once, by all ranks and, where there is a file of them,
            before a resume; those of the validation included.
        seconds: from the start of `fit` to its end, all included.
        metrics: the last epoch's loss and metrics over all ranks, those of the validation with "val_" before.
    """

    strategy: str
    launcher: str
    world_size: int
    replicas: int
    samples: int | None
    val_samples: int | None
    epochs: int
    steps_per_epoch: int | None
    device_batch: int
    global_batch: int
    host_batch: int | str
    learning_rate: str
    images_per_second: float | None
    input_wait_fraction: float | None
    bad_samples: int
    seconds: float
    bound: str | None = None
    waits: tuple[Waits, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self, **more: Any) -> dict[str, Any]:
        """All figures in one flat dictionary, metrics and `more` included."""
        figures = dataclasses.asdict(self)
        metrics = figures.pop("metrics")
        figures["waits"] = [waits.as_dict() for waits in self.waits]
        return {**figures, **metrics, **more}

    def write(self, path: str | Path, **more: Any) -> None:
        """Write `as_dict(**more)` as a JSON file, which is there whole or not at all."""
        write_whole(Path(path), json.dumps(self.as_dict(**more), indent=2) + "\n")

    def __str__(self) -> str:
        return self.text()

    def text(self, **more: Any) -> str:
        """All figures in lines, `more` included; not every rank's waits."""
        figures = self.as_dict(**more)
        del figures["waits"]
        rows = [(name.replace("_", " "), _text(value)) for name, value in figures.items() if value is not None]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def bad_samples_of_all(devices: Devices, sequences: Sequence[Feed]) -> int:
    """How many samples no rank could read, which rank 0's file then lists; every rank calls this alike."""
    return gather(devices.channel, [sequence.bad_samples for sequence in sequences], None)


def _text(value: object) -> str:
    return (
        f"{value:.4g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )
