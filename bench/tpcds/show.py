"""What a run found, as tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table

from bench.tpcds.figures import OURS, fastest, slow, totals, versus
from bench.tpcds.results import Cell, Pass, Results
from bench.tpcds.targets import Target

__all__ = ["shown", "target_table"]

GIB, MIB = 1 << 30, 1 << 20
WORST = 10


def shown(results: Results) -> Iterator[RenderableType]:
    """Tables of every pass."""
    for one in results.passes.values():
        yield query_table(one, results.sf)
        yield totals_table(one)
        if OURS in one.engines and one.keys("peer"):
            yield worst_table(one)
        yield from failures(one)


def _title(one: Pass, sf: float | None) -> str:
    scale = "" if sf is None else f", SF {sf:g}"
    kind = "from Parquet, nothing resident" if one.name == "cold" else "tables in memory"
    return f"TPC-DS{scale}, {kind}: seconds, medians of the same run"


def _cell(cell: Cell) -> str:
    if cell.timed_out:
        return "[red]timeout[/red]"
    if cell.error is not None or not cell.seconds:
        return "[red]failed[/red]"
    text = f"{cell.median:.3f}"
    return f"[red]{text} wrong[/red]" if cell.wrong is not None else text


def query_table(one: Pass, sf: float | None) -> Table:
    """A row for each query."""
    table = Table(title=_title(one, sf), header_style="bold", pad_edge=False)
    table.add_column("query")
    for engine in one.engines.values():
        table.add_column(engine.title, justify="right")
    has_ours = OURS in one.engines
    peers = one.keys("peer")
    reserving = [key for key in one.engines if any(c[key].gb_s for c in one.queries.values())]
    if has_ours and peers:
        table.add_column("ratio to the faster peer", justify="right")
    for key in reserving:
        table.add_column(f"GB·s, {one.engines[key].title}", justify="right")
    if has_ours:
        table.add_column("largest element", justify="right")
    for number, cells in one.queries.items():
        row = [f"q{number}", *(_cell(cells[key]) for key in one.engines)]
        if has_ours and peers:
            right = [cells[key].median for key in peers if cells[key].answered]
            known = cells[OURS].answered and right
            row.append(f"{cells[OURS].median / min(right):.2f}" if known else "")
        for key in reserving:
            figure = cells[key].reserved_gb_s
            row.append("" if figure is None else f"{figure:.3f}")
        if has_ours:
            row.append(_size(cells[OURS].peak_bytes))
        table.add_row(*row)
    return table


def totals_table(one: Pass) -> Table:
    """A row for each engine."""
    found = totals(one)
    common = sum(
        all(cells[key].answered for key in one.keys("ours", "peer"))
        for cells in one.queries.values()
    )
    table = Table(
        title=f"sums of medians over the {common} queries that all engines answered, and over all",
        header_style="bold",
        pad_edge=False,
    )
    for heading in (
        "engine", "version", "seconds", "CPU-s", "ours/theirs", "spread", "geometric mean",
        "all it answered", "not answered", "GB·s", "ours/theirs GB·s", "most memory", "loading",
    ):  # fmt: skip
        table.add_column(heading, justify="left" if heading in ("engine", "version") else "right")
    mine = found.get(OURS)
    for key, engine in one.engines.items():
        sums = found[key]
        against = versus(one, key) if OURS in one.engines and key != OURS else None
        spread = against.spread if against is not None else None
        relative = (
            f"{mine.gb_s / sums.gb_s:.2f}"
            if mine is not None and mine.gb_s is not None and sums.gb_s and key != OURS
            else ""
        )
        loading = f"{engine.load_seconds:.1f} s" if engine.load_seconds >= 0.5 else ""
        if engine.fill_seconds is not None:
            loading = f"filled in {engine.fill_seconds:.1f} s"
        table.add_row(
            engine.title,
            engine.version,
            f"{sums.common:.2f}",
            f"{sums.cpu_seconds:.1f}",
            "" if against is None else f"{against.ratio:.2f}",
            "" if spread is None else f"±{spread:.0%}",
            "" if against is None else f"{against.geometric_mean:.2f}",
            f"{sums.answered:.2f}",
            ", ".join(f"q{q}" for q in sums.failed) or "-",
            "" if sums.gb_s is None else f"{sums.gb_s:.2f}",
            relative,
            _size(sums.peak_bytes),
            loading,
        )
    return table


def worst_table(one: Pass) -> Table:
    """Where most time is lost, and every query beyond the slack."""
    late = {s.number for s in slow(one)}
    lost = []
    for number, cells in one.queries.items():
        right = [(cells[k].median, k) for k in one.keys("peer") if cells[k].answered]
        if right and cells[OURS].answered:
            best, key = min(right)
            lost.append((cells[OURS].median - best, number, cells[OURS].median, best, key))
    lost.sort(reverse=True)
    rows = [r for n, r in enumerate(lost) if (n < WORST and r[0] > 0) or r[1] in late]
    best_peer = fastest(one)
    about = (
        "" if best_peer is None else f"; the faster peer in all is {one.engines[best_peer].title}"
    )
    table = Table(
        title=f"most time lost to the faster peer; {len(late)} queries are slower than 1.5 x and "
        f"50 ms{about}",
        header_style="bold",
        pad_edge=False,
    )
    for heading in ("query", "lost, s", "ours", "faster peer", "its time", "ratio", "too slow"):
        table.add_column(heading, justify="left" if heading == "faster peer" else "right")
    for difference, number, ours, best, key in rows:
        table.add_row(
            f"q{number}",
            f"{difference:.3f}",
            f"{ours:.3f}",
            one.engines[key].title,
            f"{best:.3f}",
            f"{ours / best:.2f}",
            "[red]yes[/red]" if number in late else "",
        )
    return table


def failures(one: Pass) -> Iterator[str]:
    """A line for each answer that is missing or wrong."""
    for number, cells in one.queries.items():
        for key, cell in cells.items():
            if (reason := cell.error or cell.wrong) is not None:
                kind = "" if cell.error is not None else "wrong: "
                # A message may have brackets, which are markup here.
                text = reason.replace("[", "\\[")
                yield f"{one.name}, q{number}, {one.engines[key].title}: {kind}{text}"


def target_table(rows: Sequence[Target]) -> Table:
    """The targets."""
    table = Table(title="targets", header_style="bold", pad_edge=False)
    for heading in ("what", "target", "measured", "met"):
        table.add_column(heading)
    for row in rows:
        met = "-" if row.met is None else "met" if row.met else "[red]missed[/red]"
        table.add_row(row.name, row.target, row.measured, met)
    return table


def _size(size: int | None) -> str:
    if not size:
        return ""
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"
