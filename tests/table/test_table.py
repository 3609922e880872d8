"""Tables: what comes out of files is what was in them, and what does not fit is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dist_loader as dl
from dist_loader.errors import ConfigError

COLUMNS = {
    "path": ["a.png", "b c.png", "d/é.png"],
    "kind": ["cat", "dog", "cat"],
    "age": [1.5, 2.25, -3.0],
    "count": [1, 2, 3],
}


def values(table: dl.Table, column: str) -> list:
    rows = table.data_rows(np.arange(len(table)))
    return table.column(column).take(pa.array(rows)).to_pylist()


def all_values(table: dl.Table) -> dict[str, list]:
    return {name: values(table, name) for name in table.columns}


def csv(folder: Path, text: str, **options: object) -> dl.Table:
    (folder / "table.csv").write_text(text, encoding="utf-8")
    return dl.Table.from_csv(folder / "table.csv", **options)


def made_from(source: str, folder: Path) -> dl.Table:
    columns = pa.table(COLUMNS)
    if source == "csv":
        lines = [",".join(map(str, row)) for row in zip(*COLUMNS.values(), strict=True)]
        return csv(folder, "\n".join([",".join(COLUMNS), *lines]) + "\n")
    if source == "parquet":
        pa.parquet.write_table(columns, folder / "table.parquet", row_group_size=2)
        return dl.Table.from_parquet(folder / "table.parquet")
    if source == "parquet folder":
        (folder / "parts").mkdir()
        for part in (1, 0):  # the files' names give the order
            pa.parquet.write_table(columns.slice(2 * part, 2), folder / "parts" / f"{part}.parquet")
        return dl.Table.from_parquet(folder / "parts")
    if source in ("arrow file", "arrow stream"):
        new = pa.ipc.new_file if source == "arrow file" else pa.ipc.new_stream
        with new(str(folder / "table.arrow"), columns.schema) as file:
            file.write_table(columns, max_chunksize=2)
        return dl.Table.from_arrow(folder / "table.arrow")
    if source == "arrow":
        return dl.Table.from_arrow(pa.table({**COLUMNS, "kind": pa.array(COLUMNS["kind"]).dictionary_encode()}))
    if source == "pandas":
        return dl.Table.from_pandas(pytest.importorskip("pandas").DataFrame(COLUMNS, index=[7, 8, 9]))
    if source == "columns":
        return dl.Table.from_columns(COLUMNS | {"age": np.array(COLUMNS["age"])})
    rows = [(Path(path), *rest) for path, *rest in zip(*COLUMNS.values(), strict=True)]
    return dl.Table.from_rows(rows, names=list(COLUMNS))


SOURCES = ("csv", "parquet", "parquet folder", "arrow file", "arrow stream", "arrow", "pandas", "columns", "rows")


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_same_table(source: str, tmp_path: Path) -> None:
    table = made_from(source, tmp_path)
    assert all_values(table) == COLUMNS
    assert table.columns == tuple(COLUMNS)
    assert len(table) == 3
    assert table.classes("kind") == ("cat", "dog")
    assert table.classes("count") == (0, 1, 2, 3)


@pytest.mark.parametrize("source", ["csv", "arrow file"])
def test_a_saved_part_is_that_part(source: str, tmp_path: Path) -> None:
    part = made_from(source, tmp_path).take([2, 0, 2])
    part.save(tmp_path / "saved.arrow")
    assert all_values(dl.Table.from_arrow(tmp_path / "saved.arrow")) == all_values(part)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        {"saved.arrow", "table.csv" if source == "csv" else "table.arrow"}
    )


@given(st.lists(st.integers(0, 6), max_size=9), st.data())
def test_takes_of_takes_are_takes(numbers: list[int], data: st.DataObject) -> None:
    table = dl.Table.from_columns({"n": list(range(7))})
    part = table.take(np.array(numbers, int))
    assert values(part, "n") == numbers
    if numbers:
        again = data.draw(st.lists(st.integers(0, len(numbers) - 1)))
        assert values(part.take(np.array(again, int)), "n") == [numbers[at] for at in again]


@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 5), st.booleans(), st.booleans())
def test_a_split_loses_and_doubles_nothing(rows: int, fraction: float, seed: int, by: bool, of_part: bool) -> None:
    table = dl.Table.from_columns({"n": list(range(rows)), "kind": ["ab"[n % 3 == 0] for n in range(rows)]})
    if of_part:
        table = table.take(np.arange(rows)[::-1])
    count = round(rows * fraction)
    if not 0 < count < rows:
        with pytest.raises(ConfigError, match="both parts need one"):
            table.split(fraction, seed)
        return
    rest, held_out = table.split(fraction, seed, by="kind" if by else None)
    assert len(held_out) == count
    assert sorted(values(rest, "n") + values(held_out, "n")) == list(range(rows))
    assert values(rest, "n") == sorted(values(rest, "n"), reverse=of_part)
    again = table.split(fraction, seed, by="kind" if by else None)[1]
    assert values(again, "n") == values(held_out, "n")
    if by:
        share = values(table, "kind").count("b") * count / rows
        assert abs(values(held_out, "kind").count("b") - share) < 1
    assert rest.classes("kind") == held_out.classes("kind") == table.classes("kind")


def test_what_csv_can_hold(tmp_path: Path) -> None:
    table = csv(tmp_path, 'text,"x, y"\n"a ""b""",1\n"two\nlines",2\nÄ→🙂,3\nNA,4\n,5\n')
    assert table.columns == ("text", "x, y")
    assert values(table, "text") == ['a "b"', "two\nlines", "Ä→🙂", "NA", ""]
    assert values(table, "x, y") == [1, 2, 3, 4, 5]
    tabs = csv(tmp_path, "a\tb\r\n1,5\t2\r\n", delimiter="\t")
    assert all_values(tabs) == {"a": ["1,5"], "b": [2]}
    bom = csv(tmp_path, "\ufeffa,b\n1,2\n")
    assert bom.columns == ("a", "b")


def test_line_breaks_in_fields_of_a_long_file(tmp_path: Path) -> None:
    rows = 50_000  # 3 MB: Arrow reads 1 MiB at a time
    table = csv(tmp_path, "text,n\n" + "".join(f'"{n}\n1,2\n{"x" * 40}",{n}\n' for n in range(rows)))
    assert values(table, "n") == list(range(rows))
    assert values(table, "text")[-1] == f"{rows - 1}\n1,2\n{'x' * 40}"


def test_a_column_is_what_the_user_says(tmp_path: Path) -> None:
    assert values(csv(tmp_path, "zip,n\n01234,1\n"), "zip") == [1234]
    table = csv(tmp_path, "zip,n\n01234,1\n", types={"zip": "string"}, columns=["zip"])
    assert all_values(table) == {"zip": ["01234"]}


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("", {}, "[Ee]mpty"),
        ("a,b\n", {}, "without rows.*a, b"),
        ("a,a\n1,2\n", {}, "two columns.*'a'"),
        ("a,b\n1,2\n3\n", {}, "table.csv.*[Ee]xpected 2 columns"),
        ("a,b\n1,2\n", {"columns": ["c"]}, "table.csv.*c"),
        ("a,b\nx,2\n", {"types": {"a": "int64"}}, "table.csv.*'x'"),
        ("a,b\nx,2\n", {"types": {"a": "number"}}, "types names 'number'"),
        ("a,b\nx,2\n", {"delimiter": ",,"}, "delimiter"),
    ],
)
def test_csv_files_that_are_no_tables(text: str, options: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        csv(tmp_path, text, **options)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there_or_are_something_else(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no table\x00" * 100)
    (tmp_path / "latin.csv").write_bytes("a\nß\n".encode("latin-1"))
    (tmp_path / "none").mkdir()
    for read in (dl.Table.from_csv, dl.Table.from_parquet, dl.Table.from_arrow):
        with pytest.raises(ConfigError, match="no table at .*missing"):
            read(tmp_path / "missing")
    for read in (dl.Table.from_parquet, dl.Table.from_arrow):
        with pytest.raises(ConfigError, match="cannot read the table .*text'"):
            read(tmp_path / "text")
        with pytest.raises(ConfigError):
            read(tmp_path / "none")
    with pytest.raises(ConfigError, match="column 'a' holds bytes that are not UTF-8"):
        dl.Table.from_csv(tmp_path / "latin.csv").classes("a")
    (tmp_path / "latin.csv").write_bytes("ß\n1\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="cannot read the table .*latin.csv'.*utf-8"):
        dl.Table.from_csv(tmp_path / "latin.csv")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "without rows"),
        ([("a.png", 1), ("b.png",)], r"row 1 must have 2 values"),
        (["ab"], "row 0"),
        ([("a.png", 1), ("b.png", "dog")], "column 'label'"),
        ([("a.png", object())], "column 'label'"),
    ],
)
def test_rows_that_are_no_table(rows: list, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        dl.Table.from_rows(rows)


def test_rows_that_are_not_there() -> None:
    table = dl.Table.from_columns({"n": [1, 2]})
    for numbers in ([2], [-1], np.array([0, 5])):
        with pytest.raises(IndexError, match="out of range"):
            table.take(numbers)
    with pytest.raises(TypeError):
        table.take([True, False])
    with pytest.raises(ConfigError, match="fraction"):
        table.split(1.5)
    with pytest.raises(ConfigError, match="no column 'm'; it has 'n'"):
        table.classes("m")


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ([-1, 2], "from -1 to 2.*classes="),
        ([0, 10**7], "classes="),
        ([0.5, 1.0], "double"),
        (["", ""], "names no class"),
        ([None, None], "no class"),
    ],
)
def test_columns_without_classes(column: list, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        dl.Table.from_columns({"kind": column}).classes("kind")


def test_classes_of_several_in_a_row() -> None:
    table = dl.Table.from_columns({"tags": ["b|a", "", " c | b"], "ids": [[3], [], [1, 0]], "on": [True, False, True]})
    assert table.classes("tags", "|") == ("a", "b", "c")
    assert table.classes("tags") == (" c | b", "b|a")
    assert table.classes("ids") == (0, 1, 2, 3)
    assert table.classes("on") == (0, 1)
