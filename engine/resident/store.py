"""The session's side: which columns of base tables are resident, and for whom.

All resident columns of a session lie in one elastic memory element that belongs to the session
(``lifetime: session``), of which the budget is the limit: the memory server holds to it too.
Elements of a small application fill in what a query lacks; what they wrote is on a lease until this
side has taken it over, so that nothing stays behind if either dies. Columns that a query reads are
pinned by its `Lease`; others go when room is needed (`engine.resident.policy`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.types as pt

from engine.errors import EngineError
from engine.resident.applications import filling
from engine.resident.files import TableFiles, fingerprint
from engine.resident.layout import (
    ELEMENT,
    ColumnSpec,
    FillJob,
    FillTable,
    Grant,
    Piece,
    PlainTable,
    from_plain,
    to_plain,
)
from engine.resident.memory import ResidentMemory
from engine.resident.needs import Needs
from engine.resident.policy import Sieve
from engine.resident.use import ResidentStats, ResidentUse
from libd.errors import LibdError, ScadError
from remote_frame.types import buffer_kinds, type_to_text

if TYPE_CHECKING:
    from openwhisk.api import Activation, ControlPlane

__all__ = ["Lease", "ResidentColumns"]

log = logging.getLogger(__name__)

LEAST_BUDGET = 1 << 20
_FILL_LEASE = 30.0
# Of a table in more files than that, addresses alone would be a burden to every element.
_MOST_CHUNKS = 4096
_GB = 10**9

Key = tuple[tuple[str, ...], str]
"""A table's files, a column's name."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The resident columns of one query while it runs.

    Attributes
    ----------
    parameters
        What the query's elements get as parameters.
    """

    parameters: dict[str, Any]
    use: ResidentUse
    keys: tuple[Key, ...]
    memory: int


@dataclass(slots=True)
class _Resident:
    """A resident column, as it is and in plain JSON: every query that reads it is told so."""

    spec: ColumnSpec
    size: int
    plain: Any


@dataclass(slots=True)
class _Table:
    files: TableFiles
    columns: dict[str, _Resident] = field(default_factory=dict)


class ResidentColumns:
    """Resident columns within a budget. Safe to use from several threads.

    Parameters
    ----------
    budget
        Bytes that they may take.
    transport
        How elements reach memory.
    parallelism
        Elements that fill at the same time.
    compute_memory
        Bytes of each of them.

    Raises
    ------
    EngineError
        If the budget makes no sense.
    """

    def __init__(
        self,
        budget: int,
        transport: str,
        parallelism: Callable[[], int],
        compute_memory: Callable[[], int],
    ) -> None:
        check_budget(budget)
        self._memory = ResidentMemory(budget, transport, compute_memory)
        self._parallelism = parallelism
        self._compute_memory = compute_memory
        self._lock = threading.RLock()
        self._tables: dict[tuple[str, ...], _Table] = {}
        self._sieve: Sieve[Key] = Sieve()
        self._pins: Counter[Key] = Counter()
        self._doomed: dict[Key, list[_Resident]] = {}
        self._stats = ResidentStats(budget)
        self._since = time.monotonic()

    @property
    def budget(self) -> int:
        """Bytes that resident columns may take."""
        return self._stats.budget

    def stats(self) -> ResidentStats:
        """Counters since the session began."""
        with self._lock:
            self._charge()
            return replace(self._stats, bytes=self._sieve.bytes, columns=len(self._sieve))

    @contextmanager
    def lease(self, control: ControlPlane, session: str, needs: Needs) -> Iterator[Lease]:
        """The columns that a query needs, filled as far as they fit, for as long as it runs.

        Raises
        ------
        DataError
            If a file is gone or unreadable.
        EngineError
            If there can be no resident memory.
        """
        lease = self._acquire(control, session, needs)
        try:
            yield lease
        finally:
            self._release(lease)

    def check(self, control: ControlPlane, session: str, lease: Lease) -> bool:
        """Whether the memory of a lease is still there."""
        with self._lock:
            memory = self._memory
            return memory.number == lease.memory and memory.durl(control, session) is not None

    def close(self) -> None:
        """Forget everything; the memory goes with the session."""
        with self._lock:
            self._charge()
            self._forget()

    # -- one query ---------------------------------------------------------------------------------

    def _acquire(self, control: ControlPlane, session: str, needs: Needs) -> Lease:
        with self._lock:
            self._charge()
            durl = self._open(control, session)
            stale = self._refresh(needs)
            wanted = {(paths, name) for paths, columns in needs.items() for name in columns}
            present = {key for key in wanted if key in self._sieve}
            for key in present:
                self._sieve.hit(key)
            self._pins.update(wanted)
            try:
                use = self._fill(control, session, durl, needs, wanted - present)
            except BaseException:
                self._unpin(tuple(wanted))
                raise
            use = replace(use, hits=len(present), bytes=self._sieve.bytes)
            self._stats = self._stats.after(use, stale)
            parameters = {ELEMENT: self._granted(durl, needs)}
            return Lease(parameters, use, tuple(wanted), self._memory.number)

    def _release(self, lease: Lease) -> None:
        with self._lock:
            self._unpin(lease.keys)

    def _unpin(self, keys: tuple[Key, ...]) -> None:
        for key in keys:
            self._pins[key] -= 1
            if self._pins[key] <= 0:
                del self._pins[key]
                for resident in self._doomed.pop(key, ()):
                    self._free(resident)

    def _granted(self, durl: str, needs: Needs) -> Grant:
        tables: list[PlainTable] = []
        for paths, names in needs.items():
            table = self._tables[paths]
            columns = {n: table.columns[n].plain for n in names if n in table.columns}
            rows = [c.rows for c in table.files.chunks]
            tables.append({"paths": list(paths), "rows": rows, "columns": columns})
        return {"durl": durl, "tables": tables}

    def _refresh(self, needs: Needs) -> int:
        """Know the tables' files as they are now; the number of columns thrown away as stale."""
        stale = 0
        for paths in needs:
            now = fingerprint(paths)
            known = self._tables.get(paths)
            if known is not None and known.files.fingerprint == now:
                continue
            if known is not None:
                for name in list(known.columns):
                    self._evict((paths, name))
                    stale += 1
            self._tables[paths] = _Table(TableFiles.read(paths, now))
        return stale

    # -- filling and evicting ----------------------------------------------------------------------

    def _fill(
        self, control: ControlPlane, session: str, durl: str, needs: Needs, missing: set[Key]
    ) -> ResidentUse:
        chosen, evictions = self._choose(needs, missing)
        use = ResidentUse(misses=len(missing), evictions=evictions)
        if not chosen:
            return replace(use, rejected=len(missing))
        started = time.perf_counter()
        order = [
            (paths, {n: type_to_text(needs[paths][n]) for p, n in sorted(chosen) if p == paths})
            for paths in dict.fromkeys(p for p, _ in sorted(chosen))
        ]
        job = FillJob(
            durl,
            tuple(FillTable(self._tables[p].files.chunks, columns) for p, columns in order),
            _FILL_LEASE,
        )
        app = filling(job, self._copies(job), self._compute_memory())
        try:
            filled = self._take_over(self._memory.run(control, session, app), order)
        except (EngineError, LibdError) as error:
            # What elements wrote goes when its lease ends. The query says what is wrong with the
            # files, if anything is.
            log.warning("resident columns were not filled: %s", error)
            return replace(use, rejected=len(missing))
        return replace(
            use,
            filled_bytes=filled,
            fill_seconds=time.perf_counter() - started,
            rejected=sum(key not in self._sieve for key in missing),
        )

    def _copies(self, job: FillJob) -> int:
        units = sum(len(t.chunks) * len(t.columns) for t in job.tables)
        return max(1, min(self._parallelism(), units))

    def _choose(self, needs: Needs, missing: set[Key]) -> tuple[set[Key], int]:
        """The missing columns to fill, room made for them; and how many others had to go.

        A table is read from Parquet unless all the columns that the query needs of it are resident,
        so tables are filled whole or not at all, small ones first.
        """
        sizes: dict[tuple[str, ...], int] = {}
        for paths in {paths for paths, _ in missing}:
            files = self._tables[paths].files
            small = len(files.chunks) <= _MOST_CHUNKS
            if small and all(_storable(type) for type in needs[paths].values()):
                sizes[paths] = sum(
                    files.estimate(n, needs[paths][n]) for p, n in missing if p == paths
                )
        chosen: set[Key] = set()
        planned, evicted = 0, 0
        for paths, size in sorted(sizes.items(), key=lambda item: item[1]):
            wanted = self._sieve.bytes + planned + size - self.budget
            if wanted > 0:
                victims = self._sieve.victims(wanted, self._pins)
                if victims is None:
                    continue
                for key in victims:
                    self._evict(key)
                evicted += len(victims)
            planned += size
            chosen |= {(p, n) for p, n in missing if p == paths}
        return chosen, evicted

    def _evict(self, key: Key) -> None:
        paths, name = key
        resident = self._tables[paths].columns.pop(name)
        self._sieve.remove(key)
        if self._pins.get(key):  # stale, but an older query still reads it
            self._doomed.setdefault(key, []).append(resident)
        else:
            self._free(resident)

    def _free(self, resident: _Resident) -> None:
        for piece in resident.spec.pieces:
            self._memory.free(piece)

    def _take_over(
        self, activation: Activation, order: list[tuple[tuple[str, ...], dict[str, str]]]
    ) -> int:
        """Make what elements wrote resident; columns of which a piece is missing are freed."""
        pieces: dict[Key, dict[int, Piece | None]] = {}
        seconds: Counter[Key] = Counter()
        types: dict[Key, str] = {(p, n): t for p, columns in order for n, t in columns.items()}
        (results,) = activation.result.values()
        for result in results if isinstance(results, list) else [results]:
            for number, name, chunk, plain, spent in result["pieces"]:
                key = order[number][0], name
                piece = None if plain is None else from_plain(plain, Piece)
                pieces.setdefault(key, {})[chunk] = piece
                seconds[key] += spent
        total = 0
        for key, type in types.items():
            paths, name = key
            count = len(self._tables[paths].files.chunks)
            found = pieces.get(key, {})
            whole = [p for c in range(count) if (p := found.get(c)) is not None]
            spec = ColumnSpec(type, tuple(whole))
            resident = _Resident(spec, sum(p.size for p in whole), to_plain(spec))
            if len(whole) < count:
                self._free(resident)
                continue
            for piece in whole:
                self._memory.keep(piece)
            self._tables[paths].columns[name] = resident
            self._sieve.add(key, resident.size, seconds[key])
            total += resident.size
        return total

    # -- the memory element ------------------------------------------------------------------------

    def _open(self, control: ControlPlane, session: str) -> str:
        """The address of the memory element, made anew if it is lost."""
        if (durl := self._memory.durl(control, session)) is not None:
            return durl
        self._stats = replace(self._stats, lost=self._stats.lost + len(self._sieve))
        self._forget()
        return self._memory.open(control, session)

    def _forget(self) -> None:
        """Forget the memory element and all that was in it."""
        self._sieve = Sieve()
        self._doomed.clear()
        for table in self._tables.values():
            table.columns.clear()
        self._memory.close()

    def _charge(self) -> None:
        """Account for the bytes held since this was last called."""
        now = time.monotonic()
        spent = self._sieve.bytes * (now - self._since) / _GB
        self._stats = replace(self._stats, gb_s=self._stats.gb_s + spent)
        self._since = now


def check_budget(budget: int) -> None:
    """Refuse budgets that cannot work.

    Raises
    ------
    EngineError
        If it is too small for any table, or more than this machine has.
    """
    from libd.units import format_size

    if budget < LEAST_BUDGET:
        raise EngineError(
            f"a resident budget of {format_size(budget)} holds no columns: give at least "
            f"{format_size(LEAST_BUDGET)}, or None (--resident off) for none"
        )


def _storable(type: pa.DataType) -> bool:
    if pt.is_null(type):
        return False
    try:
        buffer_kinds(type)
    except ScadError:
        return False
    return True
