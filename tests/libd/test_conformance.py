"""The same semantics on every transport."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import numpy as np
import pytest

from libd import (
    BoundsError,
    CapabilityError,
    CapacityError,
    LibdError,
    Ref,
    StaleRefError,
    Transport,
    TransportClosedError,
    UnsupportedError,
)

Maker = Callable[..., Transport]


def test_prototype_calls(make: Maker) -> None:
    trans = make(65536)
    assert trans.reg(8) is trans.buf
    trans.buf[0:4] = (12345).to_bytes(4, "little")
    trans.write(4, addr=0, offset=0)
    trans.read(4, addr=0, offset=4)
    assert int.from_bytes(trans.buf[4:8], "little") == 12345
    assert trans.size == 65536


def test_buf_is_callable_as_in_the_prototype_text(make: Maker) -> None:
    trans = make()
    assert len(trans.buf) == 0
    buffer = trans.buf(16)
    assert buffer is trans.buf
    assert len(buffer) == 16
    assert bytes(buffer) == bytes(16)


def test_shared_buffer(make: Maker) -> None:
    one, two = make(), make()
    one.reg(32)
    two.reg(16, share_with=one)
    two.buf[0:2] = b"hi"
    assert bytes(one.buf[0:2]) == b"hi"
    with pytest.raises(BoundsError, match="shared buffer has 32 bytes"):
        two.reg(33, share_with=one)


def test_a_new_element_reads_as_zeros(make: Maker) -> None:
    out = bytearray(b"x" * 4096)
    make(4096).read_into(0, out)
    assert out == bytes(4096)


@pytest.mark.parametrize("size", [0, 1, 7, 4096, 65535, (1 << 22) + 1])
def test_write_then_read(make: Maker, size: int) -> None:
    trans = make(max(size, 1) + 8)
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    assert trans.write_from(5, data) == size
    out = np.empty_like(data)
    assert trans.read_into(5, out) == size
    np.testing.assert_array_equal(out, data)


def test_typed_arrays_are_buffers(make: Maker) -> None:
    trans = make()
    trans.write_from(64, np.arange(10.0).reshape(2, 5))
    out = np.empty(10)
    trans.read_into(64, out)
    np.testing.assert_array_equal(out, np.arange(10.0))


def test_unsuitable_buffers_are_refused(make: Maker) -> None:
    trans = make()
    with pytest.raises((BufferError, TypeError)):
        trans.read_into(0, b"read-only")  # type: ignore[arg-type]
    with pytest.raises((BufferError, ValueError)):
        trans.read_into(0, np.zeros((8, 8))[:, 0])


def test_vectors(make: Maker) -> None:
    trans = make()
    pieces = [(i * 100, bytes([i]) * (i % 90)) for i in range(200)]
    assert trans.writev(pieces) == sum(len(p) for _, p in pieces)
    outs = [(addr, bytearray(len(p))) for addr, p in pieces]
    trans.readv(reversed(outs))
    assert [bytes(o) for _, o in outs] == [p for _, p in pieces]
    assert trans.readv([]) == 0


def test_vectors_longer_than_one_request(make: Maker) -> None:
    trans = make(1 << 17)
    count = 4096 + 17
    trans.writev([(i * 8, i.to_bytes(8, "little")) for i in range(count)])
    outs = [bytearray(8) for _ in range(count)]
    trans.readv([(i * 8, out) for i, out in enumerate(outs)])
    assert [int.from_bytes(o, "little") for o in outs] == list(range(count))


def test_a_vector_with_one_bad_segment_moves_nothing(make: Maker) -> None:
    trans = make(4096)
    with pytest.raises(BoundsError):
        trans.writev([(0, b"abc"), (4095, b"xy")])
    out = bytearray(3)
    trans.read_into(0, out)
    assert out == bytes(3)


BAD_RANGES = [
    (4096, 1),
    (4095, 2),
    (0, 4097),
    ((1 << 40) - 1, 1),
    ((1 << 40) - 1, 2),
    ((1 << 64) - 1, 1),
    ((1 << 64) - 2, 4),
    (77 << 40, 1),
    (((1 << 18) - 1) << 40, 1),
    (1 << 63, 8),
]


@pytest.mark.parametrize(("addr", "size"), BAD_RANGES)
def test_ranges_outside_are_refused_by_every_operation(make: Maker, addr: int, size: int) -> None:
    trans = make(4096)
    trans.reg(8192)
    operations: list[Callable[[], object]] = [
        lambda: trans.read(size, addr),
        lambda: trans.write(size, addr),
        lambda: trans.read_into(addr, bytearray(size)),
        lambda: trans.write_from(addr, bytes(size)),
        lambda: trans.readv([(0, bytearray(1)), (addr, bytearray(size))]),
        lambda: trans.writev([(0, b"1"), (addr, bytes(size))]),
        lambda: trans.ref([(addr, size)]),
    ]
    if trans.mappable:
        operations.append(lambda: trans.map(addr, size))
    for operation in operations:
        with pytest.raises(BoundsError):
            operation()
    trans.read(8, 0)  # and the transport goes on


@pytest.mark.parametrize("elastic", [False, True])
def test_what_is_no_region_is_neither_freed_nor_grown_nor_held(make: Maker, elastic: bool) -> None:
    trans = make(4096, elastic=elastic)
    region = trans.alloc(64)
    trans.write_from(region, b"\x5a" * 64)
    before = trans.stat()["regions"], trans.stat()["reserved"]
    inside = [region + 1, region + 63, region + 64, region + (1 << 40) - 1]
    outside = [a for a, _ in BAD_RANGES if a >> 40] + [0, 1, 4095, 4096]
    for addr in inside + outside:
        operations: list[Callable[[], object]] = [
            lambda addr=addr: trans.free(addr),  # type: ignore[misc]
            lambda addr=addr: trans.extend(addr, 128),  # type: ignore[misc]
        ]
        if addr not in inside:
            operations.append(lambda addr=addr: trans.renew(addr, 60.0))  # type: ignore[misc]
        for operation in operations:
            with pytest.raises(LibdError):
                operation()
    assert (trans.stat()["regions"], trans.stat()["reserved"]) == before
    out = bytearray(64)
    trans.read_into(region, out)
    assert out == b"\x5a" * 64
    trans.free(region)


def test_numbers_that_are_no_64_bit_numbers(make: Maker) -> None:
    trans = make()
    for bad in (-1, 1 << 64, 1 << 200):
        with pytest.raises(BoundsError):
            trans.read_into(bad, bytearray(1))
    with pytest.raises((TypeError, AttributeError)):
        trans.read_into("0", bytearray(1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "offset"), [(9, 0), (8, 1), (1, 8), (1, 1 << 62), (1, -1), (1 << 63, 0)]
)
def test_ranges_outside_of_the_local_buffer(make: Maker, size: int, offset: int) -> None:
    trans = make()
    trans.reg(8)
    for operation in (trans.read, trans.write):
        with pytest.raises(BoundsError):
            operation(size, 0, offset)


def test_map_is_the_memory_itself(make: Maker) -> None:
    trans = make()
    if not trans.mappable:
        with pytest.raises(UnsupportedError):
            trans.map(0, 8)
        return
    view = trans.map(0, 16, writable=True)
    view[0:3] = b"abc"
    out = bytearray(3)
    trans.read_into(0, out)
    assert out == b"abc"
    read_only = trans.map(0, 16)
    assert read_only.readonly
    trans.write_from(0, b"xyz")
    assert bytes(read_only[0:3]) == b"xyz"
    counters = trans.counters
    assert (counters.maps, counters.bytes_read) == (2, 3)
    assert (counters.bytes_mapped, counters.bytes_mapped_writable) == (16, 16)


def test_views_outlive_their_transport(make: Maker) -> None:
    trans = make(1 << 20)
    if not trans.mappable:
        pytest.skip("nothing to map over TCP")
    trans.write_from(1000, b"still here")
    array = np.frombuffer(trans.map(1000, 10), dtype=np.uint8)[5:]
    trans.close()
    del trans
    gc.collect()
    assert array.tobytes() == b" here"


@pytest.mark.parametrize("elastic", [False, True])
def test_regions(make: Maker, elastic: bool) -> None:
    trans = make(1 << 16, elastic)
    addresses = [trans.alloc(100 + i, align=64 << (i % 4)) for i in range(20)]
    assert len({a >> 40 for a in addresses}) == 20
    assert all(a & ((1 << 40) - 1) == 0 and a >> 40 for a in addresses)
    for i, addr in enumerate(addresses):
        trans.write_from(addr, bytes([i]) * (100 + i))
    for i, addr in enumerate(addresses):
        out = bytearray(100 + i)
        trans.read_into(addr, out)
        assert out == bytes([i]) * (100 + i)
        with pytest.raises(BoundsError):
            trans.read_into(addr + 1, bytearray(100 + i))


def test_alignment_is_that_of_the_memory(make: Maker) -> None:
    trans = make(1 << 20, True)
    if not trans.mappable:
        pytest.skip("addresses cannot be seen over TCP")
    for align in (1, 64, 4096):
        trans.alloc(1)
        view = np.frombuffer(trans.map(trans.alloc(10, align), 10), dtype=np.uint8)
        assert view.ctypes.data % max(align, 64) == 0
    for align in (0, 3, 96, 1 << 40):
        with pytest.raises(LibdError):
            trans.alloc(1, align)


def test_an_elastic_element_has_no_region_zero(make: Maker) -> None:
    trans = make(1 << 16, True)
    assert trans.elastic
    with pytest.raises(BoundsError):
        trans.read_into(0, bytearray(1))


def test_a_full_element_says_so_and_can_be_used_again(make: Maker) -> None:
    trans = make(1 << 16, True)
    regions = [trans.alloc(1 << 14) for _ in range(4)]
    with pytest.raises(CapacityError, match=r"left|piece"):
        trans.alloc(1)
    trans.free(regions[2])
    assert trans.stat()["reserved"] == 3 << 14
    trans.alloc(1 << 14)
    for size in (1 << 41, (1 << 64) - 1):
        with pytest.raises(CapacityError):
            trans.alloc(size)
    assert trans.stat()["peak"] == 1 << 16


def test_freed_neighbours_are_joined(make: Maker) -> None:
    trans = make(1 << 16, True)
    regions = [trans.alloc(1 << 12) for _ in range(16)]
    for addr in regions[1::2] + regions[0::2]:
        trans.free(addr)
    trans.alloc(1 << 16)


def test_extend(make: Maker) -> None:
    trans = make(1 << 16, True)
    first = trans.alloc(1000)
    trans.write_from(first, b"a" * 1000)
    assert trans.extend(first, 8000) == first
    second = trans.alloc(64)
    ref = trans.ref([(first, 1000)])
    moved = trans.extend(first, 20000)
    assert moved != first
    out = bytearray(1000)
    trans.read_into(moved, out)
    assert out == b"a" * 1000
    with pytest.raises(StaleRefError):
        trans.resolve(ref)
    with pytest.raises(LibdError):
        trans.extend(moved, 10)
    with pytest.raises(CapacityError):
        trans.extend(moved, 1 << 17)
    trans.read_into(moved, out)
    trans.read_into(second, bytearray(64))


def test_a_freed_region_is_refused_everywhere(make: Maker) -> None:
    trans = make(1 << 16, True)
    addr = trans.alloc(4096)
    ref = trans.ref([(addr, 16)])
    trans.free(addr)
    again = trans.alloc(4096)  # the same bytes, very likely
    operations: list[Callable[[], object]] = [
        lambda: trans.read_into(addr, bytearray(1)),
        lambda: trans.write_from(addr, b"1"),
        lambda: trans.readv([(again, bytearray(1)), (addr, bytearray(1))]),
        lambda: trans.writev([(again, b"1"), (addr, b"1")]),
        lambda: trans.resolve(ref),
        lambda: trans.ref([(addr, 1)]),
        lambda: trans.extend(addr, 5000),
        lambda: trans.free(addr),
    ]
    if trans.mappable:
        operations.append(lambda: trans.map(addr, 1))
    for operation in operations:
        with pytest.raises(StaleRefError):
            operation()
    assert trans.resolve(trans.ref([(again, 16)])) == [(again, 16)]


def test_refs(make: Maker) -> None:
    trans = make(1 << 16, True)
    addr = trans.alloc(1000)
    ref = trans.ref([(addr, 10), (addr + 500, 500)])
    assert ref.epoch < 1 << 53
    assert Ref.from_json(ref.to_json()) == ref
    assert trans.resolve(ref) == [(addr, 10), (addr + 500, 500)]
    with pytest.raises(StaleRefError):
        trans.resolve(Ref(ref.element, ref.region, ref.epoch - 1, ref.extents))
    with pytest.raises(StaleRefError):
        trans.resolve(Ref(ref.element, ref.region + 1, ref.epoch, ref.extents))
    with pytest.raises(CapabilityError, match="other"):
        trans.resolve(Ref("other", ref.region, ref.epoch, ref.extents))
    with pytest.raises(BoundsError):
        trans.resolve(Ref(ref.element, ref.region, ref.epoch, [(999, 2)]))
    with pytest.raises(BoundsError):
        trans.ref([(addr, 1), (trans.alloc(1), 1)])
    with pytest.raises(BoundsError):
        trans.ref([])


def test_region_zero_cannot_be_freed(make: Maker) -> None:
    trans = make()
    with pytest.raises(LibdError):
        trans.free(0)
    addr = trans.alloc(100)
    with pytest.raises(LibdError):
        trans.free(addr + 1)


def test_counters_and_stat(make: Maker) -> None:
    trans = make(8192)
    trans.write_from(0, b"12345")
    trans.readv([(0, bytearray(2)), (2, bytearray(3))])
    counters = trans.counters
    assert (counters.writes, counters.bytes_written) == (1, 5)
    assert (counters.reads, counters.bytes_read) == (2, 5)
    stat = trans.stat()
    assert (stat["reserved"], stat["peak"], stat["limit"]) == (8192, 8192, 8192)
    trans.flush()


def test_a_closed_transport_says_so(make: Maker) -> None:
    trans = make()
    with trans:
        pass
    assert trans.closed
    trans.close()
    for operation in (
        lambda: trans.read_into(0, bytearray(1)),
        trans.flush,
        lambda: trans.alloc(1),
    ):
        with pytest.raises(TransportClosedError, match="closed"):
            operation()


def test_many_threads_on_one_transport(make: Maker) -> None:
    trans = make(1 << 20)
    wrong: list[object] = []

    def work(index: int) -> None:
        rng = np.random.default_rng(index)
        base, out = index << 16, np.empty(5000, np.uint8)
        try:
            for _ in range(50):
                data = rng.integers(0, 256, 5000, dtype=np.uint8)
                at = base + int(rng.integers(0, 60000))
                trans.write_from(at, data)
                trans.read_into(at, out)
                if not np.array_equal(out, data):
                    wrong.append(at)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_arena_is_not_wider_than_its_regions(make: Maker) -> None:
    trans = make(100)
    with pytest.raises(BoundsError):
        trans.read_into(100, bytearray(1))
