"""The main job, run in the ways that the manual names."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

VERIFIED = ["--queries", "1,16,95"]


@pytest.mark.parametrize("transport", [pytest.param("auto", marks=pytest.mark.slow), "tcp"])
def test_verified_and_nothing_left(world: Any, transport: str) -> None:
    status, out, err = world.finish(world.tpcds(*VERIFIED, "--transport", transport))
    assert (status, err) == (0, ""), out
    assert "3 of 3 verified" in out


def test_a_control_plane_started_by_hand(world: Any) -> None:
    server, url = world.serve()
    assert (world.folder / "state" / "scad" / "auth").stat().st_mode & 0o777 == 0o600
    figures = world.folder / "figures.json"
    status, out, err = world.finish(
        world.tpcds("--queries", "16,94", "--apihost", url, "--json", str(figures))
    )
    assert (status, err) == (0, ""), out
    assert "2 of 2 verified" in out
    assert json.loads(figures.read_text())["totals"]["verified"] == 2
    server.send_signal(signal.SIGTERM)
    status, _, err = world.finish(server)
    assert (status, err) == (0, "")


@pytest.mark.slow
def test_a_stale_key_of_another_control_plane_is_not_needed(world: Any) -> None:
    """The environment's key goes before the stored one."""
    server, url = world.serve()
    stored = world.folder / "state" / "scad" / "auth"
    key = stored.read_text().strip()
    stored.write_text("nobody:nothing\n")
    status, out, err = world.finish(world.tpcds("--queries", "42", "--apihost", url, SCAD_AUTH=key))
    assert (status, err) == (0, ""), out
    world.interrupt(server)
    assert world.finish(server).status == 130


@pytest.mark.slow
def test_data_is_generated_once(world: Any) -> None:
    own = world.folder / "cache"
    command = ["--queries", "96", "--no-verify"]
    first = world.finish(world.tpcds(*command, XDG_CACHE_HOME=str(own)))
    assert first.status == 0, first
    files = {p: p.stat().st_mtime_ns for p in own.rglob("*.parquet")}
    assert len(files) == 24
    assert not list(own.rglob(".tmp-*"))
    second = world.finish(world.tpcds(*command, XDG_CACHE_HOME=str(own)))
    assert second.status == 0, second
    assert {p: p.stat().st_mtime_ns for p in own.rglob("*.parquet")} == files


@pytest.mark.parametrize("width", [80, 112, 200])
def test_the_table_fits_the_terminal(width: int) -> None:
    """Nothing is cut and a query is one line, also where the window is as wide as ever."""
    import io

    from rich.console import Console

    from tpcds.display import LiveTable
    from tpcds.record import Peer, QueryRecord

    said = io.StringIO()
    console = Console(file=said, force_terminal=True, width=width, height=30)
    record = QueryRecord(
        95,
        seconds=123.456,
        verified=True,
        stages=20,
        elements=12,
        bytes_written=999_999_999_999,
        peak_memory_bytes=999_999_999,
        peak_anon_bytes=999_999_999_999,
        peers={"duckdb": Peer(1.234, 2, "same")},
    )
    with LiveTable(console, 99) as table:
        table.finish(record)
    whole = said.getvalue().rpartition("┏")[2]
    assert "…" not in whole
    assert whole.count("q95") == 1
    assert sum(line.startswith("│") for line in whole.splitlines()) == 1
