"""`device_batch="auto"`: how many samples a device computes at once, found by trying, and remembered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dist_loader.atomic import write_whole
from dist_loader.training.feed import Feed
from dist_loader.training.memory import fewest_slices
from dist_loader.training.prepare import Prepared
from dist_loader.training.progress import Say


def agreed_slices(model: Any, now: Prepared, batch: Any, note: Path, say: Say) -> int:
    """The fewest slices in which every rank can compute a step; every rank calls this alike.

    What an earlier training of the same model on the same kind of device found is taken for granted. Each rank finds
    out for itself, before it sends anything; then the most slices that any rank needs are all ranks' slices.

    Args:
        model: a prepared model.
        now: what it was prepared for.
        batch: arrays of one process's step: x, y and, where there are any, weights.
        note: what `note_of` says.
        say: gets a line or two for people.

    Raises:
        ConfigError: not even one sample fits.
    """
    rows = len(keras.tree.flatten(batch)[0]) // now.devices.replicas
    remembered = _remembered(note, rows)
    slices = fewest_slices(model, now, batch, say) if remembered is None else rows // remembered
    agreed = int(now.devices.gather_rows(np.array([slices])).max())
    how = "tried" if remembered is None else f"remembered in {note}"
    say(f"device_batch: {rows // agreed} samples at once, in {agreed} slices ({how})")
    return agreed


def follow(valid: Feed | None, train: Feed) -> int:
    """The slices to evaluate in, none longer than those of the training if there is no device batch to keep to."""
    if valid is None:
        return 1
    if valid.finds_device_batch:
        rows, most = valid.plan.device_rows, train.plan.device_batch
        valid.set_slices(next(n for n in range(1, rows + 1) if rows % n == 0 and rows // n <= most))
    return valid.plan.accumulate


def remember(note: Path, device_batch: int) -> None:
    """Write down what fits, for later trainings. Where that cannot be done, they find out again."""
    if _noted(note) == device_batch:
        return
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        write_whole(note, json.dumps({"device_batch": device_batch, "device": _device_kind()}) + "\n")


def _noted(note: Path) -> object:
    try:
        return json.loads(note.read_text(encoding="utf-8"))["device_batch"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remembered(note: Path, rows: int) -> int | None:
    found = _noted(note)
    return found if isinstance(found, int) and 0 < found <= rows and rows % found == 0 else None


def note_of(model: Any, now: Prepared, batch: Any) -> Path:
    """The file to remember by: one for all that decides what fits (device, model, optimizer, batch, versions)."""
    facts = [
        _device_kind(),
        tf.__version__,
        now.devices.name,
        now.devices.replicas,
        _structure(model),
        [(list(weight.shape), weight.dtype) for weight in (*model.weights, *model.optimizer.variables)],
        [(list(array.shape), str(array.dtype)) for array in keras.tree.flatten(batch)],
    ]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "dist_loader" / "device_batch" / f"{key}.json"


def _structure(model: Any) -> str:
    try:
        return str(model.to_json())
    except (NotImplementedError, TypeError, ValueError):  # a class of the user's own that does not describe itself
        return f"{type(model).__module__}.{type(model).__qualname__}"


def _device_kind() -> str:
    gpus = tf.config.get_visible_devices("GPU")
    if not gpus:
        return "CPU"
    return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))
