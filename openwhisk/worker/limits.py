"""What this process holds, and what it may hold.

RLIMIT_DATA counts private writable memory (VmData: heap, anonymous and private maps, thread
stacks), whether it was touched or not; memory elements are shared maps and do not count. What is
*measured* for the record is what was touched (RssAnon).
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

_PAGE = os.sysconf("SC_PAGESIZE")
# What the interpreter needs to call a function at all: frames, the result, the message about it.
HEADROOM = 2 << 20


# Of the bytes that a fresh worker leaves an element, the share that a used one may hold already.
_KEPT = 0.25
# And what it may hold in any case, up to half of them: stacks of threads and caches of allocators,
# which the next element uses. Without that, three of four queries of TPC-DS whose needs were known
# had a worker forked for them, 22 ms each. Elements that need their whole limit miss what is kept:
# where it was three quarters of the bytes, q67 and q78 at SF 10 had to be cut finer in 512 MB, and
# with half they are not.
USEFUL = 160 << 20


def may_keep(limit: int, fresh: int) -> float:
    """Bytes beyond the `fresh` ones of a new worker that a used one may hold when an element with
    that limit begins: allocators keep address space that they no longer use, and the limit counts
    it.
    """
    room = limit - fresh
    return max(_KEPT * room, min(room / 2, USEFUL))


class LimitTooSmallError(Exception):
    """The worker holds more than the limit before the element has begun."""


def held_data() -> int:
    """Bytes that RLIMIT_DATA counts (VmData)."""
    # statm's sixth field also has the main thread's stack, which the limit does not count: a few
    # pages on the safe side.
    with open("/proc/self/statm", "rb", buffering=0) as statm:
        return int(statm.read(256).split()[5]) * _PAGE


@contextmanager
def memory_limit(size: int) -> Iterator[None]:
    """Hold this process to `size` bytes for a ``with`` block.

    Raises
    ------
    LimitTooSmallError
        If it holds too much already; the message says the least that would do.
    """
    held = held_data()
    if held + HEADROOM > size:
        least = -(-(held + HEADROOM) // (1 << 20))
        raise LimitTooSmallError(
            f"the memory limit of {size} bytes is too small: a worker holds {held} bytes before an "
            f"element begins; give it at least {least} MiB (limits.mem, or --compute-memory)"
        )
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
