"""Asks all hosts of a job for their facts, this machine among them, at once and for a bounded time."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from dist_loader.launching.machine import interface_of
from dist_loader.launching.probe import BOUND, Answer, call, over_ssh, problem
from dist_loader.preflight.compare import Heard
from dist_loader.preflight.facts import of_json
from dist_loader.preflight.host import MARK

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from dist_loader.launching.probe import Said
    from dist_loader.preflight.facts import Wanted

_MODULE = "dist_loader.preflight.host"


def ask_facts(
    hosts: Iterable[str], here: Collection[str], wanted: Wanted, env: Mapping[str, str], bound: float = BOUND
) -> dict[str, Heard]:
    """What each host says, in their order.

    Args:
        hosts: by name.
        here: those that are this machine, and need no ssh.
        wanted: what they are to look at.
        env: the environment.
        bound: seconds for all of them together.
    """
    module = [_MODULE, json.dumps(asdict(wanted))]
    commands = {
        host: [sys.executable, "-m", *module] if host in here else over_ssh(host, env, module, bound) for host in hosts
    }
    return {host: _heard(host, said, bound) for host, said in call(commands, env, bound).items()}


def ask_nodes(
    srun: str, hosts: Sequence[str], wanted: Wanted, env: Mapping[str, str], bound: float = BOUND
) -> dict[str, Heard]:
    """The same of the nodes of a Slurm allocation, by srun: ssh to them need not be allowed."""
    count = len(hosts)
    command = [srun, f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1", f"--nodelist={','.join(hosts)}"]
    command += ["--mpi=none", "--cpu-bind=none", sys.executable, "-m", _MODULE, json.dumps(asdict(wanted))]
    said = call({"srun": command}, env, bound)["srun"]
    heard = {}
    for line in re.findall(rf"^.*?{MARK}.*$", said.out, re.MULTILINE):
        each = _heard("a node", replace(said, code=0, out=line[line.index(MARK) :]), bound)
        if each.facts is not None:
            heard[each.facts.host] = each
    last = next((line.strip() for line in reversed(said.err.splitlines()) if line.strip()), "it did not end in time")
    return {
        host: heard.get(host, Heard(problem=f"{host} did not answer to srun within {bound:g} s: {last}"))
        for host in hosts
    }


def _heard(host: str, said: Said, bound: float) -> Heard:
    found = re.search(rf"^{MARK}(.*)$", said.out, re.MULTILINE)
    if said.code != 0 or found is None:
        return Heard(problem=problem(host, said, bound), began=said.began, ended=said.ended)
    try:
        facts = of_json(json.loads(found[1]))
    except (TypeError, KeyError, ValueError):
        return Heard(problem=f"{host} has another version of dist_loader: install the same there")
    return Heard(facts, began=said.began, ended=said.ended)


def answers(heard: Mapping[str, Heard], here: Collection[str]) -> dict[str, Answer]:
    """The same as `launching.probe.ask` would say of the hosts that are other machines."""
    found = {}
    for host, each in heard.items():
        if host in here:
            continue
        if each.facts is None:
            found[host] = Answer(problem=each.problem)
        else:
            client = each.facts.client
            found[host] = Answer(each.facts.usable, each.facts.reached_by, interface_of(client) if client else None)
    return found
