"""The public face of training: devices, and Keras's `fit` and `evaluate` on them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import tensorflow as tf

from dist_loader.channel import gather_logs
from dist_loader.devices import Devices
from dist_loader.devices.averaging import Compression
from dist_loader.devices.horovod import HorovodDevices
from dist_loader.devices.mirrored import MirroredDevices
from dist_loader.devices.single import SingleDevice
from dist_loader.errors import ConfigError
from dist_loader.plan import refuse_passes
from dist_loader.sizes import checked_seconds
from dist_loader.training.feed import Feed
from dist_loader.training.fit import Checkpoints, original_errors, train_model
from dist_loader.training.predict import in_index_order, local_outputs, save_outputs
from dist_loader.training.prepare import prepare, prepared
from dist_loader.training.progress import Verbose
from dist_loader.training.watched import all_ranks_to_come, limits_of, watched
from dist_loader.watchdog import Limits
from dist_loader.world import World

_log = logging.getLogger("dist_loader")

Name = Literal["auto", "single", "mirrored", "horovod", "multiworker"]


def init(
    name: Name = "auto",
    compression: Compression = "none",
    watchdog: float | None = 600.0,
    watchdog_first: float | None = None,
) -> Strategy:
    """Find out where this process runs, and join the others.

    To be called first, before TensorFlow is used for anything else.

    Args:
        name: `"horovod"`: one process per device, started by horovodrun, mpirun or srun. `"mirrored"`: one process,
            every local GPU (or logical CPU device). `"single"`: one device. `"auto"`: Horovod under a launcher, else
            mirrored if there are several GPUs, else single. `"multiworker"` is refused, with the reason.
        compression: of the gradients between the ranks: `"fp16"` and `"bf16"` halve what is sent and round to 11 and 8
            bits. Gradients beyond 65504 become infinite in fp16, which `LossScaleOptimizer` notices and others do not.
        watchdog: seconds after which the ranks end, with a message and exit code 75, when one of them does not come on:
            it hangs, sleeps, stopped or lost its link (docs/failures.md). 0 or None: they wait for ever.
        watchdog_first: the same, for ranks that do not come to this call or to `fit`, and for a first step with its
            compiling and its first batch; None: 1800, or three times the other if that is more.

    Raises:
        ConfigError: an unknown name or compression, a strategy that cannot work here, or one that is not installed.
    """
    if name not in get_args(Name):
        raise ConfigError(f"strategy must be one of {', '.join(get_args(Name))}, not {name!r}")
    if compression not in get_args(Compression):
        raise ConfigError(f"compression must be one of {', '.join(get_args(Compression))}, not {compression!r}")
    limits = limits_of(watchdog, watchdog_first)
    if name == "multiworker":
        raise ConfigError(
            "Keras 3 cannot train under tf.distribute.MultiWorkerMirroredStrategy: its trainer fails in two places "
            '(keras#20585); start one process per GPU with horovodrun or mpirun and use strategy "horovod"'
        )
    if keras.backend.backend() != "tensorflow":
        raise ConfigError(f"Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow before importing it")
    world = World.detect()
    if name == "auto":
        if world.launcher != "none":
            name = "horovod"
        else:
            name = "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "single"
    if name == "horovod":
        with all_ranks_to_come(world, "dist_loader.init", limits):
            devices: Devices = HorovodDevices.started(world, compression)
    else:
        devices = MirroredDevices.on_local_devices(world) if name == "mirrored" else SingleDevice(world)
    return Strategy(devices, None if limits is None else limits.stall, watchdog_first)


@dataclass(frozen=True)
class Strategy:
    """Trains and evaluates Keras models on the devices of all ranks together.

    Attributes:
        devices: how a step runs; what `init` found.
        watchdog: seconds that a rank may let the others wait (see `init`); None: for ever.
        watchdog_first: the same for a first step and what comes before it (see `init`).
    """

    devices: Devices
    watchdog: float | None = None
    watchdog_first: float | None = None

    @property
    def name(self) -> str:
        """`"single"`, `"mirrored"` or `"horovod"`."""
        return self.devices.name

    @property
    def world(self) -> World:
        """This process among all."""
        return self.devices.world

    @property
    def replicas(self) -> int:
        """Devices that this process drives."""
        return self.devices.replicas

    def scope(self) -> AbstractContextManager[Any]:
        """Build and compile models inside of it."""
        return self.devices.scope()

    def fit(
        self,
        model: keras.Model,
        train: Feed,
        validation_data: Feed | None = None,
        epochs: int = 1,
        checkpoint_dir: str | Path | None = None,
        checkpoint_every: int | str = "10min",
        checkpoint_keep: int = 3,
        checkpoint_best: str | None = None,
        grace: float = 25.0,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        verbose: Verbose = "auto",
    ) -> keras.callbacks.History:
        """Train a compiled model; every rank calls this alike.

        Gradients, losses and metrics are those of one process over the same global batches. All ranks start from
        rank 0's weights.

        Args:
            model: built (or at least compiled) inside of `scope()`.
            train: this rank's part of the training samples.
            validation_data: this rank's part of the validation samples, evaluated after every epoch.
            epochs: to train in all.
            checkpoint_dir: where rank 0 writes checkpoints, beside the training, and from where a training that was
                broken off goes on, after the last step that a checkpoint holds (docs/checkpoints.md). The
                sequences' bad samples are listed there, too, in bad_samples.jsonl, unless they have a `bad_file`.
            checkpoint_every: how often: at the end of every epoch, and besides that after so many steps, or as soon as
                "30s", "10min" or "2h" have passed; "epoch": not besides that.
            checkpoint_keep: how many checkpoints stay, beside the best one.
            checkpoint_best: the figure that tells which is the best, such as "val_accuracy"; by default the loss of the
                validation, or without one that of the training.
            grace: seconds that are left to end in good order after SIGTERM or SIGINT: all ranks finish the step, take a
                checkpoint and exit with 143 or 130.
            callbacks: Keras callbacks, called on every rank, with the numbers of all ranks together.
            verbose: of rank 0. 1: a progress bar; 2: lines; 0: nothing; "auto": a bar on a terminal, else lines. The
                other ranks write their lines to the logger "dist_loader".

        Returns:
            Keras's History, with the attribute `summary` (a `Summary`).

        Raises:
            ConfigError: something that cannot work, found before the training starts.
            SampleError: an image could not be read.
            CheckpointError: a checkpoint cannot be written, or none of those that are there can be read.
            Interrupted: a signal came; it is a SystemExit with the exit code.
        """
        checkpoints = Checkpoints.of(checkpoint_dir, checkpoint_every, checkpoint_keep, checkpoint_best)
        for sequence in filter(None, (train, validation_data)):
            self._check(sequence)
            bad = sequence.bad_samples
            if checkpoints is not None and bad.file is None:
                bad.write_to(checkpoints.folder / "bad_samples.jsonl")
        if validation_data is not None:
            _check_classes(train, validation_data)
            refuse_passes("evaluate", validation_data.plan.passes)
        return train_model(
            self.devices,
            model,
            train,
            validation_data,
            epochs,
            checkpoints,
            checked_seconds("grace", grace),
            callbacks,
            verbose,
            self._limits,
        )

    def evaluate(self, model: keras.Model, sequence: Feed, return_dict: bool = True) -> Any:
        """Loss and metrics of a compiled model over all samples of all ranks; every rank calls this alike.

        Returns:
            A dictionary of floats by name, the same on every rank; or with `return_dict=False` a list, as Keras does.

        Raises:
            ConfigError: something that cannot work.
            SampleError: an image could not be read.
        """
        self._check(sequence)
        refuse_passes("evaluate", sequence.plan.passes)
        with (
            watched(self.devices, "evaluate", self._limits, None, sequence) as watch,
            original_errors(sequence),
            self.scope(),
        ):
            before = prepared(model)
            known = before if before is not None and before.devices == self.devices else None
            prepare(
                model,
                self.devices,
                sequence,
                slices=1 if known is None else known.slices,
                test_slices=sequence.plan.accumulate,
                retries=known is not None and known.retries,
            )
            sequence.read_ahead_to(sequence.epoch + 1)
            return model.evaluate(sequence, verbose=0, return_dict=return_dict, callbacks=watch.around([]))

    def predict(self, model: keras.Model, sequence: Feed, out_dir: str | Path | None = None) -> Any:
        """A model's outputs for every sample, each computed once; every rank calls this alike.

        Args:
            model: a built Keras model.
            sequence: this rank's part of the samples.
            out_dir: for outputs too large for rank 0's memory: every rank writes its own to `outputs-rank-N.npy` there
                (`outputs-M-rank-N.npy` for output M of several), and their sample numbers to `numbers-rank-N.npy`.

        Returns:
            On rank 0, without `out_dir`, the outputs in the order of the index: an array of shape (samples, ...), or a
            structure of them. None elsewhere.

        Raises:
            ConfigError: something that cannot work, or a sequence whose last batch is dropped.
            SampleError: an image could not be read.
        """
        self._check(sequence)
        with (
            watched(self.devices, "predict", self._limits, None, sequence) as watch,
            original_errors(sequence),
            self.scope(),
        ):
            sequence.read_ahead_to(sequence.epoch + 1)
            numbers, outputs = local_outputs(model, sequence, watch.around([]))
            if out_dir is not None:
                save_outputs(numbers, outputs, Path(out_dir), self.world.rank)
                return None
            return in_index_order(self.devices, numbers, outputs)

    def gather_logs(self, folder: str | Path) -> None:
        """Bring the other ranks' `rank-N.log` to rank 0's folder, where hosts do not share it; every rank calls this.

        Of each file, its last mebibyte. For the end of a job; when one fails, each log stays on its host.
        """
        gather_logs(self.devices.channel, Path(folder))

    @property
    def _limits(self) -> Limits | None:
        return limits_of(self.watchdog, self.watchdog_first)

    def _check(self, sequence: Feed) -> None:
        if not isinstance(sequence, Feed):
            raise ConfigError(f"expected a dist_loader sequence, got {type(sequence).__name__}")
        if (sequence.world, sequence.plan.replicas) != (self.world, self.replicas):
            raise ConfigError(
                f"a sequence for {sequence.world} with {sequence.plan.replicas} replicas cannot feed {self.world} with "
                f"{self.replicas}; make it with strategy=strategy"
            )


def _check_classes(train: Feed, valid: Feed) -> None:
    """Refuse a validation whose labels mean other classes than those of the training."""
    trained, validated = (getattr(getattr(feed, "samples", None), "classes", ()) for feed in (train, valid))
    if not trained or validated == trained[: len(validated)]:
        return
    label, name = next(
        (label, name) for label, name in enumerate(validated) if label >= len(trained) or trained[label] != name
    )
    other = repr(trained[label]) if label < len(trained) else "none"
    raise ConfigError(
        f"the label {label} is the class {name!r} in the validation and {other} in the training; make the validation's "
        "index or labels with classes= those of the training"
    )
