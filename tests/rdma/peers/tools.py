"""What tests with peers have in common."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable
from typing import Any

__all__ = ["LONGEST", "SEED", "SIZE", "SIZES", "pairs", "pattern", "said", "until"]

SIZE = 5 << 20
"""Bytes of the default region; a multiple of the page size."""
SIZES = [1, 3, 8, 4095, 4096, 4097, 65536, 1 << 20, 4 << 20]
SEED = 20261124
LONGEST = 60.0
"""Seconds; under emulation, on a busy machine."""


def pattern(size: int, seed: int = SEED) -> bytes:
    """Bytes that nothing else has."""
    return random.Random(seed).randbytes(size)


def pairs() -> list[dict[str, Any]]:
    """The reliable queue pairs of this machine, whoever has them."""
    said = subprocess.run(
        ["rdma", "-j", "resource", "show", "qp"], capture_output=True, text=True, check=True
    )
    return [pair for pair in json.loads(said.stdout or "[]") if pair.get("type") == "RC"]


def until(true: Callable[[], bool]) -> bool:
    """Wait for something to become true; returns whether it did."""
    deadline = time.monotonic() + LONGEST
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def said(process: subprocess.Popen[str]) -> str:
    """The next line that a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()
