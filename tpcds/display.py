"""What a run shows to people: progress of generation, a live table of queries, a summary.

On a terminal the table grows in place; elsewhere (a pipe, a log) each finished query is one plain
line.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table
from rich.text import Text

from libd.units import format_size
from tpcds.data import Progress
from tpcds.peers import PEERS
from tpcds.record import Peer, QueryRecord, totals

__all__ = [
    "LiveTable",
    "PlainLines",
    "QueryDisplay",
    "generation_progress",
    "resident_summary",
    "summary",
]

_COLUMNS = (
    "query",
    "stages",
    "elements",
    "seconds",
    "DuckDB",
    "ratio",
    "exchanged",
    "in memory elements",
    "largest element",
    "verified",
)
# What a terminal that is not wide can do without: a row is one line, whatever the width.
_WIDE = 112
_ONLY_WIDE = ("stages", "in memory elements", "largest element")
# Characters of a failure's reason in a plain line.
_REASON = 72


@contextmanager
def generation_progress(console: Console, title: str) -> Iterator[Callable[[Progress], None]]:
    """A bar that appears with the first report; off a terminal, a line whenever a tenth is
    done.
    """
    if not console.is_terminal:
        yield _plain_progress(console, title)
        return
    with ProgressBar(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[message]}"),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task(title, total=1.0, message="", visible=False)

        def report(step: Progress) -> None:
            bar.update(task, completed=step.fraction, message=step.message, visible=True)

        yield report


def _plain_progress(console: Console, title: str) -> Callable[[Progress], None]:
    shown = -1

    def report(step: Progress) -> None:
        nonlocal shown
        tenth = int(step.fraction * 10)
        if tenth > shown:
            shown = tenth
            line = f"{title}: {tenth * 10} % ({step.message})"
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    return report


class QueryDisplay(Protocol):
    """Shows queries as they have their turn; a context manager around all of them."""

    def start(self, number: int) -> None:
        """A query's turn begins."""

    def finish(self, record: QueryRecord) -> None:
        """It is over."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class PlainLines:
    """One line per finished query. Of a failure it has the beginning: `summary` says all."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def start(self, number: int) -> None:
        """Nothing to show yet."""

    def finish(self, record: QueryRecord) -> None:
        """Show a query's line."""
        words = [f"q{record.number:<3}", _outcome(record)]
        if record.seconds is not None:
            words.append(f"{record.seconds:.3f} s")
        for name, peer in record.peers.items():
            unit = "" if peer.seconds is None else " s"
            words.append(f"{PEERS[name].title} {_peer(peer)}{unit}")
        if ratio := _ratio(record):
            words.append(f"ratio {ratio}")
        if record.stages is not None:
            words.append(f"{record.stages} stages")
        if record.elements is not None:
            words.append(f"{record.elements} elements")
        if record.bytes_written is not None:
            words.append(f"{format_size(record.bytes_written)} exchanged")
        if record.peak_memory_bytes is not None:
            words.append(f"{format_size(record.peak_memory_bytes)} in memory elements")
        if record.peak_anon_bytes is not None:
            words.append(f"largest element {format_size(record.peak_anon_bytes)}")
        if record.error is not None:
            words.append(textwrap.shorten(record.error, _REASON, placeholder=" …"))
        self._console.print("  ".join(words), highlight=False, markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None


class LiveTable:
    """A table that grows in place, and shows as many of the last queries as fit the terminal.

    When it ends it is printed once more, whole.
    """

    def __init__(self, console: Console, asked: int, compared: Sequence[str] = ()) -> None:
        self._console = console
        self._asked = asked
        self._compared = [name for name in compared if name != "duckdb"]
        self._records: list[QueryRecord] = []
        self._current: tuple[int, float] | None = None
        self._live = Live(
            console=console, get_renderable=self._visible, refresh_per_second=8, transient=True
        )

    def start(self, number: int) -> None:
        """Show that a query runs, and for how long."""
        self._current = (number, time.monotonic())

    def finish(self, record: QueryRecord) -> None:
        """Show what came of it."""
        self._current = None
        self._records.append(record)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()
        if self._records:
            self._console.print(self._table(self._records))

    def _visible(self) -> Table:
        fit = max(self._console.height - 6, 1)
        table = self._table(self._records[-fit:])
        if (current := self._current) is not None:
            number, began = current
            seconds = f"{time.monotonic() - began:.1f}"
            place = f"{len(self._records) + 1} of {self._asked}"
            cells = {"query": f"q{number}", "seconds": seconds, "verified": place}
            table.add_row(*(cells.get(str(c.header), "") for c in table.columns), style="dim")
        return table

    def _table(self, records: Sequence[QueryRecord]) -> Table:
        wide = self._console.width >= _WIDE
        shown = [name for name in _COLUMNS if wide or name not in _ONLY_WIDE]
        return _table(records, shown, self._compared)


def summary(console: Console, records: Sequence[QueryRecord], asked: int) -> None:
    """Say how it went, and for each query that did not go well, why."""
    found = totals(records, asked)
    compared = any(record.verified is not None for record in records)
    words = [
        f"{found['verified']} of {asked} verified" if compared else f"{found['ran']} of {asked} ran"
    ]
    words.append(f"{found['seconds']:.2f} s")
    for name, peer in found["peers"].items():
        if peer["seconds"] > 0:
            on = "" if peer["queries"] == found["ran"] else f" on {peer['queries']}"
            ratio = f"ratio {peer['ours'] / peer['seconds']:.2f}"
            words.append(f"{PEERS[name].title} {peer['seconds']:.2f} s ({ratio}{on})")
    words.append(f"{format_size(found['bytes_written'])} exchanged")
    words.append(f"{found['compute_gb_s'] + found['memory_gb_s']:.2f} GB·s")
    for record in records:
        if record.error is not None:
            line = f"q{record.number}: {record.error}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        for name, one in record.peers.items():
            if one.error is not None:
                line = f"q{record.number}, {PEERS[name].title}: {one.error}"
                console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(", ".join(words), highlight=False, markup=False, soft_wrap=True)


def resident_summary(console: Console, found: Mapping[str, Any]) -> None:
    """Say what resident columns did over all passes (`engine.resident.use.ResidentStats`)."""
    words = [
        f"resident: {found['columns']} columns",
        f"{format_size(found['bytes'])} of {format_size(found['budget'])}",
        f"{found['hits']} hits",
        f"{found['misses']} misses",
        f"{found['evictions']} evictions",
        f"{format_size(found['filled_bytes'])} filled in {found['fill_seconds']:.2f} s",
        f"{found['gb_s']:.2f} GB·s",
    ]
    console.print(", ".join(words), highlight=False, markup=False, soft_wrap=True)


def _table(
    records: Sequence[QueryRecord], columns: Sequence[str], compared: Sequence[str] = ()
) -> Table:
    """A row for each record; `compared` are the peers beside DuckDB."""
    table = Table(header_style="bold", pad_edge=False)
    titles = {name: PEERS[name].title for name in compared}
    place = columns.index("DuckDB") + 1
    columns = [*columns[:place], *titles.values(), *columns[place:]]
    for name in columns:
        table.add_column(name, justify="left" if name in ("query", "verified") else "right")
    for record in records:
        cells: dict[str, str | Text] = {
            "query": f"q{record.number}",
            "stages": _count(record.stages),
            "elements": _count(record.elements),
            "seconds": f"{record.seconds:.3f}" if record.seconds is not None else "",
            "DuckDB": _peer(record.peers.get("duckdb")),
            **{title: _peer(record.peers.get(name)) for name, title in titles.items()},
            "ratio": _ratio(record),
            "exchanged": _size(record.bytes_written),
            "in memory elements": _size(record.peak_memory_bytes),
            "largest element": _size(record.peak_anon_bytes),
            "verified": Text(_outcome(record), style="green" if record.verified else ""),
        }
        table.add_row(*(cells[name] for name in columns), style="" if record.succeeded else "red")
    return table


def _outcome(record: QueryRecord) -> str:
    if record.verified is True:
        return "verified"
    if record.verified is False:
        return "WRONG"
    return "failed" if record.error is not None else "ran"


def _peer(peer: Peer | None) -> str:
    """A peer's seconds, or that it has none."""
    if peer is None:
        return ""
    if peer.seconds is None:
        return "failed"
    return f"{peer.seconds:.3f}" + (" wrong" if peer.error is not None else "")


def _ratio(record: QueryRecord) -> str:
    """Ours against the fastest peer that has an answer; our answer may still be wrong."""
    theirs = [
        peer.seconds
        for name, peer in record.peers.items()
        if peer.seconds and (peer.error is None or name == "duckdb")
    ]
    return f"{record.seconds / min(theirs):.2f}" if record.seconds is not None and theirs else ""


def _size(size: int | None) -> str:
    return "" if size is None else format_size(size)


def _count(number: int | None) -> str:
    return "" if number is None else str(number)
