"""`python -m bench SUITE …`: tables of ratios, the same as JSON, and a figure for each table."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from bench import costs, depths, placement, sizes, verbs
from bench.dag import dag
from bench.harness import Options, Row, Suite, Unavailable, measure
from bench.peers import PEERS
from bench.planning import PLANNERS, planning
from bench.plots import write_plots
from bench.report import report, write_json
from bench.scatter import scattering

SUITES: dict[str, Suite] = {
    "local": sizes.local,
    "shm": sizes.shm,
    "tcp": sizes.tcp,
    "inflight": depths.inflight,
    "random": depths.scattered,
    "clients": depths.clients,
    "map": costs.mapping,
    "overhead": costs.overhead,
    "memory": costs.memory,
    "verbs": verbs.verbs,
    "dag": dag,
    "planning": planning,
    "scatter": scattering,
}
PEER_NAMES = [*PEERS, *PLANNERS]
GROUPS = {
    "libd": [
        "local", "shm", "tcp", "inflight", "random", "clients", "map", "overhead", "memory",
        "verbs",
    ],
    "transports": ["shm", "tcp", "map"],
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure Scad beside its peers, both in the same run, and print the ratios.",
        epilog="Example: python -m bench libd --targets; "
        "python -m bench tcp --peers socket,redis --plots figures. "
        "All TPC-DS queries have a command line of their own: python -m bench tpcds --help",
    )
    made.add_argument(
        "suite", nargs="+", choices=[*SUITES, *GROUPS], metavar="suite",
        help=f"what to measure: {', '.join(SUITES)}; "
        + "; ".join(f"{name} is {', '.join(of)}" for name, of in GROUPS.items()),
    )  # fmt: skip
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to FILE")
    made.add_argument(
        "--plots", type=Path, metavar="DIR", help="also draw each table into DIR, as PNG and SVG"
    )
    made.add_argument(
        "--rounds", type=int, default=15, help="rounds per case (default 15; at least 3)"
    )
    made.add_argument(
        "--round-ms", type=float, default=20.0, metavar="MS",
        help="let each side's round last at least so long (default 20)",
    )  # fmt: skip
    made.add_argument(
        "--peers",
        metavar="LIST",
        help=f"only these peers, with commas between: {', '.join(PEER_NAMES)}",
    )
    made.add_argument(
        "--cpus", type=placement.parse, metavar="C:S", default=placement.Placement(),
        help="run all clients on processors C and all servers on S, for example 0:1 "
        "(default: wherever the kernel likes)",
    )  # fmt: skip
    made.add_argument("--targets", action="store_true", help="only cases that have a target")
    made.add_argument("--quick", action="store_true", help="a few small sizes: does it run at all?")
    return made


def main(argv: list[str] | None = None) -> int:
    """Run suites; exit status 0 if every target was met and every suite named could run."""
    arguments_given = sys.argv[1:] if argv is None else argv
    if arguments_given[:1] == ["tpcds"]:
        from bench.tpcds.command import main as tpcds

        return tpcds(arguments_given[1:])
    made = parser()
    arguments = made.parse_args(argv)
    if arguments.rounds < 3:
        made.error("--rounds must be at least 3: a median and quartiles need them")
    peers = None if arguments.peers is None else frozenset(arguments.peers.split(","))
    if unknown := sorted((peers or frozenset()) - set(PEER_NAMES)):
        made.error(f"no such peer: {', '.join(unknown)} (there are {', '.join(PEER_NAMES)})")
    if arguments.plots is not None and importlib.util.find_spec("matplotlib") is None:
        made.error("--plots needs matplotlib: pip install 'scad[bench]'")
    options = Options(peers, arguments.quick, arguments.targets)
    placement.use(arguments.cpus)
    names = [name for suite in arguments.suite for name in GROUPS.get(suite, [suite])]
    rows: list[Row] = []
    unavailable = []
    console = Console(width=None if sys.stdout.isatty() else 150)
    try:
        for name in dict.fromkeys(names):
            with Progress(
                console=console, transient=True, disable=not console.is_terminal
            ) as progress:
                task = progress.add_task(name, total=None)
                try:
                    for case in SUITES[name](options):
                        if options.targets and not case.has_target:
                            continue
                        now = f"{name}: {case.name} | {case.peer_name}"
                        progress.update(task, description=now)
                        if not console.is_terminal:
                            print(now, file=sys.stderr, flush=True)
                        rows.append(measure(case, arguments.rounds, arguments.round_ms * 1e-3))
                except Unavailable as why:
                    unavailable.append(name)
                    print(f"{name}: {why}", file=sys.stderr)
    finally:
        # What was measured before a failure or Ctrl-C is worth seeing.
        for shown in report(rows):
            console.print(shown)
    if arguments.json is not None:
        write_json(arguments.json, rows)
    if arguments.plots is not None:
        write_plots(arguments.plots, rows)
    asked_for = [name for name in unavailable if name in arguments.suite]
    return 1 if asked_for or any(row.met is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
