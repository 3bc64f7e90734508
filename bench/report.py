"""Rows as tables on a terminal and as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from bench.harness import Row

__all__ = ["table", "tables", "write_json"]


def tables(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows by table, in the order in which the tables first come."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.table, []).append(row)
    return found


def shown_figure(value: float | None) -> str:
    """Three digits that count, and never an exponent."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(title: str, rows: list[Row]) -> Table:
    """Rows as people read them."""
    shown = Table(title=f"{title}: ours beside a peer, medians of the same run")
    for heading, justify in (
        ("case", "left"), ("unit", "left"), ("ours", "right"), ("peer", "left"),
        ("peer's", "right"), ("ratio", "right"), ("spread", "right"),
        ("target", "left"), ("met", "left"),
    ):  # fmt: skip
        shown.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        shown.add_row(
            row.name,
            row.unit,
            shown_figure(row.ours),
            row.peer_name,
            shown_figure(row.peer),
            shown_figure(row.ratio),
            "-" if row.spread is None else f"±{row.spread / 2:.0%}",
            row.target,
            "-" if row.met is None else "yes" if row.met else "[red]no[/red]",
        )
    return shown


def report(rows: list[Row]) -> Iterator[Table]:
    """All tables."""
    for title, some in tables(rows).items():
        yield table(title, some)


def write_json(path: Path, rows: list[Row]) -> None:
    """Write the rows atomically."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps([row.to_json() for row in rows], indent=2) + "\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
