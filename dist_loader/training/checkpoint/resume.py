"""Going on from a checkpoint, in the middle of an epoch if need be."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from dist_loader.devices import Devices
from dist_loader.errors import CheckpointError, ConfigError, DistLoaderError
from dist_loader.training.checkpoint import snapshot
from dist_loader.training.checkpoint.folder import Folder
from dist_loader.training.checkpoint.position import Position
from dist_loader.training.feed import Feed
from dist_loader.training.prepare import prepared
from dist_loader.training.trace import told

# How a global batch is divided among ranks, devices and slices may change; what is in it may not.
_MAY_CHANGE = ("world_size", "device_batch", "replicas", "accumulate")


@dataclass(frozen=True)
class Resumed:
    """Where a training goes on, and what it puts back on the way.

    Attributes:
        position: where it stood; the beginning, if there was no checkpoint.
        state: what a checkpoint says beside its arrays; None if there was none.
        arrays: by their names; those of the weights are put back already.
    """

    position: Position = field(default_factory=Position)
    state: dict[str, Any] | None = None
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether early stopping had ended the training, so that there is nothing to go on with."""
        return self.state is not None and bool(self.state["finished"])


def loader_state(train: Feed) -> dict[str, Any]:
    """What the order of the samples follows from, together with a position; as JSON takes it."""
    plan = dataclasses.asdict(train.plan)
    facts = {name: value for name, value in plan.items() if name not in _MAY_CHANGE}
    return facts | {"global_batch": train.plan.global_batch, **train.fingerprints()}


def resume(model: Any, train: Feed, devices: Devices, folder: Folder | None) -> Resumed:
    """Give a prepared model what the last checkpoint holds; every rank calls this alike.

    Args:
        model: prepared for the devices.
        train: what it is trained on.
        devices: all ranks' devices.
        folder: of the checkpoints; None on ranks other than 0.

    Raises:
        CheckpointError: there are checkpoints, and none of them can be read.
        ConfigError: the checkpoint is of another training or another model.
    """
    content, refused = None, None
    if folder is not None:
        try:
            folder.prepare()
            content = folder.last()
            if content is not None:
                _compare(content.state, train, folder)
                snapshot.check(model, content.state, content.path)
        except DistLoaderError as error:
            refused = error
    sent: dict[str, Any] = {"state": None, "position": [0, 0], "refused": None, "kind": None}
    own = {}
    if refused is not None:  # on all ranks, so that none waits for one that has gone
        sent |= {"refused": str(refused), "kind": type(refused).__name__}
    elif content is not None:
        snapshot.put_back_shared(model, content.arrays)
        sent |= {"state": content.state, "position": dataclasses.astuple(content.position)}
        own = {name: array for name, array in content.arrays.items() if not name.startswith("shared-")}
    sent, own = snapshot.from_rank_zero(devices, sent, own)
    if sent["refused"] is not None:
        raise (CheckpointError if sent["kind"] == "CheckpointError" else ConfigError)(sent["refused"])
    if sent["state"] is not None:
        snapshot.put_back_own(model, sent["state"], own, devices)
    return Resumed(Position(*sent["position"]), sent["state"], own)


def _compare(state: dict[str, Any], train: Feed, folder: Folder) -> None:
    now = loader_state(train)
    for name, then in state["loader"].items():
        if name in now and now[name] != then:
            raise ConfigError(
                f"the checkpoint in {str(folder.path)!r} has {name.replace('_', ' ')} {then}, this training "
                f"{now[name]}; {_to_go_on(name, then, train)}give another checkpoint_dir to start anew"
            )


def _to_go_on(name: str, then: Any, train: Feed) -> str:
    """How a training gets what a checkpoint has, where that is not the option of this name."""
    if name == "passes":
        return f"give host_passes={then} to go on, or "
    if name == "pass_batches":  # they are half of the host batch
        return f"give host_batch={2 * then * train.plan.local_batch} (samples) to go on, or "
    return ""


def put_back_metrics(model: Any, train: Feed, devices: Devices, resumed: Resumed) -> None:
    """Give a model's metrics what they had counted in the epoch that goes on, making them first if they are not."""
    now = prepared(model)
    assert now is not None
    assert resumed.state is not None
    with told(now.trace, over_world=False):
        model._symbolic_build(data_batch=train.example())
    snapshot.put_back_metrics(model, resumed.state, resumed.arrays, devices)
