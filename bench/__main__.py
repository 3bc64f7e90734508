"""`python -m bench transports|dag`: a table of ratios, and the same as JSON."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.dag import dag
from bench.harness import Row, Suite, measure
from bench.transports import transports

SUITES: dict[str, Suite] = {"transports": transports, "dag": dag}


def table(rows: list[Row]) -> Table:
    """Rows as people read them."""
    shown = Table(title="ours beside a peer, medians of the same run")
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
            f"{row.ours:.3g}",
            row.peer_name,
            "-" if row.peer is None else f"{row.peer:.3g}",
            "-" if row.ratio is None else f"{row.ratio:.2f}",
            "-" if row.spread is None else f"±{row.spread / 2:.0%}",
            row.target,
            "-" if row.met is None else "yes" if row.met else "[red]no[/red]",
        )
    return shown


def write_json(path: Path, rows: list[Row]) -> None:
    """Write the rows atomically."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps([row.to_json() for row in rows], indent=2) + "\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def main(argv: list[str] | None = None) -> int:
    """Run suites; exit status 0 if every target was met."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure Scad beside its peers, both in the same run, and print the ratios.",
        epilog="Example: python -m bench transports dag --json figures.json",
    )
    parser.add_argument("suite", nargs="+", choices=sorted(SUITES), help="what to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to FILE")
    parser.add_argument(
        "--rounds", type=int, default=15, help="rounds per case (default 15; at least 3)"
    )
    arguments = parser.parse_args(argv)
    if arguments.rounds < 3:
        parser.error("--rounds must be at least 3: a median and quartiles need them")
    rows: list[Row] = []
    console = Console(width=None if sys.stdout.isatty() else 140)
    for name in arguments.suite:
        with SUITES[name]() as cases, Progress(console=console, transient=True) as progress:
            task = progress.add_task(name, total=len(cases))
            for case in cases:
                progress.update(task, description=f"{name}: {case.name}")
                rows.append(measure(case, arguments.rounds))
                progress.advance(task)
    console.print(table(rows))
    if arguments.json is not None:
        write_json(arguments.json, rows)
    return 1 if any(row.met is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
