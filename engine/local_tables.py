"""Tables of this process made readable for elements: Arrow data as Parquet in anonymous memory
files.

A memory file has no name that could outlive its owner. Workers of the same user open it under
``/proc/PID/fd/N`` for as long as this process keeps it.
"""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from engine.catalog import Catalog
from engine.errors import DataError
from engine.optimizer.expressions import map_subqueries, with_inputs
from operators.rel import InputSource, ParquetSource, Rel, Scan

__all__ = ["LocalTables"]

_ROW_GROUP = 122_880


class LocalTables:
    """The memory files of one session. Safe to use from several threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._files: dict[str, tuple[pa.Table, int]] = {}
        self._lock = threading.Lock()

    def resolve(self, plan: Rel) -> Rel:
        """`plan` with scans of registered Arrow data reading files instead.

        Raises
        ------
        DataError
            If data cannot be written as Parquet, or a frame of another origin is among the inputs.
        """
        plan = map_subqueries(plan, self.resolve)
        plan = with_inputs(plan, [self.resolve(i) for i in plan.inputs()])
        if not isinstance(plan, Scan) or not isinstance(plan.source, InputSource):
            return plan
        name = plan.source.name
        data = self._catalog[name].data if name in self._catalog else None
        if data is None:
            raise DataError(f"input {name!r} is not a table of this session: register it")
        return replace(plan, source=ParquetSource(name, (self._path(name, data),)))

    def _path(self, name: str, data: pa.Table) -> str:
        with self._lock:
            known = self._files.get(name)
            if known is not None and known[0] is data:
                descriptor = known[1]
            else:
                descriptor = _written(name, data)
                self._files[name] = (data, descriptor)
                if known is not None:
                    os.close(known[1])
        return f"/proc/{os.getpid()}/fd/{descriptor}"

    def close(self) -> None:
        """Give the memory back."""
        with self._lock:
            for _, descriptor in self._files.values():
                os.close(descriptor)
            self._files.clear()


def _written(name: str, data: pa.Table) -> int:
    """The descriptor of a new memory file that holds `data` as Parquet."""
    descriptor = os.memfd_create("scad-table", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            pq.write_table(data, file, row_group_size=_ROW_GROUP, compression="zstd")
    except (pa.ArrowException, OSError) as error:
        os.close(descriptor)
        raise DataError(f"table {name!r}: {error}") from error
    return descriptor
