"""Atomic words that several processes change, over several transports, are exact."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

Stand = Any  # conftest.py's

COUNTER = """
import sys
from libd import LibdAction
trans = LibdAction("0", [sys.argv[1]]).get_transport("m")
for i in range(1500):
    trans.fetch_add(0, 3)
    while True:
        seen = trans.fetch_add(8, 0)
        if trans.compare_swap(8, seen, seen + 1) == seen:
            break
"""


@pytest.mark.parametrize("kinds", [["shm", "shm", "tcp"], ["tcp", "tcp", "tcp"], ["shm"] * 3])
def test_processes_count_together(stand: Stand, kinds: list[str]) -> None:
    grant = stand.control.create_element(stand.tenant(), "m", 4096)
    counters = [
        subprocess.Popen([sys.executable, "-c", COUNTER, grant.durl("m", f"rdma_{kind}")])
        for kind in kinds
    ]
    assert [c.wait(100) for c in counters] == [0] * len(kinds)
    trans = stand.open(grant, "tcp")
    assert trans.fetch_add(0, 0) == 3 * 1500 * len(kinds)
    assert trans.fetch_add(8, 0) == 1500 * len(kinds)
