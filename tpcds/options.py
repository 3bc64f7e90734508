"""The command line of ``python -m tpcds.run``, understood and checked."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from libd.choice import rdma_ports
from libd.program import Parser
from tpcds.data import choose_generator
from tpcds.errors import DataError, PeerError, QueryListError
from tpcds.peers import PEERS, parse_peer_list
from tpcds.queries import parse_query_list

__all__ = ["Options", "parse_arguments"]

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
        choices=("auto", "duckdb", "polars"),
        default="auto",
        help="what computes inside of elements of 1 GiB and more: duckdb; polars (where it gives "
        "the same answers); auto (default: polars for files, the faster for resident columns)",
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
