"""A training's state as arrays: taken between two steps, and given back to a model on the same or other ranks."""

from __future__ import annotations

import io
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from dist_loader.devices import Devices
from dist_loader.errors import ConfigError
from dist_loader.training.checkpoint import archive, random_state

Array = npt.NDArray[Any]

_REPLICAS = "-replicas"


@dataclass(frozen=True)
class Variables:
    """The Keras variables that make up a training's state.

    Attributes:
        shared: the same on every rank: what is trained, and the optimizer's.
        own: of each rank, though often the same: moving statistics, seeds of random layers.
        metrics: of each rank: what the metrics have counted in this epoch.
    """

    shared: list[Any]
    own: list[Any]
    metrics: list[Any]

    @classmethod
    def of(cls, model: Any) -> Variables:
        """Those of a compiled model whose optimizer is built."""
        metrics = {id(variable): variable for metric in model.metrics for variable in metric.variables}
        return cls([*model.trainable_variables, *model.optimizer.variables], not_trained(model), list(metrics.values()))

    def described(self) -> dict[str, list[list[Any]]]:
        """Name, shape and type of each, as JSON takes them."""
        return {
            group: [[variable.path, list(variable.shape), variable.dtype] for variable in variables]
            for group, variables in (("shared", self.shared), ("own", self.own), ("metrics", self.metrics))
        }


def not_trained(model: Any) -> list[Any]:
    """A model's variables beside those that are trained, in the order of `model.variables`."""
    trained = {id(variable) for variable in model.trainable_variables}
    return [variable for variable in model.variables if id(variable) not in trained]


def values(variables: list[Any], group: str) -> dict[str, Array]:
    """Copies of the variables of a group, by the names that they have in a checkpoint.

    Of those whose replicas in this process have values of their own, each replica's besides.
    """
    found = {f"{group}-{at}": np.asarray(variable.numpy()) for at, variable in enumerate(variables)}  # `numpy` copies
    for at, variable in enumerate(variables):
        rows = [np.asarray(replica.numpy()) for replica in _replicas(variable)]
        if any(row.tobytes() != rows[0].tobytes() for row in rows):
            found[f"{group}-{at}{_REPLICAS}"] = np.stack(rows)
    return found


def _replicas(variable: Any) -> tuple[Any, ...]:
    """A variable's parts on the replicas of this process, under MirroredStrategy."""
    return tuple(getattr(variable.value, "values", ()))


def _assign(variable: Any, value: Array, rows: Array | None) -> None:
    """Give a variable its value, and its replicas theirs if they had their own and are as many."""
    variable.assign(value)
    replicas = _replicas(variable)
    if rows is not None and len(rows) == len(replicas):
        for replica, row in zip(replicas, rows, strict=True):
            replica.assign(row)


def shared_values(model: Any) -> dict[str, Array]:
    """Copies of the weights and of the optimizer's variables, for `put_back_shared`."""
    return values(Variables.of(model).shared, "shared")


def take(
    model: Any, devices: Devices, metrics: dict[str, Array] | None = None
) -> tuple[dict[str, Any], dict[str, Array]] | None:
    """A copy of the state of a training, on rank 0; None on the others, which call this alike.

    Only what differs between the ranks is sent, which is small; rank 0 copies the weights once.

    Args:
        model: compiled and built.
        devices: all ranks' devices.
        metrics: what the metrics have counted, if they do not hold it any more.
    """
    variables = Variables.of(model)
    own = values(variables.own, "own") | random_state.get()
    own |= values(variables.metrics, "metrics") if metrics is None else metrics
    checksums = np.array([[zlib.crc32(array.tobytes()) for array in own.values()]], np.int64)
    of_ranks = devices.gather_rows(checksums)
    differing = [name for name, column in zip(own, of_ranks.T, strict=True) if len(set(column.tolist())) > 1]
    rows = np.empty((0, 0), np.uint8)
    if differing:
        packed = b"".join(own[name].tobytes() for name in differing)
        rows = devices.gather_rows(np.frombuffer(packed, np.uint8)[None])
    if not devices.world.chief:
        return None
    arrays = shared_values(model) | {name: own[name] for name in own if name not in differing}
    first = 0
    for name in differing:
        part = np.ascontiguousarray(rows[:, first : first + own[name].nbytes])
        arrays[f"ranks-{name}"] = part.view(own[name].dtype).reshape(len(part), *own[name].shape)
        first += own[name].nbytes
    return {"variables": variables.described(), "world_size": devices.world.size}, arrays


def check(model: Any, state: dict[str, Any], path: Path) -> None:
    """Compare a model with the one that a state was taken of.

    Raises:
        ConfigError: they do not fit each other.
    """
    described = Variables.of(model).described()
    for group in ("shared", "own"):
        now, then = described[group], state["variables"][group]
        if len(now) != len(then):
            raise ConfigError(
                f"the checkpoint {str(path)!r} does not fit this model: it has {len(then)} variables ({group}), the "
                f"model {len(now)}; give another checkpoint_dir to start anew"
            )
        for ours, theirs in zip(now, then, strict=True):
            if (_name(ours[0]), *ours[1:]) != (_name(theirs[0]), *theirs[1:]):
                raise ConfigError(
                    f"the checkpoint {str(path)!r} does not fit this model: it has {theirs[0]} {tuple(theirs[1])} "
                    f"{theirs[2]}, the model {ours[0]} {tuple(ours[1])} {ours[2]}; give another checkpoint_dir to "
                    "start anew"
                )


def _name(path: str) -> str:
    """The last part of a variable's path, without the numbers that Keras gives to layers as they are made.

    A model that is built again in the same process, as in a notebook, has others: "dense_2_kernel_momentum".
    """
    return re.sub(r"_[0-9]+", "", path.rpartition("/")[2])


def put_back_shared(model: Any, arrays: dict[str, Array]) -> None:
    """Give the weights and the optimizer what `take` or `shared_values` copied."""
    for at, variable in enumerate(Variables.of(model).shared):
        variable.assign(arrays[f"shared-{at}"])


def of_rank(arrays: dict[str, Array], name: str, rank: int, mean: bool = False) -> Array:
    """What a rank gets of an array: the one that all ranks had, else its own (ranks go round), or the ranks' mean."""
    if name in arrays:
        return arrays[name]
    rows = arrays[f"ranks-{name}"]
    value: Array = rows.astype(np.float64).mean(axis=0).astype(rows.dtype) if mean else rows[rank % len(rows)]
    return value


def put_back_own(model: Any, state: dict[str, Any], arrays: dict[str, Array], devices: Devices) -> None:
    """Give this rank its own part: moving statistics, seeds, and the states of the random generators.

    On as many ranks as then, each gets what it had. On another number of ranks, statistics are averaged, and seeds go
    round.
    """
    same_world = state["world_size"] == devices.world.size
    for at, variable in enumerate(Variables.of(model).own):
        mean = not same_world and keras.backend.is_float_dtype(variable.dtype)
        _assign(variable, of_rank(arrays, f"own-{at}", devices.world.rank, mean), arrays.get(f"own-{at}{_REPLICAS}"))
    random_state.put_back({name: of_rank(arrays, name, devices.world.rank) for name in random_state.NAMES})


def put_back_metrics(model: Any, state: dict[str, Any], arrays: dict[str, Array], devices: Devices) -> bool:
    """Give this rank's metrics what they had counted; False if the metrics are other ones than then.

    On another number of ranks, rank 0 gets all counts, and the others none.
    """
    variables, then = Variables.of(model), state["variables"]["metrics"]
    if [found[1:] for found in variables.described()["metrics"]] != [found[1:] for found in then]:
        return False
    world, size = devices.world, state["world_size"]
    for at, variable in enumerate(variables.metrics):
        same = arrays.get(f"metrics-{at}")
        rows = np.stack([same] * size) if same is not None else arrays[f"ranks-metrics-{at}"]
        if size == world.size:
            _assign(variable, rows[world.rank], arrays.get(f"metrics-{at}{_REPLICAS}"))
        else:
            variable.assign(rows.sum(axis=0) if world.chief else np.zeros_like(rows[0]))
    return True


def from_rank_zero(devices: Devices, state: dict[str, Any] | None, arrays: dict[str, Array]) -> Any:
    """State and arrays of rank 0, on every rank."""
    if devices.world.size == 1:
        return state, arrays
    file = io.BytesIO()
    if devices.world.chief:
        archive.write(file, {"state": state}, arrays)
    received = devices.gather_rows(np.frombuffer(file.getvalue(), np.uint8))
    content, arrays = archive.read(io.BytesIO(received.tobytes()))
    return content["state"], arrays
