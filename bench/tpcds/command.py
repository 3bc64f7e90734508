"""``python -m bench tpcds``: the command line."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.harness import Options, measure
from bench.planning import planning
from bench.scatter import scattering
from bench.tpcds.contestants import BASELINES, Contestant, baseline, peer, scad
from bench.tpcds.figures import summary
from bench.tpcds.measure import Checker, Measurement, warm_files
from bench.tpcds.results import Pass, Results, ResultsError, merged, read, write
from bench.tpcds.scad_engine import unknown_settings
from bench.tpcds.show import shown, target_table
from bench.tpcds.targets import targets
from libd.units import parse_size
from tpcds.data import DataSet, ensure
from tpcds.errors import TpcdsError
from tpcds.oracle import Oracle
from tpcds.peers import PEERS, parse_peer_list
from tpcds.queries import parse_query_list
from tpcds.record import machine, versions

__all__ = ["main", "parser"]

PASSES = ("cold", "resident")
DEFAULT_RESIDENT = "12GB"
DEFAULT_LIMIT = 60.0

_DESCRIPTION = """\
All TPC-DS queries: Scad beside the engines that a user would pick instead, in one run.

Each engine has a process of its own with as many threads as there are cores. The engines take
turns with each query; a figure is the median over rounds. First answers are compared with DuckDB's.
"""

_EXAMPLES = """\
passes:
  cold      every engine reads Parquet files that the kernel has in memory
  resident  DuckDB works on native tables, Polars on frames, Scad on resident columns that a first
            pass over the queries left (loading and that pass are shown, not counted)

baselines of reserved GB·s:
  function  one function: DuckDB with the smallest power-of-two memory limit that suffices
  pipeline  the same stages as functions, data through Redis

examples:
  python -m bench tpcds --queries 1,16,95              a quick look
  python -m bench tpcds --sf 10 --targets              does this build meet its targets?
  python -m bench tpcds --sf 10 --passes resident --apart    one engine in memory at a time
  python -m bench tpcds --queries 1-50 --json a.json   a long run in pieces, and
  python -m bench tpcds --from a.json b.json           the pieces as one
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m bench tpcds",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--sf", type=float, default=1.0, metavar="N", help="scale factor (default 1)")
    made.add_argument(
        "--queries", default="all", metavar="LIST", help="such as 1,16,90-95 (default all)"
    )
    made.add_argument(
        "--peers", metavar="LIST",
        help=f"of {', '.join(PEERS)} (default: those of the passes); none for none",
    )  # fmt: skip
    made.add_argument(
        "--baselines", metavar="LIST",
        help="function,pipeline or none (default: both with --targets, else none)",
    )  # fmt: skip
    made.add_argument("--no-scad", action="store_true", help="only peers and baselines")
    made.add_argument("--rounds", type=int, default=3, help="turns per query (default 3)")
    made.add_argument(
        "--passes", default="cold", metavar="LIST", help="cold,resident (default cold)"
    )
    made.add_argument("--policy", metavar="P", help="how finely Scad cuts queries")
    made.add_argument(
        "--compute-memory", metavar="SIZE", help="limit of each compute element, such as 512MB"
    )
    made.add_argument("--kernel", metavar="K", help="what computes in elements")
    made.add_argument("--parallelism", type=int, metavar="N", help="copies of each stage")
    made.add_argument(
        "--resident", metavar="SIZE", default=DEFAULT_RESIDENT,
        help=f"budget of resident columns in the resident pass (default {DEFAULT_RESIDENT})",
    )  # fmt: skip
    made.add_argument(
        "--limit", type=float, default=DEFAULT_LIMIT, metavar="S",
        help=f"seconds for one query on one engine (default {DEFAULT_LIMIT:g})",
    )  # fmt: skip
    made.add_argument("--apart", action="store_true", help="only one engine in memory at a time")
    made.add_argument(
        "--no-verify", action="store_true", help="do not compare answers with DuckDB's"
    )
    made.add_argument("--targets", action="store_true", help="print the targets, met or missed")
    made.add_argument(
        "--from", nargs="+", type=Path, dest="earlier", metavar="FILE",
        help="measure nothing; show what earlier runs wrote with --json",
    )  # fmt: skip
    made.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    made.add_argument("--plots", type=Path, metavar="DIR", help="draw the passes into DIR")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run; exit status 0 if every answer of ours is right and no target that was looked at was
    missed.
    """
    made = parser()
    arguments = made.parse_args(argv)
    try:
        checked = _check(arguments)
    except (TpcdsError, ValueError) as error:
        made.error(str(error))
    console = Console(width=None if sys.stdout.isatty() else 170)
    results: Results | None = None
    try:
        if arguments.earlier:
            results = merged([read(path) for path in arguments.earlier])
        else:
            results = _start(arguments, checked)
            _measure(arguments, checked, results)
    except (TpcdsError, OSError) as error:
        print(f"bench tpcds: {error}", file=sys.stderr)
        if results is None:
            return 1
    finally:
        # What was measured before a failure or Ctrl-C is worth seeing and keeping.
        if results is not None and results.passes:
            for table in shown(results):
                console.print(table)
            if arguments.json is not None:
                write(arguments.json, results, summary(results))
    assert results is not None
    if arguments.plots is not None:
        from bench.tpcds.plots import write_figures

        write_figures(arguments.plots, results)
    rows = targets(results) if arguments.targets else []
    if rows:
        console.print(target_table(rows))
    wrong = any(
        not cells["scad"].answered
        for one in results.passes.values()
        if "scad" in one.engines
        for cells in one.queries.values()
    )
    return 1 if wrong or any(row.met is False for row in rows) else 0


def _check(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the command line asks for, in the terms of the rest."""
    if arguments.rounds < 1:
        raise ValueError("--rounds must be at least 1")
    if arguments.limit <= 0:
        raise ValueError("--limit must be positive")
    if arguments.plots is not None and importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--plots needs matplotlib: pip install 'scad[bench]'")
    if arguments.json is not None and not arguments.json.absolute().parent.is_dir():
        raise ValueError(f"--json: directory {arguments.json.absolute().parent} does not exist")
    passes = list(dict.fromkeys(arguments.passes.split(",")))
    if unknown := [name for name in passes if name not in PASSES]:
        raise ValueError(f"no such pass: {', '.join(unknown)} (there are {', '.join(PASSES)})")
    wanted = [name for name, about in PEERS.items() if PASSES[about.resident] in passes]
    peers = wanted if arguments.peers is None else _peers(arguments.peers)
    named = arguments.baselines or ("function,pipeline" if arguments.targets else "none")
    baselines = [] if named == "none" else list(dict.fromkeys(named.split(",")))
    if unknown := [name for name in baselines if name not in BASELINES]:
        known = ", ".join(BASELINES)
        raise ValueError(f"no such baseline: {', '.join(unknown)} (there are {known})")
    if "pipeline" in baselines:
        if importlib.util.find_spec("redis") is None:
            raise ValueError("--baselines pipeline needs redis: pip install 'scad[bench]'")
        if shutil.which("redis-server") is None:
            raise ValueError("--baselines pipeline needs a server: apt-get install redis-server")
    settings: dict[str, Any] = {}
    if arguments.policy is not None:
        settings["policy"] = arguments.policy
    if arguments.kernel is not None:
        settings["kernel"] = arguments.kernel
    if arguments.compute_memory is not None:
        settings["compute_memory"] = parse_size(arguments.compute_memory)
    if arguments.parallelism is not None:
        settings["parallelism"] = arguments.parallelism
    if not arguments.no_scad and not arguments.earlier:
        needed = dict(settings, resident=arguments.resident) if "resident" in passes else settings
        if unknown := unknown_settings(needed):
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in unknown)
            raise ValueError(f"this build's session has no {flags}; --no-scad measures the peers")
    return {
        "passes": passes,
        "peers": peers,
        "baselines": baselines,
        "settings": settings,
        "queries": parse_query_list(arguments.queries),
        "threads": len(os.sched_getaffinity(0)),
    }


def _peers(text: str) -> list[str]:
    return [] if text == "none" else parse_peer_list(text)


def _start(arguments: argparse.Namespace, checked: Mapping[str, Any]) -> Results:
    settings = {
        **checked["settings"],
        "threads": checked["threads"],
        "rounds": arguments.rounds,
        "limit": arguments.limit,
        "apart": arguments.apart,
        "verify": not arguments.no_verify,
    }
    if "resident" in checked["passes"] and not arguments.no_scad:
        settings["resident"] = arguments.resident
    found = {**versions(), **{PEERS[p].package: PEERS[p].version for p in checked["peers"]}}
    data = ensure(arguments.sf)
    return Results(
        sf=arguments.sf,
        generator=data.generator,
        settings=settings,
        versions=found,
        machine=machine(),
    )


def _measure(arguments: argparse.Namespace, checked: Mapping[str, Any], results: Results) -> None:
    data = ensure(arguments.sf)
    progress = Console(stderr=True)
    warm_files(data.tables)
    with ExitStack() as stack:
        status = stack.enter_context(progress.status("starting"))

        def report(text: str) -> None:
            status.update(text)

        checker = None
        if not arguments.no_verify:
            checker = Checker(stack.enter_context(Oracle(data.tables, checked["threads"])))
        for name in checked["passes"]:
            contestants = _contestants(name, arguments, checked, data)
            if not contestants:
                raise ResultsError(f"there is no engine in the {name} pass")
            measurement = Measurement(
                name,
                contestants,
                checked["queries"],
                arguments.rounds,
                arguments.limit,
                checker,
                arguments.apart,
                report,
            )
            results.passes[name] = measurement.found
            try:
                measurement.run()
            finally:
                _drop_untouched(measurement.found)
    if arguments.targets and not arguments.no_scad:
        results.further.update(_further())


def _contestants(
    name: str, arguments: argparse.Namespace, checked: Mapping[str, Any], data: DataSet
) -> list[Contestant]:
    """Who takes part in a pass."""
    found = []
    resident = name == "resident"
    if not arguments.no_scad:
        budget = arguments.resident if resident else None
        found.append(scad(data, checked["settings"], resident=budget))
    threads = checked["threads"]
    found += [
        peer(key, data, threads) for key in checked["peers"] if PEERS[key].resident == resident
    ]
    if not resident:
        # They are about one run from Parquet: nothing stays between functions.
        settings = checked["settings"]
        found += [baseline(key, data, threads, settings) for key in checked["baselines"]]
    return found


def _drop_untouched(one: Pass) -> None:
    """After an interruption: queries that some engine has not answered yet say nothing."""
    one.queries = {
        number: cells
        for number, cells in one.queries.items()
        if all(cell.seconds or cell.error for cell in cells.values())
    }


def _further() -> dict[str, Any]:
    """The targets that are about no query."""
    planned = {
        row.name.rsplit(" ", 1)[1]: row.ours
        for row in (measure(case, rounds=3) for case in planning(Options(frozenset({"duckdb"}))))
    }
    scattered = [
        measure(case, rounds=5)
        for case in scattering(Options())
        if case.has_target and "argsort" in case.peer_name
    ]
    worst = max(scattered, key=lambda row: row.ours)
    return {"planning": planned, "scatter": {"ours": worst.ours, "peer": worst.peer}}
