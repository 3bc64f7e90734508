"""The example of libd by itself does what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_far_memory() -> None:
    done = subprocess.run(
        [sys.executable, "examples/far_memory.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "auto chose rdma_shm; the other is rdma_tcp"
    assert lines[1:5] == [
        f"seen through the map: {(1 << 20) * ((1 << 20) - 1) // 2}",
        "bytes of the batch: 512 right: True",
        f"awaited bytes: {8 << 20}",
        "tickets: 0 1",
    ]
    assert "'element': 'pool'" in lines[5]
