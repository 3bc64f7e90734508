"""Turning what an element prints into log lines.

Covers Python's ``sys.stdout`` and ``sys.stderr``, their ``.buffer`` included. It does not cover
file descriptors 1 and 2 themselves: what C code or a child process writes there goes where the
worker's own output goes.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

# OpenWhisk keeps 10 MB of logs per activation; an element is a part of one.
DEFAULT_LIMIT = 1 << 20


_PREFIX = len("2026-01-31T23:59:59.123456Z stdout: ")


class LogCapture:
    """A context manager that collects printed lines.

    Parameters
    ----------
    on_line
        Called with ``(stream, text)`` for every line as soon as it is complete, also beyond the
        limit.
    limit
        Bytes of log lines to keep. What comes after is counted, and one line says how much was
        dropped.

    Attributes
    ----------
    lines
        OpenWhisk's form, ``2026-01-31T23:59:59.123456Z stdout: text``.
    """

    def __init__(
        self, on_line: Callable[[str, str], None] | None = None, limit: int = DEFAULT_LIMIT
    ) -> None:
        self.lines: list[str] = []
        self._on_line = on_line
        self._limit = limit
        self._kept = 0
        self._dropped = 0
        self._lock = threading.Lock()
        self._saved: tuple[Any, Any] | None = None
        self._streams: tuple[_LineStream, ...] = ()

    def __enter__(self) -> Self:
        self._saved = (sys.stdout, sys.stderr)
        self._streams = (_LineStream("stdout", self._line), _LineStream("stderr", self._line))
        sys.stdout, sys.stderr = (stream.text() for stream in self._streams)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._saved is not None
        sys.stdout, sys.stderr = self._saved
        for stream in self._streams:
            stream.finish()
        if self._dropped:
            self.lines.append(_format("stderr", f"… {self._dropped} more bytes of logs dropped"))

    def _line(self, stream: str, text: str) -> None:
        if self._on_line is not None:
            self._on_line(stream, text)
        size = len(text.encode(errors="replace")) + 1
        with self._lock:
            # Empty lines are not for nothing: each is kept with its time and its stream.
            if self._dropped or self._kept + size + _PREFIX > self._limit:
                self._dropped += size
            else:
                self._kept += size + _PREFIX
                self.lines.append(_format(stream, text))


def _format(stream: str, text: str) -> str:
    now = datetime.now(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
    return f"{now}Z {stream}: {text}"


class _LineStream(io.RawIOBase):
    """The byte side of a captured stream: cuts what is written into lines."""

    # A line without an end must not grow without bound either.
    LONGEST = 1 << 16

    def __init__(self, name: str, line: Callable[[str, str], None]) -> None:
        self._name = name
        self._line = line
        self._lock = threading.Lock()
        self._rest = b""

    def text(self) -> io.TextIOWrapper:
        """Return the text side."""
        # TextIOWrapper asks for a buffered stream; a raw one that takes all it gets behaves alike.
        return io.TextIOWrapper(
            self,  # type: ignore[arg-type]
            encoding="utf-8",
            errors="backslashreplace",
            newline="\n",
            write_through=True,
        )

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any, /) -> int:
        """Take all of `data`, hand on what are whole lines."""
        taken = bytes(data)
        with self._lock:
            *lines, self._rest = (self._rest + taken).split(b"\n")
            whole = len(self._rest) // self.LONGEST * self.LONGEST
            lines += [self._rest[i : i + self.LONGEST] for i in range(0, whole, self.LONGEST)]
            self._rest = self._rest[whole:]
        for line in lines:
            self._line(self._name, line.decode(errors="backslashreplace"))
        return len(taken)

    def finish(self) -> None:
        """Hand on a last line that was not ended."""
        with self._lock:
            rest, self._rest = self._rest, b""
        if rest:
            self._line(self._name, rest.decode(errors="backslashreplace"))
