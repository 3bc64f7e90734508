"""What /proc says of processes."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["anonymous_bytes"]

_PAGE = os.sysconf("SC_PAGE_SIZE")


def anonymous_bytes(pid: int) -> int:
    """Anonymous memory of a process (RssAnon) in bytes; 0 if it is gone."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):
        return 0
    return max(0, int(resident) - int(shared)) * _PAGE
