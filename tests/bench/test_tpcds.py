"""`python -m bench tpcds` at a tiny scale: engines, baselines, the command."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.__main__ import main
from bench.tpcds.contestants import BASELINES, baseline, rotated, scad
from bench.tpcds.function import LIMITS, DuckdbFunction, LimitCache
from bench.tpcds.measure import Checker
from bench.tpcds.scad_engine import reserved_parts
from openwhisk.api import Usage
from tpcds.data import DataSet, ensure
from tpcds.oracle import Oracle
from tpcds.queries import query_text

MIB = 1 << 20
needs_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="apt-get install redis-server"
)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench-cache")


@pytest.fixture
def small(cache: Path, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """TPC-DS at scale factor 0.01, in a cache of the tests' own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return ensure(0.01)


def files(data: DataSet) -> dict[str, list[str]]:
    return {table: [str(path) for path in paths] for table, paths in data.tables.items()}


# One function


def limited(data: DataSet, cache: Path) -> DuckdbFunction:
    function = DuckdbFunction(files(data), 2, "small", str(cache))
    function.load()
    return function


def test_a_function_finds_the_smallest_limit_and_keeps_it(small: DataSet, tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    function = limited(small, path)
    answer = function.prepare(3, query_text(3))()
    figures = function.figures()
    assert answer.num_rows >= 0
    assert figures["reserved_bytes"] == LIMITS[0]
    assert figures["gb_s"]["function"] == pytest.approx(LIMITS[0] * figures["seconds"] / 1e9)
    assert figures["core_s"] == pytest.approx(2 * figures["seconds"])
    # The process is larger than DuckDB's buffers, and its size a power of two.
    whole = figures["process_gb_s"] / figures["seconds"] * 1e9
    assert whole == pytest.approx(2 ** round(math.log2(whole)))
    assert whole >= figures["peak_bytes"] > whole / 2 or whole == LIMITS[0]
    (kept,) = json.loads(path.read_text()).values()
    assert kept == {"3": LIMITS[0]}
    function.close()


def test_a_limit_is_as_large_as_the_query_needs(small: DataSet, tmp_path: Path) -> None:
    function = limited(small, tmp_path / "limits.json")
    sql = "select count(distinct (i, i * 7)) from range(3000000) t(i)"
    function.prepare(1, sql)()
    found = function.figures()["reserved_bytes"]
    assert found > LIMITS[0]
    function._set(found // 4)
    with pytest.raises(duckdb.OutOfMemoryException):
        function._run(sql)
    function.close()


def test_a_kept_limit_that_is_too_small_grows(small: DataSet, tmp_path: Path) -> None:
    limits = LimitCache("small", 2, tmp_path / "limits.json")
    limits.put(1, LIMITS[0])
    function = limited(small, tmp_path / "limits.json")
    function.prepare(1, "select count(distinct (i, i * 7)) from range(3000000) t(i)")()
    found = function.figures()["reserved_bytes"]
    assert found > LIMITS[0]
    assert limits.get(1) == found
    function.close()


def test_a_kept_limit_that_is_larger_than_needed_shrinks(small: DataSet, tmp_path: Path) -> None:
    limits = LimitCache("small", 2, tmp_path / "limits.json")
    limits.put(3, LIMITS[2])
    function = limited(small, tmp_path / "limits.json")
    function.prepare(3, query_text(3))()
    assert function.figures()["reserved_bytes"] == LIMITS[1] == limits.get(3)
    function.prepare(3, query_text(3))()
    assert function.figures()["reserved_bytes"] == LIMITS[0] == limits.get(3)
    function.close()


def test_what_is_held_is_not_reserved_once_more() -> None:
    usage = Usage(compute_gb_s=1.0, memory_gb_s=0.5, held_gb_s=0.75, warm_gb_s=0.25)
    assert reserved_parts(usage) == {"compute": 1.0, "memory": 0.5, "warm": 0.25}


@pytest.mark.parametrize("text", ["", "[]", "null", '{"x": {"1": 5}}'])
def test_a_damaged_cache_is_no_cache(text: str, tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    path.write_text(text)
    limits = LimitCache("small", 2, path)
    assert limits.get(1) is None
    if text != "[]":
        limits.put(1, LIMITS[2])
        assert LimitCache("small", 2, path).get(1) == LIMITS[2]
        assert LimitCache("small", 4, path).get(1) is None


# Functions with Redis

redis = pytest.importorskip("redis")


class Store:
    """As much of Redis as exchanges need."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def set(self, key: str, value: Any) -> None:
        self.values[key] = bytes(value)

    def get(self, key: str) -> bytes:
        return self.values[key]


class Copy:
    """As much of an action as reading needs."""

    def __init__(self, index: int) -> None:
        self.index = index


COLUMNS = st.integers(0, 60).flatmap(
    lambda rows: st.tuples(
        *(
            st.lists(st.none() | values, min_size=rows, max_size=rows)
            for values in (
                st.integers(-3, 3),
                st.text(max_size=5),
                st.booleans(),
                st.decimals(-99, 99, places=2),
            )
        )
    )
)


@settings(deadline=None)
@given(COLUMNS, st.integers(1, 5))
def test_exchanges_through_redis_keep_every_row(
    columns: tuple[list[Any], ...], partitions: int
) -> None:
    from bench.tpcds.functions import RedisExchanges, RedisTransport

    types = [pa.int64(), pa.string(), pa.bool_(), pa.decimal64(9, 2)]
    arrays = [pa.array(c, t) for c, t in zip(columns, types, strict=True)]
    table = pa.table([*arrays, pa.nulls(len(arrays[0]))], names=["k", "s", "b", "d", "n"])
    exchanges = RedisExchanges(Store())
    batches = table.to_batches(max_chunksize=7)

    def reader() -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(table.schema, batches)

    transport = RedisTransport("x1")
    handle = json.loads(json.dumps(exchanges.exchange(reader(), transport, [0], partitions)))
    parts = [exchanges.read_part([handle], Copy(n)) for n in range(partitions)]
    assert sorted(map(repr, pa.concat_tables(parts).to_pylist())) == sorted(
        map(repr, table.to_pylist())
    )
    keys = [set(part["k"].to_pylist()) for part in parts]
    assert sum(map(len, keys)) == len(set().union(*keys))
    frame = exchanges.write(reader(), transport)
    assert exchanges.read_all([frame, handle], Copy(0)).num_rows == 2 * table.num_rows
    assert exchanges.read_own([frame], Copy(0)).to_pylist() == table.to_pylist()
    assert exchanges.read_own([frame], Copy(1)).num_rows == 0
    assert exchanges.read_all([frame], Copy(0), ["s", "k"]).column_names == ["s", "k"]


@needs_redis
def test_the_pipeline_answers_as_duckdb_does(small: DataSet) -> None:
    settings = {"parallelism": 2, "compute_memory": 1 << 30}
    with (
        Oracle(small.tables, 2) as oracle,
        baseline("pipeline", small, 2, settings).start() as pipeline,
    ):
        checker = Checker(oracle)
        for number in (3, 16, 51, 95):
            outcome = pipeline.run(number, query_text(number), limit=90, fetch=True)
            assert outcome.error is None
            assert outcome.table is not None
            assert checker.difference(number, outcome.table) is None
            figures = outcome.figures
            assert figures["reserved_bytes"] >= figures["peak_bytes"] > MIB
            assert figures["core_s"] > 0
            assert figures["gb_s"]["functions"] > 0
            assert figures["gb_s"]["redis"] > 0


@needs_redis
def test_a_function_that_needs_more_memory_gets_more(
    small: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.tpcds.pipeline import Pipeline

    # A worker alone holds more than this.
    pipeline = Pipeline(files(small), 1, {"parallelism": 1})
    monkeypatch.setattr(pipeline, "_limit", lambda number, element: grown(number, element))

    def grown(number: int, element: Any) -> int:
        return pipeline._limits.get((number, element.name), 16 * MIB)

    pipeline.load()
    try:
        assert pipeline.prepare(3, query_text(3))().num_rows >= 0
        assert pipeline.figures()["reserved_bytes"] > 16 * MIB
    finally:
        pipeline.close()


def test_there_is_a_contestant_for_every_baseline(small: DataSet) -> None:
    for name in BASELINES:
        if name != "pipeline" or shutil.which("redis-server"):
            assert baseline(name, small, 2, {}).role == "baseline"


# The whole


def test_turns_begin_with_everybody() -> None:
    class Named:
        def __init__(self, key: str) -> None:
            self.key = key

    three: list[Any] = [Named("a"), Named("b"), Named("c")]
    firsts = [[c.key for c in rotated(three, n)] for n in range(3)]
    assert firsts == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]]


def test_scad_says_what_it_reserved(small: DataSet) -> None:
    with scad(small, {"parallelism": 1}).start() as process:
        figures: Mapping[str, Any] = process.run(3, query_text(3)).figures
    assert {"compute", "memory", "warm"} <= set(figures["gb_s"])
    assert figures["gb_s"]["compute"] > 0
    assert figures["peak_bytes"] > MIB


def test_the_command_measures_and_shows_again(
    small: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["tpcds", "--sf", "0.01", "--rounds", "1", "--peers", "duckdb,polars"]
    outs = [tmp_path / "a.json", tmp_path / "b.json"]
    for out, queries in zip(outs, ("3", "96"), strict=True):
        argv = [*arguments, "--queries", queries, "--baselines", "function", "--json", str(out)]
        assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "q3" in printed
    assert "one function" in printed
    both = tmp_path / "both.json"
    argv = ["tpcds", "--from", *map(str, outs), "--json", str(both)]
    if shutil.which("redis-server"):
        argv += ["--targets"]
    # The targets that this run says something about may be missed: it is tiny.
    assert main(argv) in (0, 1)
    found = json.loads(both.read_text())
    assert list(found["passes"]["cold"]["queries"]) == ["3", "96"]
    for cells in found["passes"]["cold"]["queries"].values():
        assert set(cells) == {"scad", "duckdb", "polars", "function"}
        for cell in cells.values():
            assert len(cell["seconds"]) == 1
            assert cell["error"] is None
            assert cell["wrong"] is None
    assert found["summary"]["cold"]["common_queries"] == [3, 96]


def test_peers_alone_one_at_a_time_in_memory(small: DataSet, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    argv = [
        "tpcds", "--sf", "0.01", "--queries", "3", "--rounds", "2", "--no-scad", "--apart",
        "--passes", "resident", "--json", str(out),
    ]  # fmt: skip
    assert main(argv) == 0
    one = json.loads(out.read_text())["passes"]["resident"]
    assert list(one["engines"]) == ["duckdb-native", "polars-native"]
    assert all(len(cell["seconds"]) == 2 for cell in one["queries"]["3"].values())
    assert one["engines"]["duckdb-native"]["load_seconds"] > 0


def test_bars_are_drawn(small: DataSet, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    argv = [
        "tpcds", "--sf", "0.01", "--queries", "3", "--rounds", "1", "--no-scad",
        "--plots", str(tmp_path / "figures"),
    ]  # fmt: skip
    assert main(argv) == 0
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {
        "tpcds-cold.png",
        "tpcds-cold.svg",
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--passes", "warm"], "no such pass: warm"),
        (["--peers", "spark"], "no peer 'spark'"),
        (["--baselines", "lambda"], "no such baseline: lambda"),
        (["--queries", "100"], "no TPC-DS query 100"),
        (["--limit", "0"], "--limit must be positive"),
        (["--compute-memory", "much"], "much"),
        (["--json", "/no/such/folder/x.json"], "does not exist"),
    ],
)
def test_a_wrong_command_line_is_one_clear_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["tpcds", *arguments])
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


def test_a_baseline_without_its_server_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(SystemExit) as caught:
        main(["tpcds", "--baselines", "pipeline"])
    assert caught.value.code == 2
    assert "apt-get install redis-server" in capsys.readouterr().err
