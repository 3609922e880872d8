"""FFmpeg's libraries for SPDL, where the system has none: those that PyAV's wheel carries, under their usual names."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


def library_folder(links: Path) -> Path | None:
    """Fill a folder with links for LD_LIBRARY_PATH; None without PyAV.

    Args:
        links: the folder, which is made.
    """
    try:
        files = [file.locate() for file in distribution("av").files or [] if file.parts[0] == "av.libs"]
    except PackageNotFoundError:
        return None
    links.mkdir(parents=True, exist_ok=True)
    for path in map(Path, files):
        # libavutil-5809ad29.so.60.26.102 is also libavutil.so.60
        for name in (path.name, re.sub(r"-[0-9a-f]{8}(\.so\.\d+).*", r"\1", path.name)):
            link = links / name
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve())
    return links
