"""Queries whose elements exchange everything over verbs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SYSFS = Path("/sys/class/infiniband")


def packets(device: str) -> int | None:
    """Packets that a Soft-RoCE device has received; None for other devices."""
    path = SYSFS / device / "ports/1/hw_counters/rcvd_pkts"
    return int(path.read_text()) if path.exists() else None


@pytest.mark.timeout(1200)
def test_tpcds_over_rdma(pair: Any, tmp_path: Path) -> None:
    before = packets(pair[0].device)
    record = tmp_path / "record.json"
    command = [sys.executable, "-m", "tpcds.run", "--sf", "0.01", "--queries", "97"]
    ran = subprocess.run(
        [
            *command,
            "--transport",
            "rdma",
            "--parallelism",
            "2",
            "--compute-memory",
            "200 MB",
            "--json",
            str(record),
        ],
        capture_output=True,
        text=True,
        timeout=1100,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    totals = json.loads(record.read_text())["totals"]
    assert (totals["ran"], totals["verified"], totals["failed"]) == (1, 1, 0)
    if before is not None:
        assert packets(pair[0].device) >= before + 10, ran.stdout
