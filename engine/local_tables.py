"""Tables of this process made readable for elements: Arrow data as Parquet in anonymous memory
files.

A memory file has no name that could outlive its owner. Workers of the same user open it under
``/proc/PID/fd/N`` for as long as this process keeps it.
"""

from __future__ import annotations

import os
import re
import threading
import weakref
from dataclasses import replace

import pyarrow as pa

from engine.errors import DataError
from engine.optimizer.expressions import map_subqueries, with_inputs
from operators.rel import InputSource, ParquetSource, Rel, Scan
from remote_frame.errors import StorageError
from remote_frame.executor import UNNAMED, FrameSource
from remote_frame.local import LocalTable
from remote_frame.spool import SpooledTable

__all__ = ["LocalTables"]


_PATH = re.compile(r"/proc/\d+/fd/\d+")


class LocalTables:
    """The memory files of one session. Safe to use from several threads.

    A file goes back when its table does: that of a registered one when it is replaced and no frame
    reads it, that of a frame when the frame is gone. Only its number stays until the session ends,
    so that one path never stands for two tables.
    """

    def __init__(self) -> None:
        self._frames: weakref.WeakKeyDictionary[LocalTable, SpooledTable] = (
            weakref.WeakKeyDictionary()
        )
        self._descriptors: weakref.WeakKeyDictionary[SpooledTable, int] = (
            weakref.WeakKeyDictionary()
        )
        self._held: list[int] = []
        self._shown: dict[str, str] = {}
        self._lock = threading.Lock()

    def resolve(self, plan: Rel) -> Rel:
        """`plan` with scans of this process's data reading files instead.

        Raises
        ------
        DataError
            If data cannot be written as Parquet, or a frame of another origin is among the inputs.
        """
        plan = map_subqueries(plan, self.resolve)
        plan = with_inputs(plan, [self.resolve(i) for i in plan.inputs()])
        if not isinstance(plan, Scan) or not isinstance(plan.source, InputSource):
            return plan
        source = plan.source
        if not isinstance(source, FrameSource):
            raise DataError(f"input {source.name!r} is not a table of this session: register it")
        return replace(plan, source=ParquetSource(source.label, (self._path(source),)))

    def _path(self, source: FrameSource) -> str:
        with self._lock:
            spooled = self._spooled(source)
            descriptor = self._descriptors.get(spooled)
            if descriptor is None:
                descriptor = os.dup(spooled.descriptor)
                self._descriptors[spooled] = descriptor
                self._held.append(descriptor)
            path = f"/proc/{os.getpid()}/fd/{descriptor}"
            self._shown[path] = _shown(source)
        return path

    def named(self, text: str) -> str:
        """A text in which tables stand for the paths of their memory files."""
        return _PATH.sub(lambda found: self._shown.get(found[0], found[0]), text)

    def _spooled(self, source: FrameSource) -> SpooledTable:
        data = source.data
        if isinstance(data, SpooledTable):
            return data
        if not isinstance(data, LocalTable):
            raise DataError(f"{source.label}: {type(data).__name__} is no data of this process")
        if data not in self._frames:
            self._frames[data] = _written(source.label, data.table())
        return self._frames[data]

    def close(self) -> None:
        """Give the memory back."""
        with self._lock:
            self._frames.clear()
            while self._held:
                os.close(self._held.pop())
            self._descriptors.clear()
            self._shown.clear()


def _shown(source: FrameSource) -> str:
    """What a table of this process is, for people."""
    if source.label != UNNAMED:
        return f"table {source.label!r}"
    return str(getattr(source.data, "origin", source.label))


def _written(name: str, data: pa.Table) -> SpooledTable:
    try:
        return SpooledTable.written(data, f"table {name!r}")
    except StorageError as error:
        raise DataError(str(error)) from error
