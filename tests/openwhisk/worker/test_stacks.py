"""Address space of threads' stacks."""

from __future__ import annotations

import subprocess
import sys

GROWTH = """
import sys, threading
from openwhisk.worker.limits import held_data
from openwhisk.worker.stacks import limit_stacks

if sys.argv[1] != "0":
    assert limit_stacks(int(sys.argv[1]))
before, done = held_data(), threading.Event()
threads = [threading.Thread(target=done.wait) for _ in range(8)]
for thread in threads:
    thread.start()
after = held_data()
done.set()
for thread in threads:
    thread.join()
print((after - before) >> 20)
"""


def growth(size: int) -> int:
    """MiB of address space that eight threads take."""
    command = [sys.executable, "-c", GROWTH, str(size)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_threads_take_no_more_than_they_are_told() -> None:
    assert 8 <= growth(1 << 20) <= 12
    assert growth(1 << 20) < growth(4 << 20) <= 36
