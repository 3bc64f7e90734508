"""What a write may cost locally, and what is told when the transport breaks meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from libd import Ref, TransportClosedError
from remote_array import ArrayError, RemoteArray


class Wire:
    """A copying transport over a bytearray that notes what is asked of it."""

    mappable = False

    def __init__(self, size: int) -> None:
        self.memory = bytearray(size)
        self.writes: list[int] = []
        self.raising: BaseException | None = None

    def _check(self) -> None:
        if self.raising is not None:
            raise self.raising

    def alloc(self, size: int, align: int = 64) -> int:
        return 1 << 40

    def free(self, addr: int) -> None:
        if self.raising is not None:
            raise TransportClosedError("the connection broke")

    def ref(self, extents: Sequence[tuple[int, int]]) -> Any:
        return Ref("m", 1, 5, [(addr & (1 << 40) - 1, size) for addr, size in extents])

    def resolve(self, ref: Any) -> list[tuple[int, int]]:
        return [(1 << 40 | at, size) for at, size in ref.extents]

    def readv(self, segments: Sequence[tuple[int, Any]]) -> None:
        for addr, out in segments:
            at = addr & (1 << 40) - 1
            out[:] = self.memory[at : at + len(out)]

    def writev(self, segments: Sequence[tuple[int, Any]]) -> None:
        self._check()
        self.writes.append(len(segments))
        for addr, data in segments:
            at = addr & (1 << 40) - 1
            self.memory[at : at + len(data)] = data

    def write_from(self, addr: int, data: Any) -> None:
        self.writev([(addr, data)])

    def flush(self) -> None:
        if self.raising is not None:
            raise TransportClosedError("the connection broke")


def test_scattered_writes_go_back_in_bounded_pieces() -> None:
    wire = Wire(1 << 18)
    array = RemoteArray.create(wire, 1 << 18, np.uint8, fill=0, budget="1 MB", span=1 << 16)
    array[::2] = 7
    wire.writes.clear()
    array.flush()
    assert max(wire.writes) <= 4096
    assert sum(wire.writes) == 1 << 17
    assert wire.memory == b"\x07\0" * (1 << 17)
    array.flush()
    assert sum(wire.writes) == 1 << 17  # everything is clean now


def test_a_number_is_written_without_a_copy_of_the_selection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wire = Wire(1 << 23)
    array = RemoteArray.create(wire, (1 << 10, 1 << 10), np.float64, budget="256 KB", span=1 << 16)
    made: list[int] = []
    empty = np.empty

    def counted(*args: Any, **kwargs: Any) -> Any:
        result = empty(*args, **kwargs)
        made.append(result.nbytes)
        return result

    monkeypatch.setattr(np, "empty", counted)
    array[::-1, 1:] = 2.5
    monkeypatch.undo()
    array.flush()
    assert max(made) <= 1 << 20
    whole = np.frombuffer(wire.memory, np.float64).reshape(1 << 10, 1 << 10)
    assert (whole[:, 1:] == 2.5).all()
    assert (whole[:, 0] == 0).all()


def test_an_interrupted_creation_says_that_it_was_interrupted() -> None:
    wire = Wire(1 << 16)
    wire.raising = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        RemoteArray.create(wire, 100, fill=1)
    with pytest.raises(KeyboardInterrupt):
        RemoteArray.from_array(wire, np.ones(100))


def test_an_exception_in_a_block_is_not_hidden_by_the_write_back() -> None:
    wire = Wire(1 << 16)
    array = RemoteArray.create(wire, 100, fill=0, budget="1 MB")

    def work() -> None:
        with array:
            array[3] = 1
            wire.raising = TransportClosedError("the connection broke")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    with pytest.raises(ArrayError, match="closed"):
        array[3]
