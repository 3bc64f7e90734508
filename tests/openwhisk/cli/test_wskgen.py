"""``wskgen``: files to JSON and back, and what it says about mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from openwhisk.app import Application, load_directory
from openwhisk.cli.wskgen import main

ROOT = Path(__file__).parents[3]


def test_there_and_back(example: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out, back = tmp_path / "app.json", tmp_path / "back" / "corunning-2-node"
    assert main(["-o", str(out), str(example)]) == 0
    assert main(["--reverse", "-o", str(back), str(out)]) == 0
    assert main([str(back)]) == 0
    stdout, stderr = capfd.readouterr()
    assert stderr == ""
    assert stdout == out.read_text()
    app = Application.from_json(stdout)
    assert app.name == "corunning-2-node"
    assert app == load_directory(example)
    assert sorted(p.name for p in back.iterdir()) == sorted(p.name for p in example.iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["app.json", "back", "corunning-2-node"]


def test_as_a_module_and_from_a_pipe(example: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "openwhisk.cli.wskgen"]
    made = subprocess.run(
        [*command, "--name", "other", str(example)], cwd=ROOT, capture_output=True, check=True
    )
    assert json.loads(made.stdout)["functions"][0]["name"] == "other"
    back = tmp_path / "back"
    subprocess.run(
        [*command, "--reverse", "-o", str(back), "-"], cwd=ROOT, input=made.stdout, check=True
    )
    assert load_directory(back, "other") == Application.from_json(made.stdout)


def test_check_writes_nothing(
    example: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["--check", str(example)]) == 0
    out = tmp_path / "app.json"
    assert main([str(example), "-o", str(out)]) == 0
    assert main(["--check", str(out)]) == 0
    assert capfd.readouterr() == ("", "")


def test_warnings_and_errors_are_lines_with_places(
    example: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mem = example / "mem1.o.yaml"
    mem.write_text(mem.read_text().replace("  - compute2\n", ""))
    assert main([str(example), "--check"]) == 0
    assert capfd.readouterr().err == (
        f"{example / 'compute2.o.py'}:3: warning: compute2: corunning names mem1, "
        "which does not name compute2 in its corunning; added\n"
    )
    mem.write_text("limits: {mem: 12 XB}\nfoo: 1\n")
    assert main([str(example)]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first.startswith(f"{mem}:1: mem1: limits: mem ")
    assert second == f"{mem}:2: mem1: unknown key 'foo'"


def test_json_with_missing_fields(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "app.json"
    path.write_text('{"functions": [{"name": "x", "objects": [{"name": "c"}]}]}')
    for args in (["--check"], ["--reverse", "-o", str(tmp_path / "out")]):
        assert main([*args, str(path)]) == 1
        lines = capfd.readouterr().err.splitlines()
        assert f"{path}: $.functions[0].objects[0].exec: is missing; it must be an object" in lines
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["gone"], "gone: no such directory"),
        (["--check", "gone.json"], "wskgen: gone.json: cannot be read: No such file"),
        (["--reverse", "-o", "out", "gone.json"], "wskgen: gone.json: cannot be read"),
    ],
)
def test_sources_that_are_not_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    args: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(args) == 1
    err = capfd.readouterr().err
    assert err.startswith(message)
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written(
    example: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "no" / "app.json"
    assert main([str(example), "-o", str(out)]) == 1
    assert (
        capfd.readouterr().err == f"wskgen: {out}: cannot be written: No such file or directory\n"
    )
    (tmp_path / "is-a-directory").mkdir()
    assert main([str(example), "-o", str(tmp_path / "is-a-directory")]) == 1
    assert "cannot be written: Is a directory" in capfd.readouterr().err
    leftovers = [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]
    assert leftovers == []


@pytest.mark.parametrize(
    "args", [[], ["x", "y"], ["--reverse", "x"], ["--check", "-o", "y", "x"], ["--what", "x"]]
)
def test_wrong_usage(args: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code == 2
    assert "usage: wskgen" in capfd.readouterr().err


def test_a_reader_that_went_away_is_no_error(element: Callable[..., Path], tmp_path: Path) -> None:
    element("X = '" + "x" * 500_000 + "'\ndef main(p, a): return {}\n", "big.o.py")
    script = f"{sys.executable} -m openwhisk.cli.wskgen --name x {tmp_path} | head -c 10"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script], cwd=ROOT, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
