"""`examples/join` runs in worker processes and gives the right answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent
ORDERS = 3000


def expected() -> list[tuple[str, int, int]]:
    rng = np.random.default_rng(1)
    customer = rng.integers(0, 1000, ORDERS)
    amount = rng.integers(1, 500, ORDERS)
    cities = np.array(["Bern", "Lyon", "Oslo", "Porto"])[customer % 4]
    cities = np.where(customer < 900, cities, "unknown")
    kept = amount >= 100
    return sorted(
        (
            str(city),
            int((kept & (cities == city)).sum()),
            int(amount[kept & (cities == city)].sum()),
        )
        for city in np.unique(cities)
    )


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_join_example(transport: str) -> None:
    done = subprocess.run(
        [sys.executable, "examples/join/run.py", f"--transport={transport}", f"--orders={ORDERS}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *rows, moved = done.stdout.splitlines()
    found = [line.split() for line in rows]
    assert sorted((w[0], int(w[1]), int(w[3])) for w in found) == expected()
    words = moved.split()
    written, read = int(words[3]), int(words[6])
    # Not all of what is written is read: the join names some columns only.
    assert written > read > 0
