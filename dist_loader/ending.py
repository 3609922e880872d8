"""Ending a process at once, where the usual way out might wait for ever."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import NoReturn

ENDED_BY_ANOTHER = os.EX_TEMPFAIL  # the exit code (75) of a rank that ends because another one did

_GENERATED = "__autograph_generated_file"  # TensorFlow's temporary modules, which it removes only on the usual way out


def end_now(code: int) -> NoReturn:
    """End this process with an exit code, from any thread; nothing but files' buffers is waited for."""
    for name, module in list(sys.modules.items()):
        if name.startswith(_GENERATED) and getattr(module, "__file__", None):
            with contextlib.suppress(OSError):
                os.unlink(str(module.__file__))  # noqa: PTH108 (no new objects now)
    for handler in logging.getLogger().handlers:
        with contextlib.suppress(Exception):
            handler.flush()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)
