"""A memory server started as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["by_hand"]

ROOT = Path(__file__).parents[2]


@contextmanager
def by_hand(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start ``memory_server`` with these arguments; gives the process and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "libd.memory_server", *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "serving" in line, line
        yield process, line.split(" at ")[1].split()[0]
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
