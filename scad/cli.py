"""The ``scad`` command: ``doctor``, ``sql``, ``serve``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from libd.errors import ScadError
from libd.program import Parser, show_notices
from libd.signals import Unwinding
from scad.version import __version__

__all__ = ["main"]

EXIT_FAILED = 1
EXIT_INTERRUPTED = 128 + signal.SIGINT

_EXAMPLES = """\
examples:
  scad doctor
  scad sql "select count(*) from t" --table t=sales.parquet
  scad sql - --table sales=data/ --format csv < query.sql
  scad serve --port 3233
"""

_SQL_EXAMPLES = """\
examples:
  scad sql "select 7/2 as x"
  scad sql "select store, sum(amount) from sales group by store" --table sales=sales.parquet
  scad sql "select * from a join b using (id)" --table a=a.parquet --table 'b=parts/*.parquet'
  scad sql - --format json < query.sql
"""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="scad",
        description="Data analytics on disaggregated memory.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"scad {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    doctor = commands.add_parser(
        "doctor",
        help="what this machine can do",
        description="Say what this machine can do: versions, transports, memory and limits. "
        "Exit status 1 if something is missing that Scad cannot run without.",
    )
    doctor.add_argument("--json", action="store_true", help="as JSON")

    sql = commands.add_parser(
        "sql",
        help="run one query",
        description="Run one SQL query (DuckDB's dialect) on compute and memory elements.",
        epilog=_SQL_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    sql.add_argument("query", help="the query, or - to read it from standard input")
    sql.add_argument(
        "--table",
        type=_table,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a Parquet file, a directory of them or a glob pattern; may be given many times",
    )
    sql.add_argument(
        "--format", choices=("table", "csv", "json"), default="table", help="default: table"
    )
    sql.add_argument("--explain", action="store_true", help="show the stages, run nothing")
    sql.add_argument("--parallelism", type=_positive, metavar="N", help="copies of each stage")
    sql.add_argument("--compute-memory", type=_size, metavar="SIZE", help="of each element")
    sql.add_argument("--transport", choices=("auto", "shm", "tcp", "rdma"), default="auto")
    sql.add_argument("--apihost", metavar="URL", help="a running control plane (scad serve)")
    sql.add_argument("-v", "--verbose", action="store_true", help="show tracebacks")

    commands.add_parser(
        "serve",
        help="run a control plane (the same as python -m openwhisk)",
        add_help=False,
    )
    return parser


def _table(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (equals and name.strip() and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return name.strip(), path


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _size(text: str) -> int:
    from libd.units import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _doctor(options: argparse.Namespace) -> int:
    from scad.doctor import examine

    findings = examine()
    if options.json:
        sys.stdout.write(json.dumps([f.to_json() for f in findings], indent=1) + "\n")
    else:
        width = max(len(finding.name) for finding in findings)
        area = None
        for finding in findings:
            if finding.area != area:
                area = finding.area
                sys.stdout.write(f"{area}\n")
            mark = {"ok": " ", "note": "-", "broken": "!"}[finding.level]
            sys.stdout.write(f" {mark} {finding.name:<{width}}  {finding.detail}\n")
        broken = [finding.name for finding in findings if finding.level == "broken"]
        verdict = f"Scad cannot run here: {', '.join(broken)}" if broken else "Scad runs here."
        sys.stdout.write(verdict + "\n")
    return EXIT_FAILED if any(f.level == "broken" for f in findings) else 0


def _sql(options: argparse.Namespace) -> int:
    from engine import Session
    from scad.output import write

    query = sys.stdin.read() if options.query == "-" else options.query
    given: dict[str, Any] = {"transport": options.transport, "apihost": options.apihost}
    if options.parallelism is not None:
        given["parallelism"] = options.parallelism
    if options.compute_memory is not None:
        given["compute_memory"] = options.compute_memory
    with Session(**given) as session:
        for name, path in options.table:
            session.register(name, path)
        if options.explain:
            sys.stdout.write(session.explain(query).rstrip("\n") + "\n")
            return 0
        answer = session.sql(query).collect()
    write(answer, options.format, sys.stdout)
    return 0


def _serve(arguments: list[str]) -> int:
    from openwhisk.__main__ import main as serve

    return serve(arguments, "scad serve")


def _interrupted() -> int:
    sys.stderr.write("scad: interrupted\n")
    return EXIT_INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``scad``; returns the exit status."""
    options, rest = _parser().parse_known_args(arguments)
    if options.command == "serve":
        return _serve(rest)  # its options are its own
    if rest:
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    show_notices("scad", verbose=getattr(options, "verbose", False))
    unwinding = Unwinding()
    try:
        with unwinding:
            status = _doctor(options) if options.command == "doctor" else _sql(options)
            sys.stdout.flush()
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        # The reader has seen enough; keep the interpreter from complaining when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if unwinding.interrupted:  # what unwinds may fail in its own way
            return _interrupted()
        if getattr(options, "verbose", False):
            traceback.print_exc()
        words = " ".join(str(error).split())
        if not isinstance(error, ScadError | OSError):
            words = f"{type(error).__name__}: {words} (-v shows where)"
        sys.stderr.write(f"scad: {words}\n")
        return EXIT_FAILED
    return status


if __name__ == "__main__":
    sys.exit(main())
