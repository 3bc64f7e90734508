from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[3]


@contextmanager
def _memory_server(*args: str) -> Iterator[int]:
    command = [sys.executable, "-m", "libd.memory_server", "0", "--size", "1MB", *args]
    server = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        line = server.stderr.readline()
        yield int(line.rpartition(":")[2])
    finally:
        server.terminate()
        server.communicate(timeout=20)


@pytest.fixture
def start_memory_server() -> Callable[..., object]:
    """Return a context manager that starts a memory server and yields its port."""
    return _memory_server


@pytest.fixture
def memory_port() -> Iterator[int]:
    with _memory_server() as port:
        yield port


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of the two-node example, so that runs leave nothing in the sources."""
    target = tmp_path / "corunning-2-node"
    target.mkdir()
    for file in (ROOT / "examples" / "corunning-2-node").glob("*.o.*"):
        (target / file.name).write_text(file.read_text())
    return target


@pytest.fixture
def element(tmp_path: Path) -> Callable[..., Path]:
    """Write one element file and return its path."""

    def write(text: str, name: str = "e.o.py") -> Path:
        path = tmp_path / name
        path.write_text(dedent(text))
        return path

    return write
