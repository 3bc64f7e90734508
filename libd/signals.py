"""`Unwinding`: SIGINT and SIGTERM end a program through its context managers, and only once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

__all__ = ["Unwinding"]

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Unwinding:
    """While entered, SIGINT raises ``KeyboardInterrupt`` and SIGTERM raises ``SystemExit``, once.

    Later signals are ignored, so that what has to be put away is put away undisturbed. For the
    main thread of a command, not for libraries.

    Native code that polls for signals (DuckDB does) turns what the handler raises into an error of
    its own. Whoever catches errors broadly calls `check`, so that being interrupted is not taken
    for a failure.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._stop) for number in _NUMBERS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def interrupted(self) -> bool:
        """Whether SIGINT has come."""
        return self._number == signal.SIGINT

    def check(self) -> None:
        """Raise again what a signal raised before, if one has come."""
        if self._number is not None:
            self._raise(self._number)

    def _stop(self, number: int, frame: FrameType | None) -> NoReturn:
        self._number = number
        for other in _NUMBERS:
            signal.signal(other, signal.SIG_IGN)
        self._raise(number)

    def _raise(self, number: int) -> NoReturn:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)
