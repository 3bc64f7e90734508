from collections.abc import Sequence
from typing import Any

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
        lengths: Sequence[int],
        pieces: Sequence[tuple[int, int, int, int]],
        keys: Sequence[int],
        partitions: int,
    ) -> None: ...
    def partition_rows(self, partition: int) -> int: ...
    def null_counts(self, partition: int) -> tuple[int, ...]: ...
    def sizes(self, partition: int) -> list[int]: ...
    def write(self, buffers: Sequence[Sequence[Any]]) -> list[list[tuple[int, int] | None]]: ...
