#!/usr/bin/env python3
"""Train an image classifier on a folder of classes: FOLDER/<class>/<image>.

The same file runs on one device or all local GPUs (python), and on many ranks (horovodrun -np N, mpirun -np N):

    python launch/train.py --data photos/train --val-data photos/val --model MobileNetV2 --size 224
    horovodrun -np 4 python launch/train.py --data photos/train --val-data photos/val --model MobileNetV2 --size 224

It leaves model.keras (plain Keras), summary.json, checkpoints/, logs/ and, if images could not be read,
bad_samples.jsonl in the run folder. The same command goes on where a training was broken off; after one that was
finished, it starts anew. Copy it as the start of your own.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's errors, not its start-up notes

import dist_loader as dl

if TYPE_CHECKING:
    import keras


def main() -> int:
    """Run the job; the exit code is 0, 2 for what the user must mend, or 1 for what may pass (a disk that hangs)."""
    args = arguments()
    try:
        train(args)
    except dl.DistLoaderError as error:
        if args.debug:
            raise
        print(f"train.py: rank {rank()}: error: {error}", file=sys.stderr, flush=True)
        return 1 if isinstance(error, TimeoutError) else 2
    except Exception as error:
        # When one rank ends, Horovod ends the others in the middle of a step. What matters is the first one's message.
        if args.debug or "Horovod" not in f"{type(error).__name__} {error}":
            raise
        print(f"train.py: rank {rank()}: stopped, because another rank did", file=sys.stderr, flush=True)
        return os.EX_TEMPFAIL
    return 0


def train(args: argparse.Namespace) -> None:
    """The job, from the folder of images to the saved model."""
    run_dir = Path(args.run_dir)
    start_logs(run_dir, dl.World.detect())

    samples = dl.Index.from_directory(args.data, cache=args.index_cache)
    if len(samples.classes) < 2:
        raise dl.ConfigError(f"{args.data} holds one class, {samples.classes[0]!r}; a classifier needs at least two")
    if args.val_data:
        held_out = dl.Index.from_directory(args.val_data, classes=samples.classes, cache=args.index_cache)
    else:
        samples, held_out = samples.split(args.val_split, seed=args.seed, cache=args.index_cache)

    if dl.World.detect().chief and (run_dir / "summary.json").exists():  # the last training was finished
        (run_dir / "bad_samples.jsonl").unlink(missing_ok=True)  # before the other ranks, which now meet, write to it
    limits = {"watchdog": args.watchdog, "watchdog_first": args.watchdog_first}
    strategy = dl.init(args.strategy, compression=args.compression, **limits)
    chief = strategy.world.chief

    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(args.seed)
    if args.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.mixed_precision.set_global_policy(args.precision)

    how = {
        "size": args.size,
        "device_batch": args.device_batch,
        "global_batch": args.global_batch,
        "host_batch": args.host_batch,
        "strategy": strategy,
        "seed": args.seed,
        "color": args.color,
        "resize": args.resize,
        "threads": args.threads,
        "cache": args.cache,
        "cache_bytes": args.cache_bytes,
        "requests": args.requests,
        "local_copy": args.local_copy,
        "local_copy_bytes": args.local_copy_bytes,
        "on_bad": args.on_bad,
        "bad_budget": args.bad_budget,
        "bad_file": run_dir / "bad_samples.jsonl",
    }
    train = dl.ImageSequence(samples, remainder=args.remainder, crop=args.crop, host_passes=args.host_passes, **how)
    middle = args.crop.replace("random-resized", "center")  # validation sees the same part in every epoch
    valid = dl.ImageSequence(held_out, shuffle=False, crop=middle, **how)

    devices = strategy.world.size * strategy.replicas
    rate = dl.scaled_learning_rate(args.lr, devices, args.lr_scaling)
    with strategy.scope():
        model = build(args.model, (*args.size, 1 if args.color == "grayscale" else 3), len(samples.classes))
        model.compile(
            keras.optimizers.SGD(learning_rate(args, rate, len(train)), momentum=0.9, nesterov=True),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )

    if chief:
        print(
            f"{len(samples):,} training and {len(held_out):,} validation images, {len(samples.classes)} classes; "
            f"{strategy.name}: {strategy.world.size} ranks x {strategy.replicas} devices x {args.device_batch} samples "
            f"x {train.plan.accumulate} slices = global batch {train.plan.global_batch}, {len(train)} steps an epoch; "
            f"learning rate {rate:g}",
            flush=True,
        )
        if (run_dir / "summary.json").exists():  # the last training was finished, so this is a new one
            (run_dir / "summary.json").unlink()
            shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)

    history = strategy.fit(
        model,
        train,
        validation_data=valid,
        epochs=args.epochs,
        checkpoint_dir=run_dir / "checkpoints",
        checkpoint_every=args.checkpoint_every,
        checkpoint_keep=args.checkpoint_keep,
        grace=args.grace,
        verbose="auto" if args.verbose == "auto" else int(args.verbose),
    )

    strategy.gather_logs(run_dir / "logs")
    if chief:
        saved = run_dir / "model.keras"
        model.save(run_dir / "part.keras")
        (run_dir / "part.keras").replace(saved)
        more = {"model": args.model, "model_file": str(saved), "data": args.data, "seed": args.seed}
        rates = {"learning_rate": rate, "lr_scaling": args.lr_scaling, "warmup_epochs": args.warmup_epochs}
        history.summary.write(run_dir / "summary.json", **more, **rates)
        print(f"\n{history.summary.text(**rates, model=saved, summary=run_dir / 'summary.json')}")


def build(name: str, shape: tuple[int, int, int], classes: int) -> keras.Model:
    """A model from uint8 images to class probabilities: small, plain, or one of keras.applications, from scratch."""
    import keras
    from keras import layers

    images = keras.Input(shape, dtype="uint8")
    if name in ("small", "plain"):  # plain: nothing in it depends on how many ranks a batch is divided between
        x = layers.Rescaling(1 / 127.5, offset=-1)(images)
        for filters in (16, 32, 64):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=name == "plain")(x)
            x = layers.BatchNormalization(momentum=0.9)(x) if name == "small" else x
            x = layers.Activation("relu")(x)
            x = layers.MaxPooling2D(padding="same")(x)
        x = layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))
        return keras.Model(images, layers.Activation("softmax", dtype="float32")(x), name=name)
    known = {known.lower(): known for known in dir(keras.applications) if known[0].isupper()}
    if name.lower() not in known:
        raise dl.ConfigError(f"no model {name!r}; there are: small, plain, {', '.join(sorted(known.values()))}")
    try:
        network = getattr(keras.applications, known[name.lower()])(weights=None, classes=classes, input_shape=shape)
    except ValueError as error:  # an image size or channels that this network does not take
        raise dl.ConfigError(f"{known[name.lower()]} does not take images of {shape}: {error}") from error
    scales_itself = name.lower().startswith(("efficientnet", "convnext", "mobilenetv3"))
    x = images if scales_itself else layers.Rescaling(1 / 127.5, offset=-1)(images)
    return keras.Model(images, network(x), name=network.name)


def learning_rate(args: argparse.Namespace, highest: float, steps: int) -> keras.optimizers.schedules.CosineDecay:
    """A linear warm-up to the highest rate, then a cosine down to zero at the end of the training."""
    import keras

    warmup = round(args.warmup_epochs * steps)
    total = args.epochs * steps
    return keras.optimizers.schedules.CosineDecay(
        args.lr / warmup if warmup else highest,
        decay_steps=max(1, total - warmup),
        warmup_target=highest if warmup else None,
        warmup_steps=warmup,
    )


def start_logs(run_dir: Path, world: dl.World) -> None:
    """Rank 0 speaks on the terminal; the others write to logs/rank-N.log in the run folder."""
    try:
        (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise dl.ConfigError(f"cannot write to --run-dir {run_dir}: {error.strerror}") from error
    if not world.chief:
        logging.basicConfig(
            filename=run_dir / "logs" / f"rank-{world.rank}.log",
            filemode="w" if (run_dir / "summary.json").exists() else "a",  # what ended the last one may be in it
            level=logging.INFO,
            format="%(asctime)s %(levelname)s %(message)s",
        )


def rank() -> int | str:
    """This process's rank, for messages."""
    try:
        return dl.World.detect().rank
    except dl.ConfigError:
        return "?"


def arguments() -> argparse.Namespace:
    """The command line; a mistake in it ends the program with exit code 2."""
    parser = Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("--data", required=True, help="folder of the training images, or its address (s3://...): one folder per class")
    add("--val-data", help="folder of the validation images, with the same class folders")
    add("--val-split", type=float, default=0.1, help="without --val-data: share of --data held out (default 0.1)")
    add("--index-cache", metavar="DIR", help="keep the list of images here, on a local disk; for a million and more")
    add("--run-dir", default="runs/train", help="where model, summary, checkpoints and logs go (default runs/train)")
    add("--model", default="small", help="small, plain (small without batch normalisation), or of keras.applications")
    add("--size", type=size, default=(32, 32), help="HEIGHTxWIDTH, or one number for both (default 32)")
    add("--color", choices=("rgb", "grayscale"), default="rgb")
    add("--resize", choices=("nearest", "bilinear", "area"), default="bilinear")
    add(
        "--crop",
        choices=("stretch", "center", "random-resized"),
        default="stretch",
        help="part of an image that is used: all, its middle, or another in every epoch (validation: its middle)",
    )
    add("--epochs", type=positive, default=8, help="(default 8)")
    add("--device-batch", type=device_batch, default=32, help="images that one device computes at once (32), or auto")
    add("--global-batch", type=positive, help="images behind one update (default: those of all devices at once)")
    add("--host-batch", default="1GiB", help='decoded images held in memory by a rank: "4GiB", or a number of images')
    add("--host-passes", type=positive, default=1, help="train so often on what was read before going on (default 1)")
    add("--remainder", choices=("weight", "drop", "wrap"), default="weight", help="what becomes of a last part batch")
    add("--lr", type=float, default=0.1, help="highest learning rate (default 0.1)")
    add("--lr-scaling", choices=("none", "linear", "sqrt"), default="none", help="of --lr with the number of devices")
    add("--warmup-epochs", type=float, default=1.0, help="epochs of linear warm-up (default 1)")
    add("--precision", choices=("float32", "mixed_float16", "mixed_bfloat16"), default="float32")
    add("--compression", choices=("none", "fp16", "bf16"), default="none", help="of gradients between the ranks")
    add("--strategy", choices=("auto", "single", "mirrored", "horovod"), default="auto")
    add("--seed", type=int, default=0)
    add("--threads", type=positive, help="threads that decode (default: this rank's share of the cores)")
    add("--checkpoint-every", default="10min", help='besides at every epoch\'s end: steps, "30s", "10min"; or "epoch"')
    add("--checkpoint-keep", type=positive, default=3, help="checkpoints that stay, beside the best one (default 3)")
    add("--grace", type=float, default=25.0, help="seconds to end in good order after SIGTERM or SIGINT (default 25)")
    add("--deterministic", action="store_true", help="the same run gives the same weights to the bit; slower on GPUs")
    add("--cache", metavar="DIR", help="keep decoded images here, on a local disk, for the next epochs (docs/cache.md)")
    add("--cache-bytes", help='most that --cache takes, such as "50GiB" (default: what the disk has to spare)')
    add("--requests", type=positive, default=32, help="remote images asked for at once (default 32; docs/remote.md)")
    add("--local-copy", metavar="DIR", help="keep remote images here, on a local disk, as they were fetched")
    add("--local-copy-bytes", default="100GiB", help='most that --local-copy takes (default "100GiB")')
    add(
        "--on-bad",
        choices=("raise", "replace", "weight0"),
        default="raise",
        help="what becomes of an image that cannot be read (docs/bad_samples.md; default raise: the job stops)",
    )
    add(
        "--bad-budget",
        type=bad_budget,
        metavar="N",
        help="stop past so many bad images, or a share: 0.01 (default 1%%)",
    )
    add(
        "--watchdog",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="end the job when a rank lets the others wait for longer (600); 0: never (docs/failures.md)",
    )
    add("--watchdog-first", type=float, metavar="SECONDS", help="the same until the end of a first step (1800)")
    add("--verbose", choices=("auto", "0", "1", "2"), default="auto", help="0: silent, 1: progress bar, 2: lines")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args()


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and not once for every rank."""

    def error(self, message: str) -> NoReturn:
        """End the program with exit code 2."""
        self.exit(2, f"train.py: error: {message}; see --help\n" if rank() in (0, "?") else "")


def positive(text: str) -> int:
    """A whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def device_batch(text: str) -> int | str:
    """A whole number of at least 1, or "auto"."""
    return text if text == "auto" else positive(text)


def bad_budget(text: str) -> int | float:
    """A whole number, or a share with a point in it."""
    return float(text) if "." in text else int(text)


def size(text: str) -> tuple[int, int]:
    """One number for both sides, or HEIGHTxWIDTH."""
    sides = [positive(side) for side in text.lower().split("x")]
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f"must be HEIGHTxWIDTH, not {text!r}")
    return sides[0], sides[-1]


if __name__ == "__main__":
    sys.exit(main())
