"""The program end to end, its command line, and what it is held against."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from logistic_regression.program import MAX_COPIES, application
from logistic_regression.run import main
from openwhisk.app import gangs

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "logistic_regression.run", *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [["--parallelism", "1"], ["--parallelism", "3", "--seed", "7"], ["--transport", "tcp"]],
    ids=" ".join,
)
def test_accuracy_is_scikit_learns(arguments: list[str], tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    done = run(*arguments, "--json", str(out))
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert abs(figures["scad"]["accuracy"] - figures["sklearn"]["accuracy"]) <= 0.005
    assert figures["scad"]["test_rows"] == 143
    assert len(figures["scad"]["weights"]) == 31
    assert "scikit-learn" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["figures.json"]


def test_training_copies_form_one_gang_and_the_steps_do_not() -> None:
    found = [set(g.compute) for g in gangs(application(3))]
    assert sorted(found, key=str) == [{"evaluate"}, {"load"}, {"train"}]


def test_the_example_folder_is_the_program() -> None:
    assert (ROOT / "examples" / "logistic_regression" / "train.o.py").samefile(
        ROOT / "logistic_regression" / "elements" / "train.o.py"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--transport", "rdma"], "no active RDMA port"),
        (["--test-size", "2"], "--test-size"),
        (["--parallelism", "0"], "--parallelism"),
        (["--parallelism", str(MAX_COPIES + 1)], str(MAX_COPIES)),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
