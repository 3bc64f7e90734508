"""The command as people run it: a process, real workers, real memory elements."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tpcds.data import MANIFEST, DataSet

REQUIRED = [1, 3, 16, 42, 94, 95, 97]
FIGURES = [
    "seconds",
    "stages",
    "elements",
    "peak_compute_bytes",
    "peak_anon_bytes",
    "compute_gb_s",
    "core_s",
]


@pytest.fixture
def mark() -> str:
    """Stands in the environment of every process that a test starts, directly or not."""
    return f"SCAD_TEST_MARK={uuid.uuid4().hex}"


@pytest.fixture
def survivors(mark: str, eventually: Any) -> Callable[[], list[str]]:
    """Command lines of what is left of a test's processes, after a while."""

    def alive() -> list[str]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found

    def find() -> list[str]:
        eventually(lambda: not alive())
        return alive()

    return find


@pytest.fixture
def launch(
    environment: dict[str, str], small: DataSet, mark: str, survivors: Any, tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``python -m tpcds.run --sf 0.01 …`` as leader of a process group of its own."""
    name, _, value = mark.partition("=")
    groups: list[subprocess.Popen[str]] = []

    def start(*arguments: str, module: str = "tpcds.run", **extra: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, name: value, **extra},
            start_new_session=True,
            cwd=tmp_path,
        )
        groups.append(process)
        return process

    yield start
    for process in groups:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert survivors() == []


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=110)
    return process.returncode, out, err


def queries(numbers: list[int]) -> list[str]:
    return ["--sf", "0.01", "--queries", ",".join(map(str, numbers))]


def test_the_required_queries_run_split_and_match(launch: Any, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    status, out, err = finish(launch(*queries(REQUIRED), "--parallelism", "2", "--json", str(path)))
    assert (status, err) == (0, ""), out
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines[: len(REQUIRED)]] == [
        [f"q{number}", "verified"] for number in REQUIRED
    ]
    assert lines[-1].startswith("7 of 7 verified")
    found = json.loads(path.read_text())
    assert found["sf"] == 0.01
    assert found["generator"] == "dsdgen"
    assert found["totals"]["verified"] == found["totals"]["asked"] == 7
    assert list(found["queries"]) == [str(number) for number in REQUIRED]
    for record in found["queries"].values():
        assert record["verified"] is True
        assert record["elements"] > record["stages"] > 1
        assert all(record[name] > 0 for name in FIGURES)
        assert record["peers"]["duckdb"]["answers"] == "same"
        assert record["error"] is None
        # Nothing is left in memory elements by a query of no rows; the key is there all the same.
        assert record["peak_memory_bytes"] >= 0
        assert record["memory_gb_s"] >= 0
    assert found["totals"]["peak_memory_bytes"] > 0
    assert found["totals"]["memory_gb_s"] > 0


def test_further_engines_stand_beside(launch: Any, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    line = [*queries([2, 96]), "--compare", "duckdb,polars", "--json", str(path)]
    status, out, err = finish(launch(*line))
    assert (status, err) == (0, ""), out
    for printed in out.splitlines():
        assert "DuckDB " in printed
        assert "Polars " in printed
    found = json.loads(path.read_text())
    for record in found["queries"].values():
        assert set(record["peers"]) == {"duckdb", "polars"}
        assert all(peer["answers"] == "same" for peer in record["peers"].values())
        assert all(peer["seconds"] > 0 for peer in record["peers"].values())
    assert found["totals"]["peers"]["polars"]["queries"] == 2


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_either_transport(launch: Any, transport: str, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    parted = ("--parallelism", "2", "--transport", transport)
    status, out, err = finish(launch(*queries([3, 95]), *parted, "--json", str(path)))
    assert (status, err) == (0, ""), out
    assert "2 of 2 verified" in out
    record = json.loads(path.read_text())["queries"]["95"]
    if transport == "tcp":  # nothing can be mapped there: what is exchanged is copied
        assert record["bytes_written"] > 0
        assert record["bytes_read"] > 0


def test_a_control_plane_that_runs_already(launch: Any, tmp_path: Path) -> None:
    state = tmp_path / "state"
    server = launch("--port", "0", "--json", "--state", str(state), module="openwhisk")
    said = json.loads(server.stdout.readline())
    run = launch(*queries([16]), "--apihost", said["url"], SCAD_AUTH=said["auth"])
    status, out, err = finish(run)
    assert (status, err) == (0, ""), out
    assert "1 of 1 verified" in out
    server.send_signal(signal.SIGTERM)
    finish(server)


def test_explain_shows_stages_and_runs_nothing(launch: Any) -> None:
    status, out, err = finish(launch("--sf", "0.01", "--explain", "95"))
    assert (status, err) == (0, "")
    assert out.startswith("q95: ")
    assert "web_sales" in out
    assert "verified" not in out


def test_explain_analyze_runs_a_query_and_shows_both_figures(launch: Any, tmp_path: Path) -> None:
    status, out, err = finish(launch("--sf", "0.01", "--explain-analyze", "95"))
    assert (status, err) == (0, "")
    assert out.startswith("q95: ")
    assert "q-error" in out
    path = tmp_path / "profile.json"
    status, out, err = finish(launch("--sf", "0.01", "--explain", "3,95", "--json", str(path)))
    assert (status, out, err) == (0, "", "")
    assert [p["name"] for p in json.loads(path.read_text())] == ["q3", "q95"]


def test_a_report_has_a_page_per_query(launch: Any, tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    status, out, err = finish(launch(*queries([1, 95]), "--report", str(pages)))
    assert (status, err) == (0, ""), out
    index = (pages / "index.html").read_text()
    for name in ("q1", "q95"):
        assert f'href="{name}.html"' in index
        assert "</svg>" in (pages / f"{name}.html").read_text()
        assert (pages / f"{name}.timeline.svg").stat().st_size > 0
    assert "DuckDB" in index


def test_unverified_and_emitted_elements_are_an_application(
    launch: Any, environment: dict[str, str], tmp_path: Path
) -> None:
    target, path = tmp_path / "elements", tmp_path / "figures.json"
    status, out, err = finish(
        launch(*queries([3]), "--no-verify", "--emit", str(target), "--json", str(path))
    )
    assert (status, err) == (0, ""), out
    assert "1 of 1 ran" in out
    record = json.loads(path.read_text())["queries"]["3"]
    assert record["verified"] is None
    assert record["peers"] == {}
    assert [path.name for path in target.iterdir()] == ["q03"]
    assert list((target / "q03").glob("*.o.py"))
    assert list((target / "q03").glob("*.o.yaml"))
    generated = subprocess.run(
        [sys.executable, "-m", "openwhisk.cli.wskgen", "-o", "app.json", str(target / "q03")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert generated.returncode == 0, generated.stderr
    assert json.loads((tmp_path / "app.json").read_text())["functions"]


def test_ctrl_c_is_one_line_and_leaves_nothing(launch: Any, survivors: Any) -> None:
    process = launch(*queries(REQUIRED))
    assert process.stdout.readline().startswith("q1")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    status, _, err = finish(process)
    assert (status, err) == (130, "tpcds.run: interrupted\n")
    assert survivors() == []


@pytest.mark.slow
def test_sigterm_leaves_nothing(launch: Any, survivors: Any) -> None:
    process = launch(*queries(REQUIRED))
    assert process.stdout.readline().startswith("q1")
    process.send_signal(signal.SIGTERM)
    status, _, err = finish(process)
    assert (status, err) == (143, "")
    assert survivors() == []


def test_sigkill_leaves_nothing(launch: Any, survivors: Any) -> None:
    process = launch(*queries(REQUIRED))
    assert process.stdout.readline().startswith("q1")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert survivors() == []


@pytest.fixture
def foreign(small: DataSet, tmp_path: Path) -> Path:
    target = tmp_path / "foreign"
    shutil.copytree(small.directory, target)
    (target / MANIFEST).unlink()
    return target


def test_data_that_is_somewhere_else(launch: Any, foreign: Path) -> None:
    status, out, err = finish(launch("--data", str(foreign), "--queries", "42"))
    assert (status, err) == (0, ""), out


def test_bad_data_and_settings_are_one_line(launch: Any, foreign: Path) -> None:
    (foreign / "item.parquet").write_bytes(b"PAR1 no more")
    cases = {
        ("--data", str(foreign)): "item.parquet is not a readable Parquet file",
        ("--data", "nowhere"): "nowhere does not exist",
        ("--sf", "0.01", "--compute-memory", "1MB"): "compute_memory",
        ("--sf", "0.01", "--apihost", "http://127.0.0.1:9"): "127.0.0.1",
    }
    for arguments, says in cases.items():
        status, out, err = finish(launch(*arguments, "--queries", "3", SCAD_AUTH="user:key"))
        assert (status, out) == (1, ""), arguments
        assert says in err
        assert err.count("\n") == 1
