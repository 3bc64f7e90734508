"""What `bench.costs` reads off."""

from __future__ import annotations

import mmap
import os

from bench.costs import own_bytes
from bench.work import MIB


def test_own_bytes_counts_what_is_touched_and_not_what_is_shared() -> None:
    before = own_bytes(os.getpid())
    private = mmap.mmap(-1, 32 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    untouched = own_bytes(os.getpid()) - before
    private[:] = bytes(1) * len(private)
    touched = own_bytes(os.getpid()) - before
    descriptor = os.memfd_create("test")
    os.ftruncate(descriptor, 64 * MIB)
    shared = mmap.mmap(descriptor, 64 * MIB)
    shared[:] = private[:] * 2
    with_shared = own_bytes(os.getpid()) - before
    shared.close()
    os.close(descriptor)
    private.close()
    assert untouched < 8 * MIB
    assert 32 * MIB <= touched < 56 * MIB
    assert with_shared < touched + 48 * MIB
