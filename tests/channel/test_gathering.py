"""Logs and bad samples of hosts that do not share a folder, at rank 0."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dist_loader.bad_samples import BadSamples
from dist_loader.bad_samples.gathering import gather
from dist_loader.channel import gather_logs
from dist_loader.errors import SampleError
from dist_loader.index import Index


@pytest.mark.parametrize("shared", [False, True])
def test_bad_samples_of_all_hosts_are_in_one_list_once(
    shared: bool, on_ranks: Callable, numbered: Callable[[int], Index], tmp_path: Path
) -> None:
    index = numbered(40)
    finds = [[3, 4], [4, 7, 8], [8, 30]]

    def file(rank: int) -> Path:
        return tmp_path / ("all" if shared else f"host-{rank}") / "bad_samples.jsonl"

    def run(channel) -> list[int]:
        def register() -> BadSamples:
            return BadSamples(index, "weight0", 1.0, 0, channel.rank, file(channel.rank))

        before = register()  # of a run before this one
        for sample in finds[channel.rank][:1]:
            before.note(SampleError(sample, index.path(sample), "an old reason"), 0)
        bad = register()
        for sample in finds[channel.rank][1:]:
            bad.note(SampleError(sample, index.path(sample), "no image"), 1)
        return [gather(channel, [bad, bad], None) for _ in range(2)]

    assert on_ranks(3, run) == [[5, 5]] * 3
    lines = [json.loads(line) for line in file(0).read_text().splitlines()]
    assert sorted(line["sample"] for line in lines) == [3, 4, 7, 8, 30]
    for line in lines:
        assert line["sample"] in finds[line["rank"]]
        assert line["reason"] == ("an old reason" if line["epoch"] == 0 else "no image")


def test_without_a_file_samples_are_counted(on_ranks: Callable, numbered: Callable[[int], Index]) -> None:
    index = numbered(40)

    def run(channel) -> int:
        bad = BadSamples(index, "weight0", 1.0, 0, channel.rank, None)
        for sample in (0, channel.rank + 1):
            bad.note(SampleError(sample, index.path(sample), "no image"), 0)
        return gather(channel, [bad], None)

    assert on_ranks(3, run) == [4, 4, 4]


def test_logs_come_to_rank_0_with_a_bound(on_ranks: Callable, tmp_path: Path) -> None:
    def folder(rank: int) -> Path:
        return tmp_path / ("host-1" if rank == 2 else f"host-{rank}") / "logs"  # ranks 1 and 2 share one

    def run(channel) -> list[Path]:
        own = folder(channel.rank)
        if channel.rank != 3:
            own.mkdir(parents=True, exist_ok=True)
            lines = 1000 if channel.rank == 2 else 3
            own.joinpath(f"rank-{channel.rank}.log").write_text("".join(f"line {n:04}\n" for n in range(lines)))
        return gather_logs(channel, own, most=105)

    written, *others = on_ranks(4, run)
    assert written == [folder(0) / "rank-1.log", folder(0) / "rank-2.log"]
    assert others == [[], [], []]
    assert (folder(0) / "rank-1.log").read_text() == (folder(1) / "rank-1.log").read_text()
    first, *rest = (folder(0) / "rank-2.log").read_text().splitlines()
    assert rest == [f"line {n:04}" for n in range(990, 1000)]
    assert first == f"({990 * 10} bytes before this are only on its host)"
    assert sorted(path.name for path in folder(0).iterdir()) == ["rank-0.log", "rank-1.log", "rank-2.log"]


def test_nothing_is_sent_where_the_folder_is_shared(on_ranks: Callable, tmp_path: Path) -> None:
    for rank in range(3):
        (tmp_path / f"rank-{rank}.log").write_text("as it is")
    assert on_ranks(3, lambda channel: gather_logs(channel, tmp_path)) == [[], [], []]
    assert len(list(tmp_path.iterdir())) == 3
