"""Ranks that would train different jobs refuse to start, and say what differs."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from itertools import zip_longest
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dist_loader import __version__
from dist_loader.devices import Devices
from dist_loader.errors import ConfigError
from dist_loader.training.feed import Feed
from dist_loader.watchdog.words import ranks_text

Facts = Mapping[str, str]
"""What must be the same on all ranks, by name."""

_LIBRARIES = ("numpy", "keras", "horovod", "pillow", "simplejpeg", "opencv-python-headless")
_DIGEST_BYTES = 32
_WHAT = "comparing what the ranks train"
_SHOWN = 5  # differences
_LONGEST = 120  # letters of a value
_WHOLE = "configuration of the model"
_BEFORE = 40  # of them, before what differs


def agree(devices: Devices, facts: Facts) -> None:
    """Compare the facts of all ranks. Every rank calls this alike, whatever its facts are.

    Digests, which have one length, travel first; the facts only if they differ.

    Raises:
        ConfigError: some differ; on every rank, with the values and the ranks that have them.
    """
    if devices.world.size == 1:
        return
    text = json.dumps(facts).encode()
    digests = devices.channel.allgather(hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest(), _WHAT, None)
    if all(digest == digests[0] for digest in digests):
        return
    require_same([json.loads(bytes(row)) for row in devices.channel.allgather(text, _WHAT, None)])


def require_same(facts: Sequence[Facts]) -> None:
    """Check that the facts of all ranks are the same.

    Raises:
        ConfigError: "seed: 0 on ranks 0-2, 7 on rank 3".
    """
    names = dict.fromkeys(name for rank in facts for name in rank)
    everywhere = [name for name in names if all(name in rank for rank in facts)]
    # What only some ranks have (a layer, say) mostly follows from another difference, and the whole always does.
    parts = [name for name in everywhere if name != _WHOLE]
    differences = next(filter(None, (_differences(facts, of) for of in (parts, everywhere, list(names)))), [])
    if differences:
        more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise ConfigError(
            f"the ranks would not train the same job: {'; '.join(differences[:_SHOWN])}{more}; start all ranks with "
            "the same command, files and versions"
        )


def _differences(facts: Sequence[Facts], names: Sequence[str]) -> list[str]:
    found = []
    for name in names:
        ranks: dict[str, list[int]] = {}
        for number, rank in enumerate(facts):
            ranks.setdefault(rank.get(name, "nothing"), []).append(number)
        if len(ranks) > 1:
            shown = zip(_shortened(list(ranks)), ranks.values(), strict=True)
            found.append(f"{name}: {', '.join(f'{value} on {ranks_text(numbers)}' for value, numbers in shown)}")
    return found


def facts_of(devices: Devices, train: Feed, valid: Feed | None, epochs: int, **more: object) -> Facts:
    """What a training depends on besides its model, as texts. To be compared before ranks do anything together.

    Args:
        devices: of all ranks.
        train: what is trained on.
        valid: what it is evaluated on.
        epochs: to train in all.
        more: other things that must be the same.
    """
    facts: dict[str, Any] = {"epochs": epochs, **more, **_versions(devices)}
    facts |= {"validation_data": "none" if valid is None else _described(valid)}
    facts |= _sequence_facts(train, "")
    facts |= {} if valid is None else _sequence_facts(valid, "validation ")
    return {name: str(value) for name, value in facts.items()}


def _described(feed: Feed) -> str:
    samples = feed.facts().get("samples")
    return type(feed).__name__ if samples is None else f"{samples} samples"


def _versions(devices: Devices) -> dict[str, Any]:
    found = {"python": platform.python_version(), "tensorflow": tf.__version__, "strategy": devices.name}
    found["compression"] = getattr(devices, "compression", "none")
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found | {"dist_loader": __version__}


def _sequence_facts(sequence: Feed, prefix: str) -> dict[str, Any]:
    facts = {"class of the sequence": type(sequence).__name__, **sequence.facts()}
    facts |= {"device_batch": "auto"} if sequence.finds_device_batch else {}
    return {f"{prefix}{name}": value for name, value in facts.items()}


def model_facts(model: Any) -> Facts:
    """Class, layers, weights and what a model, which is built, was compiled with, as texts."""
    facts: dict[str, Any] = {
        "class of the model": type(model).__name__,
        "precision": keras.mixed_precision.dtype_policy().name,
        "layers": len(model.layers),
        "parameters": sum(int(np.prod(weight.shape)) for weight in model.weights),
        **_config_facts("optimizer", model.optimizer),
        **_config_facts("loss", model.loss),
        "metrics": ", ".join(f"{type(metric).__name__} {metric.name}" for metric in model.metrics),
        "run_eagerly": model.run_eagerly,
        "steps_per_execution": model.steps_per_execution,
    }
    for at, layer in enumerate(model.layers):
        facts |= _config_facts(f"layer {at}", layer)
    for at, weight in enumerate(model.weights):
        facts[f"weight {at}"] = f"{tuple(weight.shape)} {weight.dtype}{'' if weight.trainable else ' not trained'}"
    return {name: str(value) for name, value in facts.items()} | {_WHOLE: plain(_config(model))}


def _config(thing: Any) -> Any:
    """What Keras would save of a thing; only its class if it cannot."""
    try:
        return keras.saving.serialize_keras_object(thing)
    except Exception:  # noqa: BLE001 (a user's class may not know how)
        return type(thing).__name__


def _config_facts(name: str, thing: Any) -> dict[str, str]:
    """A thing's configuration, value by value, without the names that Keras numbers through."""
    found = _config(thing)
    inner = found.get("config") if isinstance(found, dict) else None
    if not isinstance(inner, dict):
        return {name: plain(found)}
    values = {f"{name} {key}": plain(value) for key, value in inner.items() if key != "name"}
    return {name: str(found.get("class_name")), **values}


def plain(config: Any) -> str:
    """A configuration as text, with numbered names by the order in which they appear.

    Keras calls a model's second dense layer "dense_1", and goes on counting in the next model, so that ranks that built
    other models before would differ in nothing else.
    """
    text = json.dumps(config, sort_keys=True, default=lambda other: type(other).__name__)
    names = dict.fromkeys(re.findall(r'"name": "([^"]*)"', text))
    numbers = {name: f"{re.sub(r'_[0-9]+$', '', name)}#{at}" for at, name in enumerate(names)}
    return re.sub(r'"([^"]*)"', lambda found: f'"{numbers.get(found[1], found[1])}"', text)


def _shortened(texts: Sequence[str]) -> list[str]:
    """Different texts, as short as can be shown: long ones around the first letter that differs."""
    texts = [text.strip('"') for text in texts]
    if all(len(text) <= _LONGEST for text in texts):
        return texts
    same = next(at for at, letters in enumerate(zip_longest(*texts)) if len(set(letters)) > 1)
    start = max(0, same - _BEFORE)
    first, last = "..." if start else "", start + _LONGEST
    return [f"{first}{text[start:last]}{'...' if len(text) > last else ''}" for text in texts]
