from collections.abc import Sequence

from _typeshed import ReadableBuffer, WriteableBuffer

KIND_NULL: int
KIND_BOOL: int
KIND_SIGNED: int
KIND_UNSIGNED: int
KIND_FLOAT: int
KIND_BYTES: int
KIND_VAR32: int
KIND_VAR64: int

class Scatter:
    def __init__(
        self,
        kinds: Sequence[int],
        widths: Sequence[int],
        partitions: int,
        keys: Sequence[int] = (),
        boundaries: object | None = None,
        descending: Sequence[bool] = (),
        nulls_first: Sequence[bool] = (),
    ) -> None: ...
    @property
    def staged(self) -> int: ...
    def clear(self) -> None: ...
    def add(self, capsule: object) -> None: ...
    def size(self) -> int: ...
    def widest(self) -> tuple[int, int]: ...
    def write(self, block: WriteableBuffer, stream: bool) -> None: ...
    def parts(
        self,
    ) -> list[tuple[int, int, int, list[int], list[int], list[int | None], list[int | None]]]: ...
    def distinct(self) -> list[tuple[bytes, int]]: ...

class Layout:
    def __init__(
        self, kinds: Sequence[int], widths: Sequence[int], columns: Sequence[int]
    ) -> None: ...
    def size(self, rows: int, nulls: Sequence[int], strings: Sequence[int]) -> int: ...
    def spans(
        self, rows: int, nulls: Sequence[int], strings: Sequence[int]
    ) -> list[tuple[int, int]]: ...
    def columns(
        self,
        rows: int,
        nulls: Sequence[int],
        strings: Sequence[int],
        spans: Sequence[tuple[int, int]],
        views: Sequence[ReadableBuffer],
    ) -> object: ...
