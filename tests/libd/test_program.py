"""One line at a time, with the program's name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from libd.program import Parser

ROOT = Path(__file__).parents[2]


def program(code: str, verbose: bool = False) -> list[str]:
    start = (
        "import logging; from libd.program import show_notices; "
        f"show_notices('python -m prog', verbose={verbose}); log = logging.getLogger('room.part')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", start + code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_notices_are_single_lines_with_a_name() -> None:
    code = "log.info('quiet'); log.warning('it\\ndied'); log.error('no %s', 'good')"
    assert program(code) == ["prog: warning: it died", "prog: error: no good"]
    assert program(code, verbose=True)[0] == "prog: info: quiet"


def test_an_unexpected_exception_keeps_its_traceback() -> None:
    lines = program("try: 1 / 0\nexcept Exception: log.exception('an observer failed')")
    assert lines[0] == "prog: error: an observer failed"
    assert lines[1].startswith("Traceback")
    assert lines[-1] == "ZeroDivisionError: division by zero"


def test_notices_go_where_stderr_is_by_then() -> None:
    code = "import io, sys; sys.stderr = io.StringIO(); log.warning('x'); "
    assert program(code + "sys.__stderr__.write(sys.stderr.getvalue().upper())") == [
        "PROG: WARNING: X"
    ]


def test_a_wrong_command_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="python -m prog")
    parser.add_argument("--number", type=int)
    with pytest.raises(SystemExit) as raised:
        parser.parse_args(["--number", "x"])
    assert raised.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("prog: argument --number: ")
