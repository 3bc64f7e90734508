"""``python -m engine sql``: one query from the shell; ``scad sql`` is the same.

The answer goes to stdout or a file, everything else (progress, one line per error) to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError
from libd.errors import ScadError
from libd.program import Parser, show_notices
from libd.signals import Unwinding

if TYPE_CHECKING:
    import pyarrow as pa

    from engine.session import Session
    from openwhisk.api import Activation

__all__ = ["EXIT_FAILED", "EXIT_INTERRUPTED", "guarded", "main", "sql"]

EXIT_FAILED = 1
EXIT_INTERRUPTED = 128 + signal.SIGINT

FORMATS = ("table", "csv", "json", "arrow", "parquet")
_BINARY = ("arrow", "parquet")
_BY_SUFFIX = {
    ".csv": "csv",
    ".json": "json",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_TEXT = (".txt",)

_EXAMPLES = """\
examples:
  {program} "select 7/2 as x"
  {program} "select store, sum(amount) from sales group by store" --table sales=sales.parquet
  {program} "select * from a join b using (id)" --table a=a.csv --table 'b=parts/*.parquet'
  {program} -f query.sql --table t=data/ -o answer.parquet
  {program} - --format json < query.sql
  {program} -f query.sql --table t=data/ --explain            the plan, with estimates
  {program} -f query.sql --table t=data/ --explain --analyze  run it, and compare
  {program} -f query.sql --table t=data/ --report pages       a page with pictures of the run

exit status: 0 done; 1 it failed, and a line on stderr says why; 2 the command line is wrong;
130 interrupted.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m engine``; returns the exit status."""
    parser = Parser(
        prog="python -m engine",
        description="SQL on disaggregated memory.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("sql", help="run one query", add_help=False)
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser.parse_args(given[:1])
    return sql(given[1:], "python -m engine sql", name="engine")


def sql(arguments: Sequence[str], program: str, *, name: str) -> int:
    """Run one query as the command line says.

    Parameters
    ----------
    program
        What people type for it; `name` is what messages begin with.

    Returns
    -------
    int
        The exit status.
    """
    options = _parse(arguments, program)
    return guarded(name, lambda: _run(options), verbose=options.verbose)


def guarded(name: str, work: Callable[[], int], *, verbose: bool) -> int:
    """Do the work of a command; whatever ends it early becomes one line and an exit status."""
    show_notices(name, verbose=verbose)
    unwinding = Unwinding()
    try:
        with unwinding:
            status = work()
            sys.stdout.flush()
    except KeyboardInterrupt:
        return _interrupted(name)
    except BrokenPipeError:
        # The reader has seen enough; keep the interpreter from complaining when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if unwinding.interrupted:  # what unwinds may fail in its own way
            return _interrupted(name)
        if verbose:
            traceback.print_exc()
        words = " ".join(str(error).split())
        if not isinstance(error, ScadError | OSError):
            words = f"{type(error).__name__}: {words} (-v shows where)"
        sys.stderr.write(f"{name}: {words}\n")
        return EXIT_FAILED
    return status


def _interrupted(name: str) -> int:
    sys.stderr.write(f"{name}: interrupted\n")
    return EXIT_INTERRUPTED


def _parse(arguments: Sequence[str], program: str) -> argparse.Namespace:
    parser = Parser(
        prog=program,
        description="Run one SQL query (DuckDB's dialect) on compute and memory elements.",
        epilog=_EXAMPLES.format(program=program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("query", nargs="?", help="the query, or - to read it from standard input")
    parser.add_argument("-f", "--file", type=Path, metavar="FILE", help="read the query from FILE")
    parser.add_argument(
        "--table",
        type=_table,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="Parquet, CSV or Arrow files: one, a directory or a glob pattern; may be repeated",
    )
    how = parser.add_argument_group("how to run it")
    how.add_argument(
        "--policy",
        choices=("auto", "aggregate", "disaggregate"),
        default="auto",
        help="how finely the query is cut (default: auto, by cost)",
    )
    how.add_argument(
        "--kernel",
        choices=("auto", "duckdb", "polars"),
        default="auto",
        help="what computes inside of elements (default: auto, whichever is faster)",
    )
    how.add_argument("--parallelism", type=_positive, metavar="N", help="copies of each stage")
    how.add_argument("--compute-memory", type=_size, metavar="SIZE", help="of each element")
    how.add_argument("--transport", choices=("auto", "shm", "tcp", "rdma"), default="auto")
    how.add_argument("--apihost", metavar="URL", help="a running control plane (scad serve)")
    results = parser.add_argument_group("results")
    results.add_argument(
        "--format", choices=FORMATS, help="default: by the name of -o, else a table for people"
    )
    results.add_argument("-o", "--output", type=Path, metavar="FILE", help="instead of stdout")
    results.add_argument("--explain", action="store_true", help="show the stages, run nothing")
    results.add_argument(
        "--analyze", action="store_true", help="run it, show the stages and what they did"
    )
    results.add_argument(
        "--report", type=Path, metavar="DIR", help="write a page about the run into DIR"
    )
    results.add_argument("-v", "--verbose", action="store_true", help="show tracebacks")
    options = parser.parse_args(arguments)

    if (options.query is None) == (options.file is None):
        parser.error("give one query: as an argument, as - for standard input, or with -f FILE")
    explaining = options.explain or options.analyze
    names = [name.lower() for name, _ in options.table]
    for name in names:
        if names.count(name) > 1:
            parser.error(f"--table: {name!r} is given more than once")
    suffix = "" if options.output is None else options.output.suffix.lower()
    if explaining and _BY_SUFFIX.get(suffix) in ("csv", *_BINARY):
        parser.error(f"--explain and --analyze write text, or JSON, which {suffix} is not for")
    if options.format is None:
        if suffix and not explaining and suffix not in _BY_SUFFIX and suffix not in _TEXT:
            known = ", ".join((*_BY_SUFFIX, *_TEXT))
            parser.error(f"-o: no format is known by {suffix} (but by {known}): give --format")
        options.format = "table" if explaining else _BY_SUFFIX.get(suffix, "table")
        if explaining and suffix == ".json":
            options.format = "json"
    if explaining and options.format not in ("table", "json"):
        parser.error("--explain and --analyze show text, or with --format json data")
    if options.output is None and options.format in _BINARY and sys.stdout.isatty():
        parser.error(f"--format {options.format} is not for a terminal: give -o FILE, or a pipe")
    if options.output is not None and not options.output.absolute().parent.is_dir():
        parser.error(f"-o: directory {options.output.absolute().parent} does not exist")
    return options


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


def _run(options: argparse.Namespace) -> int:
    from engine.session import Session

    query = _query(options)
    if options.report is not None:
        from engine.report import check_libraries

        check_libraries()
    given: dict[str, Any] = {
        "policy": options.policy,
        "kernel": options.kernel,
        "transport": options.transport,
        "apihost": options.apihost,
    }
    if options.parallelism is not None:
        given["parallelism"] = options.parallelism
    if options.compute_memory is not None:
        given["compute_memory"] = options.compute_memory
    with _progress() as on_progress:
        with Session(**given, on_progress=on_progress) as session:
            for name, path in options.table:
                session.register(name, path)
            answer = _answered(session, query, options)
    _written(answer, options)
    return 0


def _query(options: argparse.Namespace) -> str:
    if options.file is not None:
        try:
            text: str = options.file.read_text(encoding="utf-8")
        except OSError as error:
            raise EngineError(f"{options.file}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise EngineError(f"{options.file}: not a text in UTF-8") from None
        return text
    return sys.stdin.read() if options.query == "-" else options.query


def _answered(session: Session, query: str, options: argparse.Namespace) -> pa.Table | str:
    """What is to be written: rows, or text about the query."""
    answer: pa.Table | str
    name = "query" if options.file is None else options.file.stem
    if options.explain or options.analyze:
        profile = session.profile(query, analyze=options.analyze, name=name)
        answer = _explained(profile, options)
    else:
        answer = session.sql(query).collect()
        profile = None
    if options.report is not None:
        from engine.report import ReportWriter

        if profile is None:
            profile = session.profile(name=name, sql=query)
        page = ReportWriter(options.report).add(profile)
        sys.stderr.write(f"report: {page}\n")
    return answer


def _explained(profile: Any, options: argparse.Namespace) -> str:
    from engine.report import format_profile, show

    if options.format == "json":
        return json.dumps(profile.to_json(), indent=1) + "\n"
    if options.output is None and sys.stdout.isatty():
        from rich.console import Console

        show(profile, Console())
        return ""
    return format_profile(profile)


def _written(answer: pa.Table | str, options: argparse.Namespace) -> None:
    """Put it where it belongs; a file is there whole or not at all."""
    from engine.output import write, write_binary

    if options.output is None:
        if isinstance(answer, str):
            sys.stdout.write(answer)
        elif options.format in _BINARY:
            write_binary(answer, options.format, sys.stdout.buffer)
        else:
            write(answer, options.format, sys.stdout)
        return
    target: Path = options.output
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if not isinstance(answer, str) and options.format in _BINARY:
            with part.open("wb") as binary:
                write_binary(answer, options.format, binary)
        else:
            with part.open("w", encoding="utf-8", newline="") as text:
                if isinstance(answer, str):
                    text.write(answer)
                else:
                    write(answer, options.format, text)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _progress() -> Iterator[Callable[[Activation], None] | None]:
    """On a terminal a line that says how far the query is; it is gone when the query is over."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    console = Console(stderr=True)
    began = time.monotonic()
    with console.status("planning") as status:

        def show(activation: Activation) -> None:
            done = sum(e.status == "done" for e in activation.elements)
            running = sorted({e.name for e in activation.elements if e.status == "running"})
            seconds = time.monotonic() - began
            status.update(
                f"{done} of {len(activation.elements)} elements, {seconds:.0f} s: "
                f"{', '.join(running) or 'waiting'}"
            )

        yield show
