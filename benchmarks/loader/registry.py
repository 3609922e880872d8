"""What is compared: every way with its settings, those that are tried, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from benchmarks.loader.corpus import Kind

Settings = dict[str, Any]
Role = Literal["ours", "limit", "documented", "by hand"]


@dataclass(frozen=True)
class Way:
    """One thing that is measured.

    Args:
        name: in tables.
        module: of `benchmarks.loader.ways`.
        role: "ours"; "limit"; a peer the way its own documentation shows, "documented"; or with what an expert adds,
            "by hand".
        fixed: settings that make it this way and no other.
        grid: values to try for each of the other settings; the first ones are used where nothing was tuned. Numbers of
            threads and workers are per core.
        packages: that it needs, as named on PyPI, for the table of versions.
        ffmpeg: it needs FFmpeg's libraries.
    """

    name: str
    module: str
    role: Role
    fixed: Settings = field(default_factory=dict)
    grid: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    ffmpeg: bool = False

    def choices(self, kind: Kind) -> dict[str, tuple[Any, ...]]:
        """The part of the grid that makes sense for a kind of image."""
        choices = {name: values for name, values in self.grid.items() if name != "reduce" or kind.reduction > 1}
        if kind.suffix != "jpg" and "simplejpeg" in choices.get("decoder", ()):
            choices["decoder"] = tuple(value for value in choices["decoder"] if value != "simplejpeg")
        return choices

    def untuned(self, kind: Kind) -> Settings:
        """The first of each choice."""
        return self.fixed | {name: values[0] for name, values in self.choices(kind).items()}


LIMIT = "limit: decoder alone"
OURS = "dist_loader ImageSequence"
OURS_IN_FIT = "dist_loader in model.fit"

_REDUCE = (True, False)

WAYS = (
    Way(
        LIMIT,
        "limit",
        "limit",
        grid={"decoder": ("simplejpeg", "opencv", "pillow"), "reduce": _REDUCE},
        packages=("simplejpeg", "opencv-python-headless", "pillow"),
    ),
    Way(OURS, "ours", "ours", grid={"threads": (1.0, 1.5, 2.0)}, packages=("dist-loader", "numpy")),
    Way(OURS_IN_FIT, "ours_fit", "ours", grid={"threads": (1.0, 1.5, 2.0)}, packages=("keras",)),
    Way(
        "tf.data",
        "tf_data",
        "documented",
        {"tuned": False},
        packages=("tensorflow-cpu", "tensorflow"),
    ),
    Way(
        "tf.data by hand",
        "tf_data",
        "by hand",
        {"tuned": True},
        {
            "reduce": _REDUCE,
            "fast": (True, False),
            "calls": (0, 1, 2),
            "pool": (0, 1),
        },
    ),
    Way("image_dataset_from_directory", "image_dataset", "documented", grid={"pool": (0, 1)}),
    Way("Keras PyDataset, Pillow", "py_dataset", "documented", {"decoder": "pillow"}, {"workers": (1, 2)}),
    Way(
        "Keras PyDataset, OpenCV",
        "py_dataset",
        "by hand",
        {"decoder": "opencv"},
        {"reduce": _REDUCE, "processes": (False, True), "workers": (1, 2)},
    ),
    Way(
        "PyTorch DataLoader, Pillow",
        "torch_loader",
        "documented",
        {"decoder": "pillow"},
        {"workers": (1, 2), "ahead": (2, 4)},
        ("torch",),
    ),
    Way(
        "PyTorch DataLoader, OpenCV",
        "torch_loader",
        "by hand",
        {"decoder": "opencv"},
        {"reduce": _REDUCE, "whole_batches": (True, False), "workers": (1, 2), "ahead": (2, 4)},
    ),
    Way(
        "Grain, Pillow",
        "grain_dataset",
        "documented",
        {"decoder": "pillow"},
        {"threads": (1, 2, 8), "processes": (0, 1)},
        ("grain",),
    ),
    Way(
        "Grain, OpenCV",
        "grain_dataset",
        "by hand",
        {"decoder": "opencv"},
        {"reduce": _REDUCE, "whole_batches": (True, False), "threads": (1, 2, 8), "processes": (0, 1)},
    ),
    Way(
        "SPDL, its decoder",
        "spdl_pipeline",
        "documented",
        {"decoder": "spdl"},
        {"threads": (1, 2)},
        ("spdl", "av"),
        ffmpeg=True,
    ),
    Way(
        "SPDL, OpenCV",
        "spdl_pipeline",
        "by hand",
        {"decoder": "opencv"},
        {"reduce": _REDUCE, "whole_batches": (True, False), "threads": (1, 2)},
        ffmpeg=True,
    ),
    Way(
        "NVIDIA DALI on CPU",
        "dali",
        "documented",
        {"tuned": False},
        packages=("nvidia-dali-cuda120",),
    ),
    Way(
        "NVIDIA DALI on CPU by hand",
        "dali",
        "by hand",
        {"tuned": True},
        {"threads": (1, 2), "ahead": (2, 4)},
    ),
    Way(
        "WebDataset, Pillow",
        "web_dataset",
        "documented",
        {"decoder": "pillow"},
        {"workers": (1, 2)},
        ("webdataset",),
    ),
    Way(
        "WebDataset, OpenCV",
        "web_dataset",
        "by hand",
        {"decoder": "opencv"},
        {"reduce": _REDUCE, "workers": (1, 2)},
    ),
    Way("FFCV", "ffcv_beton", "documented", packages=("ffcv",)),
)


def versions() -> dict[str, str]:
    """Of all packages that are measured, those that are installed."""
    found = {}
    for package in sorted({package for way in WAYS for package in way.packages}):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
