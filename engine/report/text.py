"""A profile for the terminal: the stages as a tree with their figures, then each stage's plan.

Made with rich. `format_profile` gives plain text of any width, for logs and pipes; `show` prints
with colours where the console has them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Literal

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from engine.report.profile import ExchangeProfile, QueryProfile, StageProfile
from libd.units import format_size

__all__ = ["Q_ERROR_BAD", "Q_ERROR_SUSPICIOUS", "format_profile", "format_seconds", "show"]

Q_ERROR_SUSPICIOUS, Q_ERROR_BAD = 3.0, 10.0
"""From which q-error on an estimate is shown as suspicious, and as bad."""

# What a narrow terminal can do without, first what it misses least.
_DISPENSABLE = ("writes", "est. bytes", "CPU", "began at", "peak", "bytes")
_SHARE = {"all": "all of", "part": "its partition of", "own": "its own number's frame of"}


def format_profile(profile: QueryProfile, *, plans: bool = True) -> str:
    """The profile as plain text, as wide as it needs to be; `plans` adds each stage's plan."""
    out = io.StringIO()
    show(profile, Console(file=out, width=10_000, color_system=None), plans=plans)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def show(profile: QueryProfile, console: Console, *, plans: bool = True) -> None:
    """Print the profile."""
    console.print(_headline(profile), highlight=False, soft_wrap=True)
    columns = _columns(profile)
    table = _tree(profile, columns)
    boundless = console.options.update(width=10_000)
    for name in _DISPENSABLE:
        if Measurement.get(console, boundless, table).maximum <= console.width:
            break
        columns = [c for c in columns if c != name]
        table = _tree(profile, columns)
    console.print(table, highlight=False)
    if profile.analyzed:
        for line in _remarks(profile):
            console.print(line, highlight=False, soft_wrap=True)
    if plans:
        for stage in profile.stages:
            console.print()
            console.print(_details(profile, stage), highlight=False, soft_wrap=True)


def format_seconds(seconds: float | None) -> str:
    """A duration in the unit that reads best."""
    if seconds is None:
        return ""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 99.995 else f"{seconds:.0f} s"


def _headline(profile: QueryProfile) -> Text:
    words = [f"{len(profile.stages)} stages", f"{profile.elements} compute elements"]
    if profile.analyzed:
        rows = profile.result.output.rows
        if rows is not None:
            words.append(f"{rows:,} row{'' if rows == 1 else 's'}")
        words.append(format_seconds(profile.seconds))
    line = Text.assemble((profile.name, "bold"), ": ", ", ".join(words))
    if profile.status not in ("planned", "success"):
        line.append(f" ({profile.status})", style="bold red")
    return line


def _columns(profile: QueryProfile) -> list[str]:
    if not profile.analyzed:
        return ["writes", "est. rows", "est. bytes"]
    repeated = ["repeated"] if any(s.repeated for s in profile.stages) else []
    return [
        *("writes", "est. rows", "rows", "q-error", "est. bytes", "bytes"),
        *("began at", "time", "CPU", "peak", *repeated),
    ]


def _tree(profile: QueryProfile, columns: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("stage", no_wrap=True)
    for name in columns:
        justify: Literal["left", "right"] = "left" if name == "writes" else "right"
        least = None if name == "writes" else len(name)
        table.add_column(name, justify=justify, no_wrap=name != "writes", min_width=least)
    path = set(profile.critical_path())
    for prefix, stage, again in _walk(profile):
        copies = f" ×{stage.parallelism}" if stage.parallelism > 1 else ""
        name_cell = Text.assemble(
            (prefix, "dim"), (stage.name, "bold" if stage.name in path else ""), (copies, "cyan")
        )
        if again:
            table.add_row(name_cell.append("  (as above)", style="dim"))
            continue
        cells = _cells(stage)
        table.add_row(name_cell, *(cells[name] for name in columns))
    return table


def _cells(stage: StageProfile) -> dict[str, str | Text]:
    output = stage.output
    return {
        "writes": Text(_exchange(output)),
        "est. rows": f"{output.estimated_rows:,.0f}",
        "rows": "" if output.rows is None else f"{output.rows:,}",
        "q-error": _error(output),
        "est. bytes": format_size(int(output.estimated_bytes)),
        "bytes": "" if output.bytes is None else format_size(output.bytes),
        "began at": format_seconds(stage.start),
        "time": format_seconds(stage.seconds),
        "CPU": format_seconds(stage.cpu_seconds),
        "peak": format_size(stage.peak_bytes),
        "repeated": Text(str(stage.repeated) if stage.repeated else "", style="bold red"),
    }


def _walk(profile: QueryProfile) -> Iterator[tuple[str, StageProfile, bool]]:
    """Stages from the answer down to what it is made of, each with its branch of the tree, and
    whether it was there before.
    """
    seen: set[str] = set()

    def go(stage: StageProfile, lead: str, branch: str) -> Iterator[tuple[str, StageProfile, bool]]:
        again = stage.name in seen
        yield lead + branch, stage, again and bool(stage.reads)
        if again:
            return
        seen.add(stage.name)
        below = lead + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
        for number, read in enumerate(stage.reads, 1):
            last = number == len(stage.reads)
            yield from go(profile.stage(read.writer), below, "└─ " if last else "├─ ")

    return go(profile.result, "", "")


def _exchange(output: ExchangeProfile) -> str:
    if output.kind == "hash":
        return f"{output.name}: hash({', '.join(output.keys)}) into {output.partitions}"
    return output.name if output.kind == "result" else f"{output.name}: {output.kind}"


def _error(output: ExchangeProfile) -> Text:
    error = output.q_error
    if error is None:
        return Text("")
    style = ""
    if error >= Q_ERROR_SUSPICIOUS:
        style = "bold red" if error >= Q_ERROR_BAD else "yellow"
    text = f"{error:.1f}" if error < 100 else f"{error:,.0f}"
    # Without colours a mark says the same.
    return Text(f"{'! ' if error >= Q_ERROR_BAD else ''}{text}", style=style)


def _remarks(profile: QueryProfile) -> Iterator[Text]:
    if path := profile.critical_path():
        yield Text.assemble(("critical path: ", "dim"), " → ".join(path))
    worst = profile.worst_estimate()
    if worst is not None and worst[1] >= Q_ERROR_SUSPICIOUS:
        yield Text.assemble(("worst estimate: ", "dim"), f"{worst[0]}, wrong by ×{worst[1]:,.0f}")
    if profile.usage is not None:
        usage = profile.usage
        parts = [
            f"{usage['compute_gb_s'] + usage['memory_gb_s']:.3f} GB·s reserved",
            f"{usage['held_gb_s']:.3f} GB·s held by elements",
            f"{usage['cpu_s']:.2f} s CPU",
            f"{format_size(sum(s.output.bytes or 0 for s in profile.stages))} written",
        ]
        if usage["recomputed"]:
            parts.append(f"recomputed: {', '.join(usage['recomputed'])}")
        yield Text.assemble(("cost: ", "dim"), ", ".join(parts))
    if profile.error is not None:
        yield Text(profile.error.splitlines()[0], style="bold red")


def _details(profile: QueryProfile, stage: StageProfile) -> Text:
    copies = "1 copy" if stage.parallelism == 1 else f"{stage.parallelism} copies"
    text = Text.assemble((stage.name, "bold"), f" ({copies})")
    for read in stage.reads:
        text.append(f"\n  reads {_SHARE[read.mode]} {read.exchange} from {read.writer}")
    for table in stage.tables:
        if table.shares is None:
            text.append(f"\n  reads {table.table}, {table.rows:,} rows")
        elif len(table.shares) > 1:
            shares = ", ".join(f"{n:,}" for n in table.shares[:8])
            more = ", …" if len(table.shares) > 8 else ""
            text.append(f"\n  reads its part of {table.table}: {shares}{more} rows")
        else:
            text.append(f"\n  reads its part of {table.table}: {table.rows:,} rows")
    for line in stage.plan.splitlines():
        text.append(f"\n  | {line}", style="dim")
    text.append(f"\n  writes {_written(stage.output)}")
    if profile.analyzed:
        for copy in stage.copies:
            text.append(f"\n  [{copy.index}] ")
            if copy.seconds is None:
                text.append(copy.status)
                continue
            facts = [
                f"{format_seconds(copy.start)} + {format_seconds(copy.seconds)}",
                f"CPU {format_seconds(copy.cpu_seconds)}",
                f"peak {format_size(copy.peak_bytes)} of {format_size(copy.limit_bytes)}",
            ]
            if stage.reads and copy.rows_read is not None:
                facts.append(f"read {copy.rows_read:,} rows")
            if copy.rows_written is not None:
                facts.append(f"wrote {copy.rows_written:,} rows")
            if copy.attempts > 1:
                facts.append(f"attempt {copy.attempts}")
            if copy.status != "done":
                facts.append(copy.status)
            text.append(", ".join(facts))
    return text


def _written(output: ExchangeProfile) -> str:
    estimate = (
        f"about {output.estimated_rows:,.0f} rows, {format_size(int(output.estimated_bytes))}"
    )
    if output.rows is None or output.bytes is None:
        return f"{_exchange(output)}, {estimate}"
    return (
        f"{_exchange(output)}, {output.rows:,} rows, {format_size(output.bytes)} "
        f"(expected {estimate})"
    )
