"""Log lines from what an element prints."""

from __future__ import annotations

import re
import sys
import threading
from typing import Any

import pytest

from openwhisk.runtime import Action, LogCapture, run_element


def texts(capture: LogCapture) -> list[str]:
    return [line.split(" ", 1)[1] for line in capture.lines]


def test_lines_carry_time_and_stream() -> None:
    with LogCapture() as capture:
        print("hello")
        print("oh", file=sys.stderr)
    assert texts(capture) == ["stdout: hello", "stderr: oh"]
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
    assert all(re.fullmatch(f"{stamp} .*", line) for line in capture.lines)


def test_lines_are_put_together_and_ended() -> None:
    with LogCapture() as capture:
        print("a", end="")
        print("b\nc\n\nd", end="")
    assert texts(capture) == ["stdout: ab", "stdout: c", "stdout: ", "stdout: d"]


def test_bytes_and_odd_text() -> None:
    with LogCapture() as capture:
        sys.stdout.buffer.write(b"\xff\xe2\x82")
        sys.stdout.buffer.write(b"\xac\n")
        print("\ud800 ä")
    assert texts(capture) == ["stdout: \\xff€", "stdout: \\ud800 ä"]


def test_streams_are_restored_whatever_happens() -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(ZeroDivisionError), LogCapture():
        1 // 0  # noqa: B018
    assert (sys.stdout, sys.stderr) == before


def test_the_limit_is_said_and_the_sink_gets_everything() -> None:
    got: list[tuple[str, str]] = []
    with LogCapture(lambda stream, text: got.append((stream, text)), limit=50) as capture:
        print("12345")
        print("123456")
        print("1")
    assert texts(capture) == ["stdout: 12345", "stderr: … 9 more bytes of logs dropped"]
    assert got == [("stdout", "12345"), ("stdout", "123456"), ("stdout", "1")]


def test_a_line_without_end_is_cut() -> None:
    with LogCapture(limit=1 << 20) as capture:
        sys.stdout.write("x" * 200_000)
    assert sum(len(t) - len("stdout: ") for t in texts(capture)) == 200_000
    assert len(capture.lines) == 4


def test_threads_do_not_tear_lines() -> None:
    with LogCapture() as capture:
        threads = [
            threading.Thread(
                target=lambda i=i: [sys.stdout.write(f"{i}" * 9 + "\n") for _ in range(50)]
            )
            for i in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(capture.lines) == 200
    assert {t.removeprefix("stdout: ") for t in texts(capture)} == {f"{i}" * 9 for i in range(4)}


def test_logs_of_a_failed_run_are_kept(transports: Any) -> None:
    code = "print('loading')\ndef main(p, a):\n    print('running')\n    raise ValueError\n"
    outcome = run_element(code, "main", {}, Action("e", transports))
    assert not outcome.ok
    assert [line.split(" ", 1)[1] for line in outcome.logs] == [
        "stdout: loading",
        "stdout: running",
    ]


def test_empty_lines_count_too() -> None:
    with LogCapture(limit=1000) as capture:
        print("\n" * 10_000, end="")
    assert sum(len(line) + 1 for line in capture.lines) < 1200
    assert "dropped" in capture.lines[-1]


def test_one_long_line_is_cut_in_linear_time() -> None:
    with LogCapture(limit=1 << 30) as capture:
        print("x" * (64 << 20))
    text = "".join(line.partition(": ")[2] for line in capture.lines)
    assert text == "x" * (64 << 20)
