"""``python -m tpcds.run``: TPC-DS on disaggregated memory, checked against DuckDB."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from libd.errors import ScadError
from libd.program import show_notices
from libd.signals import Unwinding
from tpcds.data import DataSet, choose_generator, ensure, open_directory
from tpcds.options import Options, parse_arguments
from tpcds.peers import PEERS, start_peer
from tpcds.queries import query_texts

__all__ = ["main"]

log = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_INTERRUPTED = 128 + signal.SIGINT


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
