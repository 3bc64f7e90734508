from __future__ import annotations

from pathlib import Path

import pytest

from tpcds.options import parse_arguments


def test_defaults() -> None:
    options = parse_arguments([])
    assert options.sf is None
    assert options.queries == list(range(1, 100))
    assert options.verify
    assert options.generator == "auto"
    assert options.transport == "auto"
    assert options.compute_memory is None


def test_every_flag() -> None:
    line = (
        "--sf 10 --queries 1,16,90-91 --generator tpcgen --no-verify --parallelism 3 "
        "--compute-memory 1.5GB --transport tcp --apihost http://host:3233 --explain 7 "
        "--emit out --report pages --json figures.json -v"
    )
    options = parse_arguments(line.split())
    assert options.sf == 10
    assert options.queries == [1, 16, 90, 91]
    assert options.generator == "tpcgen"
    assert not options.verify
    assert options.parallelism == 3
    assert options.compute_memory == 3 << 29
    assert options.transport == "tcp"
    assert options.apihost == "http://host:3233"
    assert options.explain == [7]
    assert options.analyze == []
    assert options.emit == Path("out")
    assert options.report == Path("pages")
    assert options.json == Path("figures.json")
    assert options.verbose


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["--queries", "0"], "no TPC-DS query 0"),
        (["--queries", "1-200"], "no TPC-DS query 200"),
        (["--queries", "one"], "'one'"),
        (["--explain", "q"], "'q'"),
        (["--explain-analyze", "0"], "no TPC-DS query 0"),
        (["--explain", "1", "--explain-analyze", "2"], "not both"),
        (["--compute-memory", "12 XB"], "unknown unit 'XB'"),
        (["--compute-memory", "-1"], "not a size"),
        (["--compute-memory", "0"], "cannot be 0"),
        (["--compute-memory", "much"], "not a size"),
        (["--parallelism", "0"], "not a positive whole number"),
        (["--parallelism", "two"], "not a positive whole number"),
        (["--sf", "0"], "positive"),
        (["--sf", "big"], "invalid float value"),
        (["--sf", "nan"], "positive"),
        (["--sf", "1.5"], "whole scale factors"),
        (["--sf", "0.1", "--generator", "tpcgen"], "whole scale factors"),
        (["--generator", "dbgen"], "invalid choice"),
        (["--transport", "ucx"], "invalid choice"),
        (["--transport", "rdma"], "no active RDMA port"),
        (["--policy", "fine"], "disaggregate"),
        (["--policy=fine"], "disaggregate"),
        (["--resident"], "expected one argument"),
        (["--resident", "0"], "cannot be 0"),
        (["--resident", "much"], "not a size"),
        (["--passes", "0"], "not a positive whole number"),
        (["--compare", "duckdb,spark"], "there is no peer 'spark'"),
        (["--data", "d", "--generator", "dsdgen"], "does not go with --data"),
        (["--json", "/no/such/folder/x.json"], "does not exist"),
        (["--querys", "1"], "unrecognized arguments"),
        (["1"], "unrecognized arguments"),
    ],
)
def test_a_wrong_command_line_is_one_clear_line(
    line: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments(line)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1
    assert err.startswith("tpcds.run: ")


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "--queries 1,16,90-95" in out
    assert "exit status" in out
    assert "--policy" in out
