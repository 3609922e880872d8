"""Train Keras models on data that does not fit in memory, on many GPUs.

Importing this package loads neither TensorFlow nor Horovod nor MPI; each public name brings in what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dist_loader.errors import (
        AugmentError,
        CheckpointError,
        ConfigError,
        DistLoaderError,
        ReadTimeout,
        SampleError,
        StreamError,
        TooManyBadSamples,
    )
    from dist_loader.index import Index
    from dist_loader.permutation import Permutation
    from dist_loader.plan import Plan
    from dist_loader.ragged.save import save_tokens
    from dist_loader.readers import Reader, SampleReader
    from dist_loader.sequence.array import ArraySequence
    from dist_loader.sequence.image import ImageSequence
    from dist_loader.sequence.reader import ReaderSequence
    from dist_loader.sequence.stream import StreamSequence
    from dist_loader.sequence.table import TableSequence
    from dist_loader.sequence.tokens import TokenSequence
    from dist_loader.sequence.volume import VolumeSequence
    from dist_loader.table import Table
    from dist_loader.table.specs import Image, Label, Mask, Numbers
    from dist_loader.training.callbacks import on_rank_zero
    from dist_loader.training.checkpoint.load import load_checkpoint
    from dist_loader.training.learning_rate import scaled_learning_rate
    from dist_loader.training.signals import Interrupted
    from dist_loader.training.strategy import Strategy, init
    from dist_loader.training.summary import Summary
    from dist_loader.world import World

__version__ = "0.1.0"

_HOMES = {
    "ArraySequence": "dist_loader.sequence.array",
    "AugmentError": "dist_loader.errors",
    "CheckpointError": "dist_loader.errors",
    "ConfigError": "dist_loader.errors",
    "DistLoaderError": "dist_loader.errors",
    "Image": "dist_loader.table.specs",
    "ImageSequence": "dist_loader.sequence.image",
    "Index": "dist_loader.index",
    "Interrupted": "dist_loader.training.signals",
    "Label": "dist_loader.table.specs",
    "Mask": "dist_loader.table.specs",
    "Numbers": "dist_loader.table.specs",
    "Permutation": "dist_loader.permutation",
    "Plan": "dist_loader.plan",
    "ReadTimeout": "dist_loader.errors",
    "Reader": "dist_loader.readers",
    "ReaderSequence": "dist_loader.sequence.reader",
    "SampleError": "dist_loader.errors",
    "SampleReader": "dist_loader.readers",
    "Strategy": "dist_loader.training.strategy",
    "StreamError": "dist_loader.errors",
    "StreamSequence": "dist_loader.sequence.stream",
    "Summary": "dist_loader.training.summary",
    "Table": "dist_loader.table",
    "TableSequence": "dist_loader.sequence.table",
    "TokenSequence": "dist_loader.sequence.tokens",
    "TooManyBadSamples": "dist_loader.errors",
    "VolumeSequence": "dist_loader.sequence.volume",
    "World": "dist_loader.world",
    "init": "dist_loader.training.strategy",
    "load_checkpoint": "dist_loader.training.checkpoint.load",
    "on_rank_zero": "dist_loader.training.callbacks",
    "save_tokens": "dist_loader.ragged.save",
    "scaled_learning_rate": "dist_loader.training.learning_rate",
}

__all__ = [
    "ArraySequence",
    "AugmentError",
    "CheckpointError",
    "ConfigError",
    "DistLoaderError",
    "Image",
    "ImageSequence",
    "Index",
    "Interrupted",
    "Label",
    "Mask",
    "Numbers",
    "Permutation",
    "Plan",
    "ReadTimeout",
    "Reader",
    "ReaderSequence",
    "SampleError",
    "SampleReader",
    "Strategy",
    "StreamError",
    "StreamSequence",
    "Summary",
    "Table",
    "TableSequence",
    "TokenSequence",
    "TooManyBadSamples",
    "VolumeSequence",
    "World",
    "init",
    "load_checkpoint",
    "on_rank_zero",
    "save_tokens",
    "scaled_learning_rate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
