from collections.abc import Sequence
from typing import Any

class ScanTable:
    def __init__(
        self,
        schema: Any,
        batches: Sequence[Any],
        ranges: Sequence[tuple[int, int] | None] = (),
    ) -> None: ...
    def keep(self, column: int, low: int, bits: Any) -> None: ...
    @property
    def id(self) -> int: ...
    def close(self) -> None: ...
