"""What every rank of a trial runs: Horovod starts, adds one number over all ranks, and ends.

`python -m dist_loader.preflight.allreduce SECONDS`. It is Horovod's own operation in the library that a training uses.
Both libraries are called by their C interfaces, because importing TensorFlow alone would take five times as long.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dist_loader.preflight.built import library

if TYPE_CHECKING:
    from collections.abc import Sequence

_FLOAT = 1  # TF_FLOAT of TensorFlow's tf_datatype.h


def main(argv: Sequence[str]) -> int:
    """Add the ranks' numbers plus one; 0 if the sum is right."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the connections are tried, and a GPU takes seconds to start
    signal.setitimer(signal.ITIMER_REAL, float(argv[0]))  # what hangs in C ends by SIGALRM
    file, folder = library(), find_spec("tensorflow")
    if file is None or folder is None:
        print(f"{sys.executable} has no {'Horovod' if file is None else 'TensorFlow'}", flush=True)
        return 2
    where = Path(next(iter(folder.submodule_search_locations or ("",))))
    ctypes.CDLL(str(where / "libtensorflow_framework.so.2"), ctypes.RTLD_GLOBAL)
    tensorflow = ctypes.CDLL(str(where / "libtensorflow_cc.so.2"), ctypes.RTLD_GLOBAL)
    horovod = ctypes.CDLL(str(file), ctypes.RTLD_GLOBAL)
    horovod.horovod_init.restype = ctypes.c_bool
    none = (ctypes.c_int * 0)()
    if not horovod.horovod_init(none, 0, none, none, 0):
        print("Horovod could not start", flush=True)
        return 1
    rank, size = horovod.horovod_rank(), horovod.horovod_size()
    found = _sum(tensorflow, file, rank + 1.0, horovod.horovod_reduce_op_sum())
    horovod.horovod_shutdown()
    if found != size * (size + 1) / 2:
        print(f"rank {rank}: the sum of 1 to {size} came out as {found}", flush=True)
        return 1
    return 0


def _sum(tensorflow: ctypes.CDLL, file: Path, number: float, sum_op: int) -> float:
    """The number added over all ranks, by the operation HorovodAllreduce.

    Raises:
        OSError: it fails.
    """
    pointer, text, whole = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int

    def call(name: str, result: Any, *arguments: Any) -> Any:
        function = getattr(tensorflow, name)
        function.restype = result
        answer = function(*arguments)
        if status in arguments and tensorflow.TF_GetCode(status):
            tensorflow.TF_Message.restype = text
            raise OSError(f"{name}: {tensorflow.TF_Message(status).decode(errors='replace')}")
        return pointer(answer) if result is pointer else answer

    status = pointer()
    status = call("TF_NewStatus", pointer)
    call("TF_LoadLibrary", pointer, str(file).encode(), status)
    context = call("TFE_NewContext", pointer, call("TFE_NewContextOptions", pointer), status)
    tensor = call("TF_AllocateTensor", pointer, whole(_FLOAT), None, whole(0), ctypes.c_size_t(4))
    ctypes.c_float.from_address(call("TF_TensorData", pointer, tensor).value).value = number
    operation = call("TFE_NewOp", pointer, context, b"HorovodAllreduce", status)
    call("TFE_OpAddInput", None, operation, call("TFE_NewTensorHandle", pointer, tensor, status), status)
    call("TFE_OpSetAttrType", None, operation, b"T", whole(_FLOAT))
    call("TFE_OpSetAttrInt", None, operation, b"reduce_op", ctypes.c_int64(sum_op))
    for scale in (b"prescale_factor", b"postscale_factor"):
        call("TFE_OpSetAttrFloat", None, operation, scale, ctypes.c_float(1.0))
    handles, count = (pointer * 1)(), whole(1)
    call("TFE_Execute", None, operation, handles, ctypes.byref(count), status)
    reduced = call("TFE_TensorHandleResolve", pointer, pointer(handles[0]), status)
    return float(ctypes.c_float.from_address(call("TF_TensorData", pointer, reduced).value).value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
