"""Facts of this machine: its GPUs, its cores, and the address under which another host reaches it."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def count_gpus(env: Mapping[str, str] = os.environ, root: Path = Path("/")) -> int:
    """NVIDIA GPUs that a job may use here: CUDA_VISIBLE_DEVICES, else nvidia-smi, else what the driver shows as files.

    Args:
        env: the environment.
        root: of the file system; another one in tests.
    """
    visible = env.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = list(visible.split(",")) if visible.strip() else []
        # CUDA stops at the first entry that names no device, such as -1.
        return next(
            (n for n, name in enumerate(named) if not re.fullmatch(r"\s*(\d+|GPU-.+|MIG-.+)\s*", name)), len(named)
        )
    smi = shutil.which("nvidia-smi", path=env.get("PATH"))
    if smi:
        try:
            listed = subprocess.run([smi, "-L"], capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            pass
        else:
            if listed.returncode == 0:
                return len(re.findall(r"^GPU \d+:", listed.stdout, re.MULTILINE))
    cards = list(root.glob("proc/driver/nvidia/gpus/*"))
    return len(cards) or len([device for device in root.glob("dev/nvidia*") if device.name[6:].isdigit()])


def count_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def resolve(name: str) -> str | None:
    """The IPv4 address of a host; None where there is none."""
    try:
        return str(socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except OSError:
        return None


def is_here(name: str) -> bool:
    """Whether a host name means this machine."""
    if name in ("localhost", socket.gethostname()):
        return True
    address = resolve(name)
    if address is None:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))  # only an address of one's own can be bound
        except OSError:
            return False
    return True


def address_towards(host: str) -> str | None:
    """The address of this machine that a host sees; None where there is no way to it. Nothing is sent."""
    address = resolve(host)
    if address is None:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


_SIOCGIFADDR = 0x8915


def interface_of(address: str) -> str | None:
    """The name of the network interface with this IPv4 address, such as eth0."""
    return next((name for name, own in addresses().items() if own == address), None)


def addresses() -> dict[str, str]:
    """The IPv4 addresses of this machine, by name of the network interface."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(any_socket, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # it has no IPv4 address
                continue
            found[name] = socket.inet_ntoa(answer[20:24])
    return found
