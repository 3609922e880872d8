"""Which Horovod is built, what is changed in its source, and with which options."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VERSION = "0.28.1"
SOURCE_SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"
TENSORFLOW_CHECKED = "2.21"

# What build options a user may set; every other HOROVOD_ variable is kept out of the build, so that one label
# always means one build.
PASSED_ON = ("HOROVOD_BUILD_ARCH_FLAGS", "HOROVOD_BUILD_CUDA_CC_LIST")


class RecipeError(Exception):
    """The source is not the one that the edits were written for."""


@dataclass(frozen=True)
class Edit:
    """One change in one file of the source.

    Attributes:
        file: path inside the source.
        old: text that must be there, exactly `count` times.
        new: what replaces it.
        count: how often.
    """

    file: str
    old: str
    new: str
    count: int = 1

    def apply(self, text: str) -> str:
        """The changed text.

        Raises:
            RecipeError: `old` is not there exactly `count` times.
        """
        found = text.count(self.old)
        if found != self.count:
            raise RecipeError(f"{self.file}: expected {self.old.strip()!r} {self.count} times, found it {found} times")
        return text.replace(self.old, self.new)


def edits(runpath: str, *, gpu: bool) -> tuple[Edit, ...]:
    """The changes that TensorFlow 2.21 makes necessary.

    Args:
        runpath: where the finished library looks for MPI and NCCL, relative to itself.
        gpu: build with CUDA and NCCL.
    """
    cmake = "horovod/tensorflow/CMakeLists.txt"
    ops = "horovod/tensorflow/mpi_ops.cc"
    always = (
        # Includes headers that TensorFlow no longer ships. It holds the XLA variants of the ops only.
        Edit(cmake, 'list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/xla_mpi_ops.cc")\n', ""),
        # Otherwise the library remembers the absolute path of the environment that it was compiled in, and a cached
        # wheel stops working anywhere else once that environment is gone.
        Edit(
            cmake,
            'PROPERTIES OUTPUT_NAME "mpi_lib")',
            f'PROPERTIES OUTPUT_NAME "mpi_lib" BUILD_RPATH "{runpath}")',
        ),
    )
    if not gpu:
        return always
    return (
        *always,
        # AsGpuStreamValue is gone; a stream tells its handle itself.
        Edit(ops, "GpuStreamHandle AsGpuStreamValue(Stream* stream);\n", ""),
        Edit(ops, GPU_STREAM, GPU_STREAM_NOW, count=8),
        Edit(ops, GPU_STREAM_BROKEN, GPU_STREAM_NOW, count=4),
        # TensorFlow's headers are C++17.
        Edit("horovod/common/ops/cuda/CMakeLists.txt", "set(CMAKE_CUDA_STANDARD 11)", "set(CMAKE_CUDA_STANDARD 17)"),
    )


def apply_edits(source: Path, changes: tuple[Edit, ...]) -> None:
    """Changes the unpacked source in place.

    Raises:
        RecipeError: a file or a text to change is not there.
    """
    for change in changes:
        file = source / change.file
        if not file.is_file():
            raise RecipeError(f"{change.file}: not in the source of Horovod {VERSION}")
        file.write_text(change.apply(file.read_text(encoding="utf-8")), encoding="utf-8")


def options(*, gpu: bool) -> Mapping[str, str]:
    """The environment variables that choose what is built."""
    chosen = {
        "HOROVOD_WITH_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_PYTORCH": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITH_GLOO": "1",
        "HOROVOD_WITH_MPI": "1",
        "CMAKE_POLICY_VERSION_MINIMUM": "3.5",  # CMake 4 refuses the age of Horovod's third parties otherwise
    }
    if gpu:
        chosen |= {"HOROVOD_GPU": "CUDA", "HOROVOD_GPU_OPERATIONS": "NCCL", "HOROVOD_NCCL_LINK": "SHARED"}
    return chosen


def fingerprint(runpath: str, *, gpu: bool) -> str:
    """Changes whenever the recipe does, so that a cached build of an older recipe is never taken for this one's."""
    recipe = repr((VERSION, SOURCE_SHA256, edits(runpath, gpu=gpu), sorted(options(gpu=gpu).items())))
    return hashlib.sha256(recipe.encode()).hexdigest()


GPU_STREAM = "stream_executor::gpu::AsGpuStreamValue(device_context->stream())"
GPU_STREAM_BROKEN = "stream_executor::gpu::AsGpuStreamValue(\n                  device_context->stream())"
GPU_STREAM_NOW = "static_cast<GpuStreamHandle>(device_context->stream()->platform_specific_handle().stream)"
