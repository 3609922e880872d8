"""Asking hosts over ssh."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dist_loader.launching.machine import count_gpus, is_here
from dist_loader.launching.probe import Answer, ask

Programs = Callable[..., dict[str, str]]


def test_hosts_are_asked_all_at_once_and_for_a_bounded_time(programs: Programs) -> None:
    env = programs(CUDA_VISIBLE_DEVICES="0,1", SSH_CONNECTION="127.0.0.1 5000 127.0.0.1 22")
    began = time.monotonic()
    answers = ask(["fine", "silent", "refused", "bare", "other"], env, bound=1.5)
    assert time.monotonic() - began < 10
    assert answers["fine"] == Answer(gpus=2, interface="lo", here="lo")
    says = {host: answer.problem for host, answer in answers.items() if answer.problem}
    assert says.keys() == {"silent", "refused", "bare", "other"}
    assert says["silent"] == "silent did not answer within 1.5 s; try: ssh silent true"
    assert "port 22: Connection refused; it must work without a password: ssh refused true" in says["refused"]
    assert says["bare"] == f"bare has no dist_loader for {sys.executable}: install it there, at the same path"
    assert f"other cannot run {sys.executable}: env: /opt/python: No such file or directory" in says["other"]


@pytest.mark.parametrize(
    ("visible", "gpus"), [("", 0), ("0", 1), ("0,2,3", 3), ("GPU-8932f937,MIG-a/b/c", 2), ("-1", 0), ("0,-1,1", 1)]
)
def test_gpus_that_may_be_seen(visible: str, gpus: int) -> None:
    assert count_gpus({"CUDA_VISIBLE_DEVICES": visible}) == gpus


def test_gpus_of_the_driver(tmp_path: Path) -> None:
    assert count_gpus({"PATH": ""}, tmp_path) == 0
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    assert count_gpus({"PATH": ""}, tmp_path) == 2
    (tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0").mkdir(parents=True)
    assert count_gpus({"PATH": ""}, tmp_path) == 1
    smi = tmp_path / "nvidia-smi"
    smi.write_text('#!/bin/sh\nfor n in 0 1 2; do echo "GPU $n: NVIDIA H100 (UUID: GPU-$n)"; done\n')
    smi.chmod(0o755)
    assert count_gpus({"PATH": str(tmp_path)}, tmp_path) == 3


def test_this_machine() -> None:
    assert is_here("localhost")
    assert is_here("127.0.0.1")
    assert not is_here("192.0.2.1")  # an address that belongs to nobody
