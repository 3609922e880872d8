"""`launch/train.py` over three hosts: what one process would have trained, though a host, a rank and a link go."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distributed.cluster import (
    OPTIONS,
    TRAIN,
    assert_every_step_is_committed_once,
    assert_same_end,
    on_hosts,
    trained_alone,
)
from tests.failures import documented
from tests.launching.jobs import processes

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(500)]

# $1 python, $2 train.py, the rest its arguments. mpirun's job loses a host and goes on without it, then loses a rank,
# and ends. horovodrun's goes on from there, and loses a host.
SCRIPT = """
launch=("$1" -m dist_loader launch --restarts 1 --min-np 1 --np-divides 12 --log-dir logs)
train=("${@:2}")

mh on hostA "${launch[@]}" --with mpirun -H hostA:1,hostB:1,hostC:1 "${train[@]}" 2>mpirun.log & job=$!
wait_for logs/rank-0.log "epoch 3/.*step 5/5"
mh link hostC down
wait_for mpirun.log "was lost" >noticed-mpirun
wait_for logs/rank-0.log "going on from" >resumed-mpirun
wait_for logs/rank-0.log "step 5/5" $(($(grep -c "step 5/5" logs/rank-0.log) + 2))
mh on hostB pkill -KILL -x -f "$1 $2 .*"
wait $job; echo $? >code-mpirun
mv logs logs-mpirun

mh on hostA "${launch[@]}" --with horovodrun -H hostA:1,hostB:1 "${train[@]}" 2>horovodrun.log & job=$!
wait_for logs/rank-0.log "step 5/5" 2
mh link hostB down
wait_for horovodrun.log "was lost" >noticed-horovodrun
wait_for logs/rank-0.log "going on from" 2 >resumed-horovodrun
wait $job; echo $? >code-horovodrun
for ((n = 0; n < 100; n++)); do
    for host in $MH_HOSTS; do mh on $host ps -eo args; done | grep -E '[t]rain.py|[o]rted|[d]ist_loader' >left || break
    sleep 0.2
done
"""


def test_a_job_over_hosts_ends_as_in_one_process(images: Path, tmp_path: Path, once: Callable) -> None:
    train = [str(TRAIN), "--data", str(images), *OPTIONS, "--run-dir", "run", "--device-batch", "2"]
    on_hosts(3, SCRIPT, tmp_path, sys.executable, *train, timeout=400)

    def number(name: str) -> int:
        return int((tmp_path / name).read_text())

    mpirun, horovodrun = ((tmp_path / f"{name}.log").read_text() for name in ("mpirun", "horovodrun"))
    assert "rank 2 on hostC was lost: its host does not answer any more, the first to fail" in mpirun
    for words in ("was lost", "was ended by SIGKILL"):
        assert documented(next(line for line in mpirun.splitlines() if words in line))
    assert "from 3 to 2 ranks" in mpirun
    assert "--mca btl_tcp_if_include eth0" in mpirun
    assert re.search(r"rank 1 on hostB was ended by SIGKILL .*what it wrote is in logs/rank-1.log", mpirun)
    assert number("code-mpirun") == 137
    assert "rank 1 on hostB was lost: its host does not answer any more, the first to fail" in horovodrun
    assert "from 2 to 1 ranks" in horovodrun
    assert number("code-horovodrun") == 0
    assert max(number("noticed-mpirun"), number("noticed-horovodrun")) < 20
    assert (tmp_path / "left").read_text() == ""
    assert processes(f"TEST_MARK={tmp_path}") == []
    assert "epoch 3/" in (tmp_path / "run" / "logs" / "rank-2.log").read_text()
    assert_every_step_is_committed_once(tmp_path / "run", {1, 2, 3})
    assert_same_end(tmp_path / "run", trained_alone(images, once))
