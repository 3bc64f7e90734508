"""The DuckDB kernel: one warm connection that runs fragments over Arrow streams and Parquet
files.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

import duckdb
import pyarrow as pa

from operators.duckdb import extension
from operators.duckdb.failures import translated
from operators.duckdb.fragment import Fragment, FragmentInput
from operators.duckdb.inputs import in_memory, narrow, ranged, sparse
from operators.duckdb.lower import lower
from operators.duckdb.parquet import parquet_text
from operators.duckdb.sqltypes import identifier, quoted_string, sql_type
from operators.errors import KernelError
from operators.file_versions import file_versions
from operators.kernel import ArrowStream
from operators.rel import ParquetSource, Rel
from operators.types import canonical

__all__ = ["Kernel"]

log = logging.getLogger(__name__)

# decimals as decimal32/64 and plain utf8 strings: what the partition kernel and the frames hold.
_ARROW_VERSION = "1.5"
_FIXED_JOINS = ("join_order", "build_side_probe_side")
# Without these DuckDB 1.5.5 can plan statements that it fails at with an internal error ("Failed to
# bind column reference"): one in some thousand random ones.
_SUSPECTS = ("statistics_propagation", "column_lifetime", "compressed_materialization")
# Rows of a batch: DuckDB's row group. Its default, a million, may exceed an element's memory.
_BATCH_ROWS = 122_880
# A limit that no filter is pushed through. DuckDB hands filters on Arrow data to pyarrow, to which
# NaN is not greater than numbers and equals nothing. It is not faster either: 31 against 58 ms for
# a range over 3 M rows, 40 against 22 ms for one string in a hundred.
_ALL_ROWS = 2**63 - 1
_BATCH_BYTES = 64 << 20
_VECTOR = 2048
# A memory limit that is less than a sixteenth below what it may be stays: what a query held last
# time differs by as much, and DuckDB takes half a millisecond to change it.
_CLOSE = 15 / 16
# How statements begin before which inputs can be named. WITH RECURSIVE is another statement.
_WITH = re.compile(r"\s*WITH\s+(?!RECURSIVE\b)", re.IGNORECASE)
_SELECT = re.compile(r"\s*SELECT\b", re.IGNORECASE)
_MOST_FILE_VIEWS = 100


class Kernel:
    """One warm DuckDB connection.

    Parameters
    ----------
    connection
        A connection that nobody else uses while this kernel lives.

    Notes
    -----
    Not thread-safe: one fragment at a time. The reader that `run` returns must be drained
    or closed before the next `run`; `table` does so. Threads, and memory that was freed, are kept
    for the next fragment until `when_idle`.

    Inputs whose batches are in memory already are scanned by a table function of ours
    (``csrc/scan.h``), where the connection could load it (`open` can); others, and columns of types
    that it does not have, as Arrow streams. The difference is what DuckDB's optimizer knows: of a
    stream not even its rows, so that hash tables may be built on the big side.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._memory_limit = 0
        self._temp_directory: str | None = None
        self._threads = 0
        self._resting = False
        self._disabled = ""
        self._registered: list[str] = []
        self._named: dict[str, str] = {}
        self._views: list[str] = []
        self._files: dict[str, object] = {}
        self._tables: list[extension.ScanTable] = []
        self._scans = extension.load(connection)
        connection.execute(f"SET arrow_output_version = '{_ARROW_VERSION}'")
        connection.execute("SET produce_arrow_string_view = false")
        connection.execute("SET arrow_large_buffer_size = false")
        connection.execute("SET preserve_insertion_order = true")
        connection.execute("SET enable_progress_bar = false")
        # DuckDB 1.5 keeps footers and pages of files in memory, and takes a file that was written
        # over within the same second, and is as long, for the one that it knows.
        connection.execute("SET enable_external_file_cache = false")

    @classmethod
    def open(
        cls,
        threads: int,
        memory_limit: int,
        temp_directory: str | None = None,
        storage: int | None = None,
    ) -> Kernel:
        """A kernel of its own.

        Parameters
        ----------
        threads
            Cores that it may use.
        memory_limit
            Bytes that DuckDB's buffers may take.
        temp_directory
            Where operators may spill; None forbids spilling, and what does not fit raises
            `KernelMemoryError`.
        storage
            Most bytes that may be spilled; None leaves it to DuckDB.
        """
        connection = duckdb.connect(
            ":memory:",
            config={
                "threads": threads,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "allow_unsigned_extensions": True,  # ours
            },
        )
        kernel = cls(connection)
        kernel.limit(threads, memory_limit, temp_directory)
        if storage is not None:
            connection.execute(f"SET max_temp_directory_size = '{int(storage)}B'")
        return kernel

    def limit(self, threads: int, memory_limit: int, temp_directory: str | None = None) -> None:
        """Change what the kernel may use; see `open`. Of memory it may be left a little less."""
        self._wake(int(threads))
        # Each statement costs a quarter of a millisecond: what stays is not said again.
        if not _CLOSE * memory_limit <= self._memory_limit <= memory_limit:
            self._connection.execute(f"SET memory_limit = '{int(memory_limit)}B'")
            self._memory_limit = int(memory_limit)
        if self._temp_directory != (directory := temp_directory or ""):
            self._connection.execute(f"SET temp_directory = {quoted_string(directory)}")
            self._temp_directory = directory

    def lower(self, plan: Rel) -> Fragment:
        """The DuckDB statement of `plan`."""
        return lower(plan)

    def run(
        self,
        fragment: Fragment,
        inputs: Mapping[str, ArrowStream] | None = None,
    ) -> pa.RecordBatchReader:
        """Start `fragment`; batches come as they are made, of exactly `fragment.schema`.

        Parameters
        ----------
        fragment
            What `lower` made, perhaps `with_part`.
        inputs
            For every input that the fragment does not read from Parquet, an object with
            `__arrow_c_stream__` (a table, a frame, …). Only the columns that the fragment names
            are asked of it.
        """
        self._forget()
        self._wake(self._threads)
        supplied = dict(inputs or {})
        try:
            with translated(fragment):
                for one in fragment.inputs:
                    self._bind(one, supplied)
                self._optimizers(fragment)
                reader = self._start(fragment)
        except BaseException:
            self._forget()
            raise
        return self._batches(reader, fragment)

    def table(
        self,
        fragment: Fragment,
        inputs: Mapping[str, ArrowStream] | None = None,
    ) -> pa.Table:
        """Run `fragment` to its end; see `run`."""
        return self.run(fragment, inputs).read_all()

    def when_idle(self) -> None:
        """Let threads go, and give freed memory back, while nothing is to do.

        Takes two milliseconds, and as long again when the next fragment is run.
        """
        if self._threads > 1 and not self._resting:
            with contextlib.suppress(duckdb.Error):
                self._connection.execute("SET threads = 1")
            self._resting = True

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Kernel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # One run

    def _bind(self, one: FragmentInput, supplied: Mapping[str, ArrowStream]) -> None:
        if isinstance(one.source, ParquetSource):
            self._file_view(one.name, one.source)
            return
        key = getattr(one.source, "name", one.name)
        if key not in supplied:
            raise KernelError(f"no data was supplied for input {key!r}")
        data = supplied[key]
        if (table := self._scan_table(data, one.columns)) is not None:
            self._tables.append(table)
            self._named[one.name] = f"SELECT * FROM scad_scan({table.id})"
            return
        hidden = f"{one.name} (Arrow)"
        self._connection.register(hidden, narrow(data, one.columns))
        self._registered.append(hidden)
        self._named[one.name] = f"SELECT * FROM {identifier(hidden)} LIMIT {_ALL_ROWS}"

    def _file_view(self, name: str, source: ParquetSource) -> None:
        """Let `name` be a view of Parquet files. One of the same files, unchanged, is kept from
        earlier fragments: making it reads their footers (4 to 14 ms for the tables of a query).
        """
        text = parquet_text(source)
        made = text, file_versions(source.paths)
        if self._files.get(name) == made:
            return
        if len(self._files) >= _MOST_FILE_VIEWS:
            while self._files:
                old, _ = self._files.popitem()
                self._connection.execute(f"DROP VIEW IF EXISTS {identifier(old)}")
        self._connection.execute(f"CREATE OR REPLACE TEMP VIEW {identifier(name)} AS {text}")
        self._files[name] = made

    def _with_inputs(self, sql: str) -> str:
        """The statement with its inputs that are no files named before it; as views, where it
        does not begin as what `lower` makes, or uses a name anew.

        A view takes DuckDB half a millisecond to make, and as long to drop.
        """
        named = ",\n".join(
            # Read twice, it would be kept whole.
            f"{identifier(name)} AS NOT MATERIALIZED ({query})"
            for name, query in self._named.items()
        )
        if not named:
            return sql
        if not any(_names_itself(sql, name) for name in self._named):
            if (begins := _WITH.match(sql)) is not None:
                return f"WITH {named},\n{sql[begins.end() :]}"
            if _SELECT.match(sql):
                return f"WITH {named}\n{sql}"
        for name, query in self._named.items():
            self._files.pop(name, None)
            self._connection.execute(f"CREATE OR REPLACE TEMP VIEW {identifier(name)} AS {query}")
            self._views.append(name)
        return sql

    def _scan_table(self, data: ArrowStream, columns: Sequence[str]) -> extension.ScanTable | None:
        """The batches of `data` for our own scan, None where they have to be streamed."""
        if not self._scans:
            return None
        found = in_memory(data, columns)
        if found is None:
            return None
        rows = sum(b.num_rows for b in found.batches)
        try:
            ranges = [
                known if ranged(field.type) and not sparse(known, rows) else None
                for field, known in zip(found.schema, found.ranges, strict=False)
            ]
            scanned = extension.ScanTable(found.schema, found.batches, ranges)
        except TypeError:  # a column's type
            return None
        for column, keys in found.kept:
            scanned.keep(column, keys.low, keys.bits)
        return scanned

    def _optimizers(self, fragment: Fragment) -> None:
        """Switch off what would work against the plan, or change its answer.

        Filters that joins push down while they run reach Arrow inputs in spite of the limit, where
        pyarrow applies them: -0.0 is not 0.0 to it, NaN equals nothing, and it has no kernel for
        narrow decimals and Bloom filters. Nothing but Parquet files makes use of them; where there
        are none, they would only have DuckDB look for perfect hash tables (`sparse`).
        """
        disabled = list(_FIXED_JOINS) if fragment.fixed_joins else []
        files = any(isinstance(i.source, ParquetSource) for i in fragment.inputs)
        if self._registered or not files or not fragment.join_filters:
            disabled.append("join_filter_pushdown")
        self._disable(disabled)

    def _disable(self, optimizers: Sequence[str]) -> None:
        setting = ",".join(optimizers)
        if setting != self._disabled:
            self._connection.execute(f"SET disabled_optimizers = '{setting}'")
            self._disabled = setting

    def _execute(self, sql: str) -> duckdb.DuckDBPyConnection:
        """Run a statement; one at which the optimizer fails, with less of that until the next
        fragment: a statement in between would end the answer.
        """
        try:
            return self._connection.execute(sql)
        except duckdb.InternalException as error:
            log.warning("DuckDB failed, and is asked again: %s", str(error).partition("\n")[0])
        before = self._disabled.split(",") if self._disabled else []
        self._disable([*before, *_SUSPECTS])
        return self._connection.execute(sql)

    def _start(self, fragment: Fragment) -> pa.RecordBatchReader:
        wanted = fragment.schema.types
        rows = _batch_rows(len(wanted))
        sql = self._with_inputs(fragment.sql)
        reader = self._execute(sql).to_arrow_reader(rows)
        given = reader.schema.types
        if len(given) < len(wanted):
            raise KernelError(f"{len(wanted)} columns expected, {len(given)} came", fragment.sql)
        if all(g == canonical(w) or w == pa.null() for g, w in zip(given, wanted, strict=False)):
            return reader
        reader.close()
        columns = ", ".join(
            f"CAST({c} AS {sql_type(t)}) AS {c}"
            for c, t in ((f"c{i}", t) for i, t in enumerate(wanted))
        )
        names = ", ".join(f"c{i}" for i in range(len(given)))
        cast = f"SELECT {columns} FROM (\n{sql}\n) AS answer({names})"
        return self._execute(cast).to_arrow_reader(rows)

    def _batches(self, reader: pa.RecordBatchReader, fragment: Fragment) -> pa.RecordBatchReader:
        schema = pa.schema([pa.field(f.name, canonical(f.type)) for f in fragment.schema])

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                with translated(fragment):
                    for batch in reader:
                        columns = [
                            # DuckDB exports its untyped NULL as int32.
                            pa.nulls(batch.num_rows) if f.type == pa.null() else column
                            for f, column in zip(schema, batch.columns, strict=False)
                        ]
                        if columns:
                            yield pa.RecordBatch.from_arrays(columns, schema=schema)
                        else:
                            yield batch.select([])
            finally:
                self._forget()

        return pa.RecordBatchReader.from_batches(schema, batches())

    def _wake(self, threads: int) -> None:
        """Have as many threads as `threads` says; 0 leaves them alone."""
        if threads and (self._resting or threads != self._threads):
            self._connection.execute(f"SET threads = {threads}")
            self._threads, self._resting = threads, False

    def _forget(self) -> None:
        self._named.clear()
        while self._views:
            self._connection.execute(f"DROP VIEW IF EXISTS {identifier(self._views.pop())}")
        while self._registered:
            self._connection.unregister(self._registered.pop())
        while self._tables:
            self._tables.pop().close()


def _names_itself(sql: str, name: str) -> bool:
    """Whether a statement may give an input's name to a subquery, as people write who wrap it."""
    text = rf"(?<!\w)\"?{re.escape(name)}\"?(\s*\([^()]*\))?\s+AS\s+((NOT\s+)?MATERIALIZED\s+)?\("
    return re.search(text, sql, re.IGNORECASE) is not None


def _batch_rows(columns: int) -> int:
    """Rows of an answer's batches: whole vectors, `_BATCH_ROWS` where columns are few.

    DuckDB reserves a batch in full before the first row: 8 GB for 2000 integers a row.
    """
    fitting = _BATCH_BYTES // (8 * max(1, columns))
    return min(_BATCH_ROWS, max(_VECTOR, fitting // _VECTOR * _VECTOR))
