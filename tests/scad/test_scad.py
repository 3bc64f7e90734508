from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from scad import doctor
from scad.cli import main
from scad.doctor import examine

ROOT = Path(__file__).resolve().parents[2]


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ).stdout


def test_importing_costs_nothing() -> None:
    code = "import sys, scad; print(*sorted(sys.modules))"
    loaded = set(python(code).split())
    assert not loaded & {"pyarrow", "duckdb", "datafusion", "numpy", "engine", "libd._core"}


def test_names_are_found_when_used() -> None:
    code = "import scad; print(scad.Session.__module__, scad.ScadError.__name__, dir(scad))"
    out = python(code)
    assert out.startswith("engine")
    assert "ScadError" in out
    assert "RemoteFrame" in out


def test_other_names_do_not_exist() -> None:
    import scad

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        scad.nothing  # noqa: B018


def test_the_doctor_finds_what_the_kernel_says() -> None:
    found = {(f.area, f.name): f for f in examine()}
    assert found["processors", "cores"].value == len(os.sched_getaffinity(0))
    assert found["limits", "locked memory"].value == resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found["memory", "total"].value == total
    assert found["versions", "python"].value == sys.version.split()[0]
    assert found["transports", "rdma_shm"].level == "ok"
    assert found["isolation", "sealed memory files"].level == "ok"
    assert not [f for f in found.values() if f.level == "broken"]


def test_the_doctor_leaves_nothing_open() -> None:
    examine()
    before = set(os.listdir("/proc/self/fd"))
    examine()
    assert set(os.listdir("/proc/self/fd")) == before


def test_the_doctor_says_what_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_seals(*_: object) -> int:
        raise OSError("no memory files today")

    monkeypatch.setattr(os, "memfd_create", no_seals)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "no memory files today" in out
    assert "Scad cannot run here: rdma_shm, sealed memory files" in out


def test_the_doctor_survives_what_it_cannot_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_meminfo() -> dict[str, int]:
        raise PermissionError("/proc is hidden")

    monkeypatch.setattr(doctor, "_meminfo", no_meminfo)
    (finding,) = [f for f in examine() if f.name == "examination"]
    assert finding.area == "memory"
    assert "/proc is hidden" in finding.detail


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_EXTENSIONS", {"libd._absent": "nothing"})
    (finding,) = [f for f in examine() if f.name == "libd._absent"]
    assert finding.level == "broken"
    assert "libd._absent" in finding.detail


def test_doctor_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert {"area", "name", "level", "detail", "value"} == set(findings[0])
    assert {f["area"] for f in findings} >= {"versions", "transports", "memory", "limits", "tpcds"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ([], "required: COMMAND"),
        (["dance"], "invalid choice"),
        (["sql"], "give one query"),
        (["sql", "select 1", "--table", "t"], "'t' is not NAME=PATH"),
        (["sql", "select 1", "--table", "=x"], "not NAME=PATH"),
        (["sql", "select 1", "--format", "xml"], "invalid choice"),
        (["sql", "select 1", "--parallelism", "-2"], "not a positive whole number"),
        (["sql", "select 1", "--compute-memory", "12 XB"], "unknown unit 'XB'"),
        (["sql", "select 1", "--bogus"], "unrecognized arguments: --bogus"),
        (["doctor", "--bogus"], "unrecognized arguments: --bogus"),
        (["serve", "--bogus"], "scad serve: unrecognized arguments: --bogus"),
        (["serve", "--memory", "12 XB"], "unknown unit 'XB'"),
        (["serve", "--cores", "none"], "scad serve: argument --cores: 'none' is not a positive"),
        (["serve", "--port", "99999"], "'99999' is not a port"),
    ],
)
def test_a_wrong_command_line_is_one_clear_line(
    line: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(line)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("scad ")


def test_serve_passes_its_options_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "--port" in out
    assert out.startswith("usage: scad serve ")
