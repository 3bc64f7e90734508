"""The books of the native core by themselves: heap and pool, compiled with `harness.c`."""

from __future__ import annotations

import ctypes
import math
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from ctypes import POINTER, c_char_p, c_int, c_int64, c_uint64, c_void_p
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "libd" / "csrc"
GRAIN = 64
PAGE = 4096
CAPACITY = 7  # LIBD_ECAPACITY

SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "h_new": (c_void_p, [c_uint64]),
    "h_delete": (None, [c_void_p]),
    "h_alloc": (c_void_p, [c_void_p, c_uint64, c_uint64]),
    "h_free": (None, [c_void_p, c_void_p]),
    "h_resize": (c_int, [c_void_p, c_void_p, c_uint64]),
    "h_largest": (c_uint64, [c_void_p]),
    "h_off": (c_uint64, [c_void_p]),
    "h_size": (c_uint64, [c_void_p]),
    "h_visited": (c_uint64, [c_void_p]),
    "h_free_bytes": (c_uint64, [c_void_p]),
    "h_free_blocks": (c_uint64, [c_void_p]),
    "h_live_pages": (c_uint64, [c_void_p]),
    "h_warm_bytes": (c_uint64, [c_void_p]),
    "h_cool": (None, [c_void_p, c_uint64, c_uint64, POINTER(c_uint64), POINTER(c_uint64)]),
    "p_open": (c_int, [c_uint64, c_uint64]),
    "p_machine": (None, [c_uint64]),
    "p_close": (None, []),
    "p_alloc": (c_int64, [c_uint64]),
    "p_free": (c_int, [c_uint64]),
    "p_touch": (None, [c_uint64]),
    "p_resident": (c_uint64, []),
    "p_reserved": (c_uint64, []),
    "p_warm": (c_uint64, []),
    "p_cool": (c_int, []),
    "p_cools": (c_int, []),
    "p_undrawn": (c_uint64, []),
    "p_grow": (c_int, [c_uint64, c_uint64]),
    "p_epoch": (c_int64, [c_uint64]),
    "p_move": (c_int, [c_uint64]),
    "p_outcome": (c_int, []),
    "p_became": (c_uint64, []),
    "p_free_bytes": (c_uint64, []),
    "p_drop": (None, []),
    "p_fill": (None, [c_uint64, c_char_p]),
    "p_holds": (c_int, [c_uint64, c_char_p, c_uint64]),
    "p_lease": (c_int, [c_uint64]),
    "p_expire": (None, []),
}


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    out = tmp_path_factory.mktemp("native") / "harness.so"
    parts = (
        "heap",
        "lease",
        "charge",
        "pool",
        "region",
        "move",
        "guard",
        "element",
        "ledger",
        "vacate",
    )
    sources = [HERE / "harness.c", *(CSRC / f"{part}.c" for part in parts)]
    flags = ["-std=gnu11", "-O1", "-shared", "-fPIC", "-pthread", f"-I{CSRC}"]
    if sanitizers := os.environ.get("SCAD_SANITIZE"):
        flags += [f"-fsanitize={sanitizers}", "-g"]
    subprocess.run([*compiler.split(), *flags, *map(str, sources), "-o", str(out)], check=True)
    library = ctypes.CDLL(str(out))
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def pages(off: int, size: int) -> range:
    return range(off // PAGE, (off + size - 1) // PAGE + 1) if size else range(0)


class Heap:
    """A native heap, and what it must look like."""

    def __init__(self, native: ctypes.CDLL, size: int) -> None:
        self.native, self.size, self.at = native, size, native.h_new(size)
        self.live: dict[int, tuple[int, int]] = {}  # block: offset, size
        self.touched: set[int] = set()  # grains that were live since they were cooled

    def free_ranges(self) -> list[tuple[int, int]]:
        ranges, end = [], 0
        for off, size in [*sorted(self.live.values()), (self.size, 0)]:
            assert off >= end
            if off > end:
                ranges.append((end, off - end))
            end = off + size
        return ranges

    def check(self) -> None:
        ranges = self.free_ranges()
        assert self.native.h_free_blocks(self.at) == len(ranges)
        assert self.native.h_free_bytes(self.at) == sum(size for _, size in ranges)
        assert self.native.h_largest(self.at) == max((size for _, size in ranges), default=0)
        live = {page for off, size in self.live.values() for page in pages(off, size)}
        assert self.native.h_live_pages(self.at) == len(live)
        # At least what was touched is called warm, and at most what nobody has.
        warm = {grain * GRAIN // PAGE for grain in self.touched} - live
        assert len(warm) * PAGE <= self.native.h_warm_bytes(self.at)
        assert self.native.h_warm_bytes(self.at) <= self.size - len(live) * PAGE
        if not self.touched:
            assert self.native.h_warm_bytes(self.at) == 0

    def touch(self, block: int) -> None:
        off, size = self.live[block]
        self.touched.update(range(off // GRAIN, (off + size) // GRAIN))

    def cool(self, number: int, most: int) -> None:
        start, stop = c_uint64(), c_uint64()
        before = self.native.h_warm_bytes(self.at)
        self.native.h_cool(self.at, number, most, start, stop)
        cooled = range(start.value // GRAIN, stop.value // GRAIN)
        free = {g for off, n in self.free_ranges() for g in range(off // GRAIN, (off + n) // GRAIN)}
        assert free.issuperset(cooled)
        assert len(cooled) * GRAIN <= max(most, PAGE) + 2 * PAGE
        assert before - self.native.h_warm_bytes(self.at) == len(
            set(pages(start.value, stop.value - start.value))
            - {page for off, size in self.live.values() for page in pages(off, size)}
        ) * PAGE  # fmt: skip
        self.touched.difference_update(cooled)

    def alloc(self, size: int, align: int) -> int | None:
        size = max(GRAIN, -(-size // GRAIN) * GRAIN)
        fitting = [
            (n, off) for off, n in self.free_ranges() if n - (-off % max(align, GRAIN)) >= size
        ]
        block: int | None = self.native.h_alloc(self.at, size, align)
        assert (block is None) == (not fitting)
        if block is None:
            return None
        off = self.native.h_off(block)
        assert off % max(align, GRAIN) == 0
        if align <= GRAIN:
            assert off == min(fitting)[1]  # the best fit, the first of equals
        else:
            assert any(a <= off and off + size <= a + n for n, a in fitting)
        self.live[block] = (off, self.native.h_size(block))
        assert self.live[block][1] == size
        self.touch(block)
        return block

    def free(self, block: int) -> None:
        del self.live[block]
        self.native.h_free(self.at, block)

    def resize(self, block: int, size: int) -> None:
        off, had = self.live[block]
        size = max(GRAIN, -(-size // GRAIN) * GRAIN)
        behind = dict(self.free_ranges()).get(off + had, 0)
        assert self.native.h_resize(self.at, block, size) == (size <= had + behind)
        self.live[block] = (off, self.native.h_size(block))
        assert self.live[block][1] == (size if size <= had + behind else had)
        self.touch(block)


step = st.one_of(
    st.tuples(st.just("alloc"), st.integers(0, 5000), st.sampled_from([1, 64, 256, 4096, 1 << 30])),
    st.tuples(st.just("free"), st.integers(0, 1000), st.just(0)),
    st.tuples(st.just("resize"), st.integers(0, 1000), st.integers(0, 5000)),
    st.tuples(st.just("cool"), st.integers(0, 100), st.integers(1, 20_000)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(step, max_size=80))
def test_any_history(native: ctypes.CDLL, steps: list[tuple[str, int, int]]) -> None:
    heap = Heap(native, 1 << 15)
    try:
        for what, number, more in steps:
            blocks = list(heap.live)
            if what == "alloc":
                heap.alloc(number, more)
            elif blocks and what == "free":
                heap.free(blocks[number % len(blocks)])
            elif what == "cool":
                heap.cool(number, more)
            elif blocks:
                heap.resize(blocks[number % len(blocks)], more)
            heap.check()
    finally:
        native.h_delete(heap.at)


COUNT = 100_000


def riddled(native: ctypes.CDLL, sizes: Callable[[int], int]) -> tuple[int, int]:
    """A heap with `COUNT` free blocks that cannot be joined, and nothing else free."""
    lengths = [sizes(i) for i in range(COUNT)]
    total = sum(lengths) + COUNT * GRAIN
    heap = native.h_new(total)
    blocks = []
    for length in lengths:
        blocks.append(native.h_alloc(heap, length, GRAIN))
        native.h_alloc(heap, GRAIN, GRAIN)
    random.Random(2333).shuffle(blocks)
    for block in blocks:
        native.h_free(heap, block)
    assert native.h_free_blocks(heap) == COUNT
    return heap, max(lengths)


@pytest.mark.parametrize(
    "sizes",
    [lambda i: 8192, lambda i: 8192 + i % 120 * GRAIN, lambda i: 8192 + i * GRAIN],
    ids=["equal", "one class", "all different"],
)
def test_work_is_bounded(native: ctypes.CDLL, sizes: Callable[[int], int]) -> None:
    heap, largest = riddled(native, sizes)
    bound = 24 * int(math.log2(COUNT))  # a few descents of a tree that is no list

    def visits(call: Callable[..., int | None], *arguments: int) -> tuple[int, int | None]:
        before = native.h_visited(heap)
        result = call(heap, *arguments)
        return native.h_visited(heap) - before, result

    try:
        n, found = visits(native.h_largest)
        assert found == largest
        assert n <= bound
        for size in (1, 4096, 8192, largest, largest + 1, 1 << 40):
            for align in (1, GRAIN, 4096):
                n, block = visits(native.h_alloc, size, align)
                if align <= GRAIN:
                    assert (block is None) == (size > largest)
                elif block is None and size <= largest:
                    continue  # the last resort: it had to look at every block that is large enough
                assert n <= bound * 4  # an alignment tries a few blocks first
                if block is not None:
                    n, _ = visits(native.h_free, block)
                    assert n <= bound
    finally:
        native.h_delete(heap)


def test_an_alignment_is_found_wherever_it_is(native: ctypes.CDLL) -> None:
    """Many blocks are large enough but misaligned; the only one that fits must be found."""
    heap = native.h_new(1000 * 4096)
    try:
        blocks = []
        while (block := native.h_alloc(heap, 2048, GRAIN)) is not None:
            blocks.append(block)
        by_offset = {native.h_off(b): b for b in blocks}
        for off in range(2048, 1000 * 4096, 4096):
            native.h_free(heap, by_offset[off])
        assert native.h_alloc(heap, 1024, 4096) is None
        native.h_free(heap, by_offset[500 * 4096])
        native.h_alloc(heap, 4096 + 2048, GRAIN)  # takes what the two neighbours joined to
        native.h_free(heap, by_offset[700 * 4096])
        found = native.h_alloc(heap, 1024, 4096)
        assert native.h_off(found) == 700 * 4096
    finally:
        native.h_delete(heap)


MB = 1 << 20


@pytest.fixture
def pool(native: ctypes.CDLL) -> Iterator[ctypes.CDLL]:
    """A pool with one elastic element on a machine that has had 14 MiB for it since it began."""
    assert native.p_open(64 * MB, 64 * MB) == 0
    native.p_machine(14 * MB)
    yield native
    native.p_close()


def test_nothing_is_promised_twice(pool: ctypes.CDLL) -> None:
    """Pages of free blocks are drawn on by nobody: they make no room for what others reserve."""
    warm = pool.p_alloc(4 * MB)
    assert pool.p_alloc(64) > 0  # keeps what is behind it from joining
    pool.p_touch(warm)
    assert pool.p_free(warm) == 0
    assert pool.p_warm() == pool.p_resident() == 4 * MB
    first = pool.p_alloc(8 * MB)
    second = pool.p_alloc(5 * MB)
    assert first > 0
    assert second > 0  # there is room, but only in the place of the warm pages
    assert pool.p_warm() + pool.p_reserved() <= 14 * MB
    assert pool.p_alloc(MB) == -CAPACITY
    pool.p_touch(first)
    pool.p_touch(second)
    assert pool.p_resident() <= 14 * MB  # everybody has got what was promised


def test_what_is_drawn_is_not_counted_again(pool: ctypes.CDLL) -> None:
    for size in (4 * MB, 8 * MB):
        addr = pool.p_alloc(size)
        assert addr > 0
        pool.p_touch(addr)
    assert pool.p_alloc(3 * MB) == -CAPACITY
    assert pool.p_alloc(2 * MB) > 0


def test_warm_pages_are_used_again_on_a_full_machine(pool: ctypes.CDLL) -> None:
    for _ in range(3):
        addr = pool.p_alloc(14 * MB)
        assert addr > 0
        pool.p_touch(addr)
        assert pool.p_free(addr) == 0


def test_what_was_freed_untouched_is_not_promised_to_others(pool: ctypes.CDLL) -> None:
    """Its owner may have it mapped and touch it yet, and nobody would mind."""
    addr = pool.p_alloc(10 * MB)
    assert pool.p_free(addr) == 0
    assert pool.p_undrawn() == 10 * MB
    assert pool.p_alloc(64) > 0
    assert pool.p_warm() > 0
    assert pool.p_alloc(5 * MB) > 0  # it is needed: now nobody may touch it any more
    assert pool.p_warm() == 0


def test_tiny_regions_may_have_their_pages_and_no_others(pool: ctypes.CDLL) -> None:
    for _ in range(1000):
        assert pool.p_alloc(64) > 0
    assert pool.p_reserved() == 64_000
    assert pool.p_undrawn() == -(-64_000 // PAGE) * PAGE


def test_what_nobody_uses_again_goes_back(pool: ctypes.CDLL) -> None:
    assert not pool.p_cools()
    addr = pool.p_alloc(8 * MB)
    assert pool.p_alloc(64) > 0
    pool.p_touch(addr)
    assert not pool.p_cools()
    assert pool.p_free(addr) == 0
    assert pool.p_cools()
    pool.p_cool()
    assert pool.p_resident() == 8 * MB  # since then it has been free all the time
    pool.p_cool()
    assert pool.p_resident() == 0
    assert not pool.p_cools()


def test_what_is_used_again_and_again_stays_warm(pool: ctypes.CDLL) -> None:
    """Of 8 MiB that were freed together, 3 are needed every now and then."""
    addr = pool.p_alloc(8 * MB)
    pool.p_touch(addr)
    assert pool.p_free(addr) == 0
    for _ in range(4):
        addr = pool.p_alloc(3 * MB)
        assert pool.p_free(addr) == 0
        pool.p_cool()
    assert pool.p_warm() == 3 * MB
    pool.p_cool()
    assert pool.p_warm() == pool.p_resident() == 0


def test_much_goes_back_in_turns(pool: ctypes.CDLL) -> None:
    pool.p_machine(64 * MB)
    addr = pool.p_alloc(40 * MB)
    pool.p_touch(addr)
    assert pool.p_free(addr) == 0
    assert pool.p_cool() == 1
    assert pool.p_cool() == 3
    assert pool.p_resident() == 0


def test_the_edges_of_what_was_cooled_are_zeros(pool: ctypes.CDLL) -> None:
    """Pages that others share stay; what was freed of them is cleared."""
    first, middle, last = (pool.p_alloc(size) for size in (1024, 3 * PAGE, 1024))
    for addr in (first, middle, last):
        pool.p_touch(addr)
    assert pool.p_free(middle) == 0
    pool.p_cool()
    pool.p_cool()
    assert pool.p_resident() == 2 * PAGE
    middle = pool.p_alloc(3 * PAGE)
    assert pool.p_holds(middle, bytes(3 * PAGE), 3 * PAGE)
    assert pool.p_holds(first, b"\1" * 1024, 1024)
    assert pool.p_holds(last, b"\1" * 1024, 1024)


# A region on its way to where it has room.


DATA = bytes(i * i % 251 for i in range(MB))
STALE = 6  # LIBD_ESTALE


@pytest.fixture
def moving(pool: ctypes.CDLL) -> int:
    """A region of 1 MiB that has begun to move."""
    addr = int(pool.p_alloc(MB))
    assert pool.p_alloc(64) > 0  # so that it cannot grow where it is
    pool.p_fill(addr, DATA)
    assert pool.p_grow(addr, 2 * MB) == 1
    return addr


def test_it_is_nowhere_until_it_has_arrived(pool: ctypes.CDLL, moving: int) -> None:
    fresh = [a << 40 for a in range(1, 6)]
    known = [a for a in fresh if pool.p_epoch(a) > 0]
    assert moving not in known
    assert len(known) == 1  # the one behind it
    for _ in range(15):
        assert not pool.p_move(MB // 16)
        assert pool.p_epoch(moving) == -STALE
        assert pool.p_outcome() == -1
        assert pool.p_free(moving) == STALE
    assert [a for a in fresh if pool.p_epoch(a) > 0] == known


def test_it_arrives_whole(pool: ctypes.CDLL, moving: int) -> None:
    while not pool.p_move(100_001):
        assert pool.p_outcome() == -1
    assert pool.p_outcome() == 0
    there = pool.p_became()
    assert there != moving
    assert pool.p_epoch(there) > 0
    assert pool.p_epoch(moving) == -STALE
    assert pool.p_holds(there, DATA, MB)
    assert pool.p_reserved() == 2 * MB + 64
    assert pool.p_free(there) == 0
    assert pool.p_reserved() == 64


def test_an_element_that_is_dropped_takes_it_along(pool: ctypes.CDLL, moving: int) -> None:
    assert not pool.p_move(1000)
    pool.p_drop()
    assert pool.p_outcome() == STALE
    assert pool.p_reserved() == 0
    assert pool.p_free_bytes() == 64 * MB


def test_a_lease_that_runs_out_on_the_way(pool: ctypes.CDLL) -> None:
    addr = pool.p_alloc(MB)
    assert pool.p_alloc(64) > 0
    assert pool.p_lease(addr) == 0
    assert pool.p_grow(addr, 2 * MB) == 1
    assert not pool.p_move(1000)
    pool.p_expire()
    assert pool.p_outcome() == STALE
    assert pool.p_reserved() == 64
    assert pool.p_free_bytes() == 64 * MB - 64
