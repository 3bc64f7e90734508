"""What this machine has to give: cores and bytes, as cgroups and the kernel allow."""

from __future__ import annotations

import os
from pathlib import Path

# Left to everything else on the machine.
_SHARE = 0.8
_CGROUP = Path("/sys/fs/cgroup")


def available_cores() -> float:
    """Cores that this process may use: affinity, and the cgroup's quota where there is one."""
    cores = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else min(cores, int(quota) / int(period))


def available_memory() -> int:
    """Bytes that may safely be promised: most of what is available now."""
    available = _meminfo("MemAvailable")
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return int(available * _SHARE)
    return int(min(available, max(0, limit - used)) * _SHARE)


def _meminfo(field: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise OSError(f"/proc/meminfo has no {field}")
