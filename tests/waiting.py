"""Waiting for what other processes and threads bring about; how fast does not matter."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

__all__ = ["eventually", "until"]

PATIENCE = 30.0


def eventually(condition: Callable[[], Any], patience: float = PATIENCE) -> bool:
    """Whether something comes to pass within so many seconds."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def until(condition: Callable[[], Any], patience: float = PATIENCE) -> None:
    """Wait for what must come to pass."""
    assert eventually(condition, patience), "it never came to pass"
