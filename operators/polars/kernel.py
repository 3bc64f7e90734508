"""Polars as a kernel: runs the functions that `operators.polars.lower` writes.

Polars has one pool of threads per process (`POLARS_MAX_THREADS`) and no limit of memory: where it
cannot have what it asks for, it ends the process. It is for elements that may hold what their
fragment is expected to need.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.types as pt

from operators.errors import KernelError, KernelMemoryError
from operators.file_versions import Versions, file_versions
from operators.in_memory import kept_batches
from operators.kernel import ArrowStream, InMemory
from operators.polars.fragment import FUNCTION, PolarsFragment
from operators.polars.types import NAMES
from operators.rel import ParquetSource
from operators.schema import Schema
from operators.types import canonical

__all__ = ["Query", "function", "run", "scan"]

Query = Callable[..., pl.LazyFrame]
"""Takes lazy frames, gives one."""


def function(fragment: PolarsFragment) -> Query:
    """The function that a fragment's text defines."""
    namespace: dict[str, Any] = {}
    text = "\n".join([*NAMES.values(), fragment.text])
    exec(compile(text, "<fragment>", "exec"), namespace)
    made: Query = namespace[FUNCTION]
    return made


def scan(
    source: ParquetSource | ArrowStream, nth: int = 0, columns: Sequence[str] | None = None
) -> pl.LazyFrame:
    """A lazy frame over Parquet files, or over Arrow data, which is read whole.

    Parameters
    ----------
    columns
        Of Arrow data, if it can be asked for them: those to have. Integers and floats stay where
        they are, decimals and strings are copied.
    nth
        Which scan of these files it is in a query, from 0. Scans that are alike Polars takes for
        one and holds their rows, which the conditions of none make fewer then.

    Raises
    ------
    KernelError
        If files cannot be read, or have a type with which Polars computes otherwise than DuckDB.
    """
    if not isinstance(source, ParquetSource):
        return _checked(pl.DataFrame(_loaded(source, columns)).lazy())
    if source.part is not None or source.hive:
        raise KernelError("Polars reads whole tables, without columns in their paths")
    key, versions = (source.paths, nth), file_versions(source.paths)
    known = _scans.get(key)
    if known is not None and known[0] == versions:
        return known[1]
    scanned = pl.scan_parquet(
        list(source.paths),
        glob=False,
        hive_partitioning=False,
        # No name of a file begins so. It only makes scans unequal (and is called unstable).
        hidden_file_prefix=f"/{nth}",
    )
    frame = _checked(scanned)
    if len(_scans) >= _MOST_SCANS:
        _scans.clear()
    if len(source.paths) <= _MOST_FILES:
        _scans[key] = versions, frame
    return frame


def _loaded(source: ArrowStream, columns: Sequence[str] | None) -> pa.Table:
    if columns is None or not hasattr(source, "resident_batches"):
        return pa.RecordBatchReader.from_stream(source).read_all()
    found: InMemory | None = source.resident_batches(list(columns))
    if found is None:
        return pa.RecordBatchReader.from_stream(source.arrow_stream(list(columns))).read_all()
    return pa.Table.from_batches(kept_batches(found, pl.thread_pool_size()), found.schema)


# A scan that was resolved once knows its files' footers: reading these again for the next query
# takes a fifth of a millisecond for each table. Files are compared before.
_scans: dict[tuple[tuple[str, ...], int], tuple[Versions, pl.LazyFrame]] = {}
_MOST_SCANS, _MOST_FILES = 100, 100


def _checked(frame: pl.LazyFrame) -> pl.LazyFrame:
    """A scan whose columns are of types with which Polars computes as DuckDB does."""
    with _translated():
        types = frame.collect_schema().dtypes()
    if pl.Datetime("ns") in types:
        raise KernelError("Polars rounds nanoseconds down, DuckDB towards 1970")
    if any(isinstance(t, pl.Categorical | pl.Enum) for t in types):
        # To the plan, dictionaries of strings are strings.
        frame = frame.with_columns(
            (pl.selectors.categorical() | pl.selectors.enum()).cast(pl.String)
        )
    return frame


def run(query: Query, frames: Mapping[str, pl.LazyFrame], schema: Schema) -> pa.RecordBatchReader:
    """Start a query; batches come as they are made.

    Parameters
    ----------
    frames
        What the function takes, in its order.
    schema
        Names and types of the answer's columns.

    Raises
    ------
    KernelMemoryError
        If it cannot have memory, and says so; mostly it ends the process.
    KernelError
        If it fails in any other way, also while the batches are read.
    """
    wanted = pa.schema([pa.field(f.name, canonical(f.type)) for f in schema])

    def batches() -> Iterator[pa.RecordBatch]:
        with _translated():
            for frame in _collected(query(*frames.values())):
                yield from _converted(frame, wanted)

    return pa.RecordBatchReader.from_batches(wanted, batches())


def _collected(query: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """The batches of a query as they are made, one ahead.

    `LazyFrame.collect_batches` does the same, but takes a panic of Polars in its own thread for the
    end (2.1): an answer without rows, or without the last of them. `sink_batches` raises it.
    """
    made: queue.Queue[pl.DataFrame | None] = queue.Queue(1)
    failures: list[BaseException] = []
    left = threading.Event()

    def take(batch: pl.DataFrame) -> bool:
        made.put(batch)
        return left.is_set()

    def work() -> None:
        try:
            query.sink_batches(take, engine="streaming")
        except BaseException as error:  # PanicException is no Exception
            failures.append(error)
        made.put(None)

    thread = threading.Thread(target=work, name="polars", daemon=True)
    thread.start()
    done = False
    try:
        while (batch := made.get()) is not None:
            yield batch
        done = True
    finally:
        # Who leaves early frees the place for what is under way; the answer to it ends the query.
        left.set()
        while not done:
            done = made.get() is None
        thread.join()
    if failures:
        raise failures[0]


def _converted(frame: pl.DataFrame, wanted: pa.Schema) -> list[pa.RecordBatch]:
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    if len(table.schema) != len(wanted):
        raise KernelError(f"{len(wanted)} columns expected, {len(table.schema)} came")
    for have, want in zip(table.schema.types, wanted.types, strict=True):
        if not _alike(have, want):
            raise KernelError(f"a column is {have}, not {want}")
    batches: list[pa.RecordBatch] = table.rename_columns(wanted.names).cast(wanted).to_batches()
    return batches


def _alike(have: pa.DataType, want: pa.DataType) -> bool:
    """Whether two types differ in layout only. Others would mean that the lowering is wrong."""
    if pt.is_decimal(have) and pt.is_decimal(want):
        return bool(have.scale == want.scale)
    return bool(have == want or canonical(have) == want or pt.is_null(have) or pt.is_null(want))


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Polars' errors as this room's."""
    try:
        yield
    except (MemoryError, pa.ArrowMemoryError) as error:
        raise KernelMemoryError(str(error)) from error
    except (pl.exceptions.PolarsError, OSError, pa.ArrowException) as error:
        if "Cannot allocate memory" in str(error):
            raise KernelMemoryError(str(error)) from error
        raise KernelError(str(error)) from error
    except pl.exceptions.PanicException as error:
        raise KernelError(f"Polars failed: {error}") from error
