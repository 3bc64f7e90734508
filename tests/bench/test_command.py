"""`python -m bench`: every suite runs, and writes rows and figures."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from bench.__main__ import SUITES, main
from bench.harness import Row
from bench.report import tables, write_json
from bench.verbs import rdma_devices

FIELDS = {
    "table", "name", "x", "unit", "ours", "peer_name", "peer", "ratio", "target", "met", "spread",
}  # fmt: skip
QUICK = ["--quick", "--rounds", "3", "--round-ms", "0.1", "--peers", "copyto,socket"]


@pytest.mark.parametrize(
    "suite", [pytest.param(s, marks=pytest.mark.slow) if s == "dag" else s for s in SUITES]
)
def test_suites_run_and_write_rows(suite: str, tmp_path: Path) -> None:
    if suite == "verbs" and not rdma_devices():
        pytest.skip("no RDMA device here: python -m tests.rdma.guest -- python -m bench verbs")
    out = tmp_path / "rows.json"
    assert main([suite, *QUICK, "--json", str(out)]) in (0, 1)
    rows = json.loads(out.read_text())
    assert rows
    assert all(set(row) == FIELDS for row in rows)
    assert all(row["ours"] > 0 for row in rows)
    assert len({(row["table"], row["name"], row["peer_name"]) for row in rows}) == len(rows)


@pytest.mark.skipif(bool(rdma_devices()), reason="there is an RDMA device here")
def test_without_a_device_verbs_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verbs", *QUICK]) == 1
    assert "no RDMA device here" in capsys.readouterr().err


def test_targets_alone(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    main(["tcp", "map", *QUICK, "--targets", "--json", str(out)])
    rows = json.loads(out.read_text())
    assert len(rows) >= 3
    assert all(row["target"] and row["met"] is not None for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tcp", "--rounds", "2"], "--rounds"),
        (["tcp", "--peers", "nobody"], "no such peer: nobody"),
        (["tcp", "--cpus", "0"], "--cpus"),
        (["tcp", "--cpus", "0:100000"], "--cpus"),
        (["nothing"], "invalid choice"),
    ],
)
def test_bad_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def row(table: str, x: float | None, peer: float | None = 2.0, target: str = "") -> Row:
    return Row(table, "case", x, "us", 1.0, "peer", peer, peer and 0.5, target, None, peer and 0.1)


def test_tables_keep_their_order() -> None:
    rows = [row("b", 1.0), row("a", 1.0), row("b", 2.0)]
    assert [(name, len(some)) for name, some in tables(rows).items()] == [("b", 2), ("a", 1)]


def test_rows_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    out.write_text("before")
    with pytest.raises(TypeError):
        write_json(out, [row(object(), 1.0)])  # type: ignore[arg-type]
    assert out.read_text() == "before"
    assert list(tmp_path.iterdir()) == [out]


def test_a_figure_for_each_table(tmp_path: Path) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("matplotlib is not installed: pip install 'scad[bench]'")
    from bench.plots import write_plots

    rows = [
        *(row("over sizes", x, target="<= 1 x peer") for x in (8.0, 4096.0)),
        row("pairs", None),
        row("alone", None, peer=None),
    ]
    written = write_plots(tmp_path / "figures", rows)
    assert [path.name for path in written] == [
        f"{name}.{kind}" for name in ("over-sizes", "pairs", "alone") for kind in ("png", "svg")
    ]
    assert all(path.stat().st_size > 1000 for path in written)
