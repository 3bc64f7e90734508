"""``python -m tpcds.run``: TPC-DS on disaggregated memory, checked against DuckDB."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from libd.choice import rdma_ports
from libd.errors import ScadError
from libd.program import Parser, show_notices
from libd.signals import Unwinding
from tpcds.data import DataSet, choose_generator, ensure, open_directory
from tpcds.errors import DataError, PeerError, QueryListError
from tpcds.peers import PEERS, parse_peer_list, start_peer
from tpcds.queries import parse_query_list, query_texts

__all__ = ["Options", "main", "parse_arguments"]

log = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_INTERRUPTED = 128 + signal.SIGINT

_DESCRIPTION = """\
Run TPC-DS queries as DAGs of compute and memory elements, and check every answer against DuckDB.

The data is generated on first use into the user's cache folder ($XDG_CACHE_HOME/scad/tpcds).
"""

_EXAMPLES = """\
examples:
  python -m tpcds.run                                 all 99 queries at scale factor 1
  python -m tpcds.run --sf 0.01 --queries 1,16,90-95  a quick look at some of them
  python -m tpcds.run --sf 10 --queries 95            bigger data, from the faster generator
  python -m tpcds.run --explain 3                     the stages of query 3, without running it
  python -m tpcds.run --explain-analyze 3             run it, and compare with the estimates
  python -m tpcds.run --queries 14,64 --report pages  pictures of their elements in pages/
  python -m tpcds.run --queries 16 --emit elements    keep its elements in elements/q16
  python -m tpcds.run --resident 2GB --passes 2       keep decoded columns for the second pass
  python -m tpcds.run --transport tcp --json r.json   force TCP, keep the figures
  python -m tpcds.run --data DIR --no-verify          on Parquet files that are already in DIR
  python -m tpcds.run --compare duckdb,polars         further engines' times beside ours
  python -m tpcds.run --apihost http://localhost:3233 on the control plane that
                                                      `python -m openwhisk` runs there

exit status: 0 every query asked for ran and matched; 1 some did not; 2 the command line is wrong;
130 interrupted.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line, understood and checked."""

    sf: float | None
    queries: list[int]
    data: Path | None
    generator: str
    verify: bool
    policy: str
    kernel: str
    compare: list[str]
    parallelism: int | None
    compute_memory: int | None
    sizes: Path | None
    resident: int | None
    passes: int
    transport: str
    apihost: str | None
    explain: list[int]
    analyze: list[int]
    report: Path | None
    emit: Path | None
    json: Path | None
    verbose: bool


def parse_arguments(arguments: Sequence[str] | None = None) -> Options:
    """Understand a command line.

    Raises
    ------
    SystemExit
        With status 2 after one line on stderr if it is wrong, with 0 after ``--help``.
    """
    parser = Parser(
        prog="tpcds.run",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    data = parser.add_argument_group("data")
    data.add_argument("--sf", type=float, metavar="N", help="scale factor, 1 is 1 GB (default: 1)")
    data.add_argument(
        "--generator",
        choices=("auto", "dsdgen", "tpcgen"),
        default="auto",
        help="auto (default): dsdgen up to scale factor 1, tpcgen above; their data differ",
    )
    data.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="use the Parquet files in DIR: <table>.parquet or <table>/*.parquet",
    )
    work = parser.add_argument_group("what to run")
    work.add_argument(
        "--queries",
        type=_query_list,
        default="all",
        metavar="LIST",
        help="all (default), or numbers and ranges such as 1,16,90-95",
    )
    work.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compare every answer with DuckDB's, value by value (default: yes)",
    )
    work.add_argument(
        "--compare",
        type=_peer_list,
        default=[],
        metavar="LIST",
        help=f"run these beside, one after another: {', '.join(PEERS)}",
    )
    work.add_argument(
        "--explain",
        type=_query_list,
        default=[],
        metavar="Q",
        help="print the stages of these queries, with estimated rows and bytes; run none",
    )
    work.add_argument(
        "--explain-analyze",
        type=_query_list,
        default=[],
        metavar="Q",
        help="run these, and print their stages with estimated and actual figures",
    )
    how = parser.add_argument_group("how to run")
    how.add_argument(
        "--policy",
        choices=("auto", "aggregate", "disaggregate"),
        default="auto",
        help="how finely queries are cut: aggregate (as few elements as their memory allows), "
        "disaggregate (elements as small as is useful), auto (default: by cost)",
    )
    how.add_argument(
        "--parallelism",
        type=_positive,
        metavar="N",
        help="cut large tables into N parts, for N copies of each stage "
        "(default: what the policy says)",
    )
    how.add_argument(
        "--compute-memory",
        type=_size,
        metavar="SIZE",
        help="the most that each compute element may hold, such as '512 MB' or 2GB "
        "(default: a quarter of the memory)",
    )
    how.add_argument(
        "--kernel",
        choices=("auto", "duckdb"),
        default="auto",
        help="what computes inside of elements: duckdb, auto (default: Polars wherever it gives "
        "the same answers, in elements of 1 GiB and more)",
    )
    how.add_argument(
        "--sizes",
        type=Path,
        metavar="FILE",
        help="reserve what the queries held in earlier runs, which FILE remembers",
    )
    how.add_argument(
        "--resident",
        type=_resident,
        metavar="SIZE",
        help="keep decoded columns of base tables in memory for later queries, up to SIZE; "
        "off (default): decode them anew",
    )
    how.add_argument(
        "--passes",
        type=_positive,
        default=1,
        metavar="N",
        help="run the queries N times over in one session (default: 1); figures are of the last",
    )
    how.add_argument(
        "--transport",
        choices=("auto", "shm", "tcp", "rdma"),
        default="auto",
        help="between compute and memory elements (default: auto, shared memory on one host)",
    )
    how.add_argument(
        "--apihost",
        metavar="URL",
        help="a running control plane (default: one in here)",
    )
    results = parser.add_argument_group("results")
    results.add_argument(
        "--emit", type=Path, metavar="DIR", help="write each query's elements to DIR/qNN/"
    )
    results.add_argument(
        "--report", type=Path, metavar="DIR", help="a page per query with its DAG and timeline"
    )
    results.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    results.add_argument("-v", "--verbose", action="store_true", help="show tracebacks of failures")
    parsed = parser.parse_args(arguments)

    if parsed.transport == "rdma" and parsed.apihost is None and not rdma_ports():
        parser.error(
            "--transport rdma: this machine has no active RDMA port; `scad doctor` says more"
        )
    try:
        choose_generator(1 if parsed.sf is None else parsed.sf, parsed.generator)
    except DataError as error:
        parser.error(str(error))
    if parsed.data is not None and parsed.generator != "auto":
        parser.error("--generator says how to make data; it does not go with --data")
    if parsed.sizes is not None and not _writable(parsed.sizes):
        parser.error(f"--sizes: {parsed.sizes} cannot be written")
    if parsed.explain and parsed.explain_analyze:
        parser.error("give --explain or --explain-analyze, not both")
    if parsed.json is not None and not parsed.json.absolute().parent.is_dir():
        parser.error(f"--json: directory {parsed.json.absolute().parent} does not exist")
    if parsed.json is not None and not _writable(parsed.json):
        parser.error(f"--json: {parsed.json} cannot be written")
    return Options(
        sf=parsed.sf,
        queries=parsed.queries,
        data=parsed.data,
        generator=parsed.generator,
        verify=parsed.verify,
        policy=parsed.policy,
        kernel=parsed.kernel,
        compare=parsed.compare,
        parallelism=parsed.parallelism,
        compute_memory=parsed.compute_memory,
        sizes=parsed.sizes,
        resident=parsed.resident,
        passes=parsed.passes,
        transport=parsed.transport,
        apihost=parsed.apihost,
        explain=parsed.explain,
        analyze=parsed.explain_analyze,
        report=parsed.report,
        emit=parsed.emit,
        json=parsed.json,
        verbose=parsed.verbose,
    )


def _writable(path: Path) -> bool:
    """Whether a file can be put at a path, as far as can be told without doing it."""
    return not path.is_dir() and os.access(path.absolute().parent, os.W_OK | os.X_OK)


def _query_list(text: str) -> list[int]:
    try:
        return parse_query_list(text)
    except QueryListError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _peer_list(text: str) -> list[str]:
    try:
        return parse_peer_list(text)
    except PeerError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _resident(text: str) -> int | None:
    return None if text.lower() == "off" else _size(text)


def _size(text: str) -> int:
    from libd.units import parse_size

    try:
        size = parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if size == 0:
        raise argparse.ArgumentTypeError("the size cannot be 0")
    return size


def _find_data(options: Options, console: Any) -> DataSet:
    from tpcds.display import generation_progress

    if options.data is not None:
        return open_directory(options.data, options.sf)
    sf = 1.0 if options.sf is None else options.sf
    generator = choose_generator(sf, options.generator)
    with generation_progress(console, f"TPC-DS data, scale factor {sf:g} ({generator})") as report:
        return ensure(sf, generator, progress=report)


def _run(options: Options, unwinding: Unwinding) -> int:
    """Do what the command line asks for; the exit status."""
    from rich.console import Console

    from engine import Session
    from engine.policy import Sizes
    from engine.report import ReportError, ReportWriter
    from tpcds.display import LiveTable, PlainLines, QueryDisplay, resident_summary, summary
    from tpcds.oracle import Oracle
    from tpcds.record import report, totals, write_json
    from tpcds.runner import Runner, register_tables, warm_up

    console = Console()
    query_texts()  # without the extension there is nothing to run: say so before generating
    if options.emit is not None:
        options.emit.mkdir(parents=True, exist_ok=True)
    pages = None
    if options.report is not None:
        pages = ReportWriter(options.report, "TPC-DS on Scad")
    # Progress is not a result: it must not end up in what somebody pipes or keeps.
    progress = Console(stderr=True)
    given: dict[str, Any] = {
        "transport": options.transport,
        "apihost": options.apihost,
        "policy": options.policy,
        "kernel": options.kernel,
    }
    if options.sizes is not None:
        given["sizes"] = Sizes(options.sizes)
    if options.parallelism is not None:
        given["parallelism"] = options.parallelism
    if options.compute_memory is not None:
        given["compute_memory"] = options.compute_memory
    if options.resident is not None:
        given["resident"] = options.resident

    with contextlib.ExitStack() as stack:
        # Made first, started last: what is wrong with its settings shows before data is generated.
        session = stack.enter_context(Session(**given))
        data = _find_data(options, progress)
        register_tables(session, data)
        if options.explain or options.analyze:
            return _explain(session, options, console, pages)
        with progress.status("starting workers"):
            warm_up(session)
        oracle = None
        threads = len(os.sched_getaffinity(0))
        if options.verify:
            oracle = stack.enter_context(Oracle(data.tables, threads))
        peers = {}
        for name in options.compare:
            # Whoever checks the answers is DuckDB on the same files already.
            if oracle is None or name != "duckdb":
                with progress.status(f"starting {PEERS[name].title}"):
                    peer = start_peer(name, data.tables, threads)
                peers[name] = stack.enter_context(peer)
        runner = Runner(
            session,
            oracle,
            peers=peers,
            threads=threads,
            emit=options.emit,
            on_traceback=_show if options.verbose else None,
        )
        asked = len(options.queries)
        passes = []
        for number in range(1, options.passes + 1):
            if options.passes > 1:
                console.print(f"pass {number} of {options.passes}", highlight=False)
            display: QueryDisplay = (
                LiveTable(console, asked, options.compare)
                if console.is_terminal
                else PlainLines(console)
            )
            records = []
            with display:
                for record in runner.run(options.queries, display.start):
                    unwinding.check()  # a query that was interrupted may look like one that failed
                    display.finish(record)
                    records.append(record)
                    if pages is not None and record.seconds is not None:
                        try:
                            _add_page(pages, session, record)
                        except ReportError as error:  # queries matter more than pages about them
                            log.warning("no more pages: %s", error)
                            pages = None
            summary(console, records, asked)
            passes.append(records)
        resident = None if session.resident is None else asdict(session.resident.stats())
        if resident is not None:
            resident_summary(console, resident)

    if options.json is not None:
        settings = {
            "verify": options.verify,
            "policy": options.policy,
            "kernel": options.kernel,
            "compare": options.compare,
            "parallelism": options.parallelism,
            "compute_memory": options.compute_memory,
            "resident": options.resident,
            "passes": options.passes,
            "transport": options.transport,
            "control_plane": "http" if options.apihost else "embedded",
        }
        content = report(records, asked, sf=data.sf, generator=data.generator, settings=settings)
        content["passes"] = [totals(one, asked) for one in passes]
        content["resident"] = resident
        write_json(options.json, content)
    return 0 if all(record.succeeded for records in passes for record in records) else EXIT_FAILED


def _explain(session: Any, options: Options, console: Any, pages: Any) -> int:
    """Print queries' stages, or with ``--json`` write them."""
    from engine.report import format_profile, show
    from tpcds.queries import query_text

    profiles = []
    for number in options.explain or options.analyze:
        profile = session.profile(
            query_text(number), analyze=bool(options.analyze), name=f"q{number}"
        )
        if pages is not None:
            pages.add(profile)
        if options.json is not None:
            profiles.append(profile.to_json())
        elif console.is_terminal:
            show(profile, console)
        else:
            sys.stdout.write(format_profile(profile))
    if options.json is not None:
        options.json.write_text(json.dumps(profiles, indent=1) + "\n", encoding="utf-8")
    return 0


def _add_page(pages: Any, session: Any, record: Any) -> None:
    from tpcds.queries import query_text

    facts = {}
    if (peer := record.peers.get("duckdb")) is not None:
        facts["DuckDB"] = f"{peer.seconds:.3f} s"
        if record.seconds is not None and peer.seconds > 0:
            facts["ratio"] = f"{record.seconds / peer.seconds:.2f}"
    if record.verified is not None:
        facts["verified"] = "yes" if record.verified else "WRONG"
    name = f"q{record.number}"
    pages.add(session.profile(name=name, sql=query_text(record.number)), **facts)


def _show(text: str) -> None:
    sys.stderr.write(text)


def _interrupted() -> int:
    sys.stderr.write("tpcds.run: interrupted\n")
    return EXIT_INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parse_arguments(arguments)
    show_notices("tpcds.run", verbose=options.verbose)
    unwinding = Unwinding()
    try:
        with unwinding:
            return _run(options, unwinding)
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        if unwinding.interrupted:  # what unwinds may fail in its own way
            return _interrupted()
        if options.verbose:
            traceback.print_exc()
        words = " ".join(str(error).split())
        if not isinstance(error, ScadError | OSError):
            words = f"{type(error).__name__}: {words} (-v shows where)"
        sys.stderr.write(f"tpcds.run: {words}\n")
        return EXIT_FAILED


if __name__ == "__main__":
    raise SystemExit(main())
