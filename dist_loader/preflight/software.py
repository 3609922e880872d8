"""Cells of what is installed: versions, and MPI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dist_loader.preflight.cells import Cell, alike

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dist_loader.preflight.facts import Facts

# The training itself refuses to start when one of these differs (dist_loader/training/agreement.py).
ROWS = ("dist_loader", "tensorflow", "keras", "horovod")
OTHERS = ("numpy", "pillow", "simplejpeg", "opencv-python-headless")
BUILD = "python launch/install_horovod.py --force"


def versions(facts: Mapping[str, Facts], *, needed: bool) -> list[Cell]:
    """Python and the packages: the same everywhere, and there.

    Args:
        facts: of the hosts.
        needed: whether a job must have all of them. A script that is no training may do without.
    """
    cells = alike(
        "python",
        {host: each.python for host, each in facts.items()},
        "make the environment anew there, with that Python",
    )
    cpu = any(each.cpu_only for each in facts.values())
    for name in ROWS:
        found = {host: each.versions.get(name) for host, each in facts.items()}
        if name == "horovod":  # one without its library is none
            found = {host: version if facts[host].horovod else None for host, version in found.items()}
        if not any(found.values()):
            cells += [Cell(name, host, "bad" if needed else "warn", "missing", _absent(name)) for host in found]
        else:
            cells += alike(name, found, _install(f"{name}-cpu" if name == "tensorflow" and cpu else name))
    cells += _others(facts)
    return [_fits(cell, facts[cell.host]) for cell in cells]


def _absent(name: str) -> str:
    if name == "horovod":
        return "Horovod is not installed: python launch/install_horovod.py builds it"
    return f"{name} is not installed: pip install {name}"


def _install(name: str) -> str:
    if name == "dist_loader":
        return "install that one there"
    if name == "horovod":
        return f"{BUILD} there"
    return f"pip install {name}=={{wanted}} there"


def _others(facts: Mapping[str, Facts]) -> list[Cell]:
    """One row for the packages that matter less."""
    cells = {host: Cell("other packages", host, "ok", "the same") for host in facts}
    if len(facts) == 1:
        return []
    for name in OTHERS:
        for cell in alike(
            name,
            {host: each.versions.get(name) for host, each in facts.items()},
            _install(name),
        ):
            before = cells[cell.host]
            if cell.level == "bad":
                text = cell.check if before.level == "ok" else f"{before.text}, {cell.check}"
                do = cell.do if before.level == "ok" else f"{before.do}; {cell.do}"
                cells[cell.host] = Cell("other packages", cell.host, "bad", text, do)
    return list(cells.values())


def _fits(cell: Cell, facts: Facts) -> Cell:
    """A Horovod that was built against another TensorFlow, or whose libraries are gone, fails when it is loaded."""
    built, installed = facts.horovod, facts.versions.get("tensorflow")
    if cell.check != "horovod" or cell.level != "ok" or built is None:
        return cell
    if built.missing:
        gone = ", ".join(built.missing)
        do = f"Horovod on {cell.host} needs {gone}, which is not found: LD_LIBRARY_PATH, or {BUILD}"
        return Cell(cell.check, cell.host, "bad", cell.text, do)
    if built.tensorflow and installed and built.tensorflow != installed:
        do = f"Horovod on {cell.host} was built against TensorFlow {built.tensorflow}, not {installed}: {BUILD}"
        return Cell(cell.check, cell.host, "bad", cell.text, do)
    return cell


def gloo(facts: Mapping[str, Facts]) -> list[Cell]:
    """Gloo, where the ranks meet by it."""
    cells = []
    for host, each in facts.items():
        if each.horovod is not None:
            has = each.horovod.gloo
            do = "" if has else f"Horovod on {host} has no Gloo: {BUILD} there, or use mpirun"
            cells.append(Cell("gloo", host, "ok" if has else "bad", "in Horovod" if has else "not in Horovod", do))
    return cells


def mpi(facts: Mapping[str, Facts]) -> list[Cell]:
    """The MPI that Horovod is linked to, beside the mpirun that would be called."""
    cells = []
    same = alike(
        "mpi",
        {host: each.horovod.mpi if each.horovod else None for host, each in facts.items()},
        f"{BUILD} there, against that MPI",
        missing="none",
    )
    for cell in same:
        each = facts[cell.host]
        linked, called = each.horovod.mpi if each.horovod else None, each.mpirun
        if each.horovod is None:
            continue  # said in its own row
        if linked is None:
            do = f"Horovod on {cell.host} has no MPI: use horovodrun --gloo, or install an MPI and then {BUILD}"
            cells.append(Cell("mpi", cell.host, "bad", "not in Horovod", do))
        elif called is not None and family(linked) != family(called):
            do = f"mpirun on {cell.host} is of {called}, Horovod is linked to {linked}: PATH, or {BUILD}"
            cells.append(Cell("mpi", cell.host, "bad", f"{linked}, {called}", do))
        else:
            cells.append(cell)
    return cells


def family(version: str) -> str:
    """What must agree: whose MPI it is, and for Open MPI its first number."""
    name, _, number = version.rpartition(" ")
    return f"{name} {number.partition('.')[0]}" if name == "Open MPI" else name
