from __future__ import annotations

import csv
import datetime
import io
import json
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import EngineError
from engine.output import write, write_binary

TABLE = pa.table(
    {
        "n": pa.array([1, None], pa.int32()),
        "money": pa.array(
            [Decimal("10000000000000000.05"), Decimal("-0.10")], pa.decimal128(38, 2)
        ),
        "text": pa.array(['say "hi", all', ""]),
        "when": pa.array([datetime.date(2000, 2, 29), None]),
        "x": pa.array([0.1, float("nan")]),
        "flag": pa.array([True, None]),
    }
)


def written(table: pa.Table, form: str) -> str:
    out = io.StringIO()
    write(table, form, out)
    return out.getvalue()


def test_a_table_is_aligned_and_whole() -> None:
    lines = written(TABLE, "table").splitlines()
    assert lines[0].split() == ["n", "money", "text", "when", "x", "flag"]
    assert lines[2].startswith('   1  10000000000000000.05  say "hi", all  2000-02-29  0.1  true')
    assert lines[3].startswith("NULL                 -0.10")
    assert lines[-1] == "(2 rows)"
    assert lines[2].index("2000-02-29") == lines[3].index("NULL", 10)


def test_a_table_of_no_rows() -> None:
    lines = written(TABLE.slice(0, 0), "table").splitlines()
    assert lines[-1] == "(0 rows)"
    assert written(TABLE.slice(0, 0), "json") == "[]\n"
    assert written(TABLE.slice(0, 0), "csv") == "n,money,text,when,x,flag\n"


def test_a_value_of_many_lines_is_one_line() -> None:
    assert len(written(pa.table({"s": ["a\nb"]}), "table").splitlines()) == 4


def test_json_keeps_every_digit() -> None:
    text = written(TABLE, "json")
    first, second = json.loads(text, parse_float=Decimal)
    assert first == {
        "n": 1,
        "money": Decimal("10000000000000000.05"),
        "text": 'say "hi", all',
        "when": "2000-02-29",
        "x": Decimal("0.1"),
        "flag": True,
    }
    assert second["n"] is second["when"] is second["x"] is second["flag"] is None
    assert second["text"] == ""


def test_csv_tells_null_from_empty() -> None:
    lines = written(TABLE, "csv").splitlines()
    assert lines[1] == '1,10000000000000000.05,"say ""hi"", all",2000-02-29,0.1,true'
    assert lines[2] == ',-0.10,"",,nan,'


@pytest.mark.parametrize("form", ["json", "csv"])
@given(rows=st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.text()), max_size=5))
def test_what_is_written_can_be_read(form: str, rows: list[tuple[int, str]]) -> None:
    table = pa.table(
        {
            "n": pa.array([n for n, _ in rows], pa.int64()),
            'a "name"': pa.array([s for _, s in rows], pa.string()),
        }
    )
    text = written(table, form)
    if form == "json":
        read = [tuple(row.values()) for row in json.loads(text)]
    else:
        parsed = list(csv.reader(io.StringIO(text, newline="")))[1:]
        read = [(int(n), s) for n, s in parsed]
    assert read == rows


def test_parquet_has_no_intervals() -> None:
    spans = pa.table({"span": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})
    with pytest.raises(EngineError, match="'span'"):
        write_binary(spans, "parquet", io.BytesIO())
