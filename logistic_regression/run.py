"""`python -m logistic_regression.run`: train on disaggregated memory, beside scikit-learn."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from libd.choice import rdma_ports
from libd.errors import ScadError
from libd.program import Parser, show_notices
from libd.signals import Unwinding
from logistic_regression.program import MAX_COPIES, Outcome, application, reference, train

TOLERANCE = 0.5  # points of accuracy
PREIMPORT = ("numpy", "remote_array", "sklearn.datasets", "sklearn.model_selection")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(
        prog="python -m logistic_regression.run",
        description="Train logistic regression on scikit-learn's breast-cancer data (569 x 30) as "
        "three steps around one memory element, and compare with scikit-learn on the same split.",
        epilog="Exit status 0 if the accuracy is within 0.5 points of scikit-learn's. "
        "The elements are in examples/logistic_regression; read them.",
    )
    result.add_argument(
        "--parallelism", type=int, default=2, metavar="N",
        help=f"training copies, 1 to {MAX_COPIES} (default 2)",
    )  # fmt: skip
    result.add_argument("--seed", type=int, default=0, help="of the split (default 0)")
    result.add_argument("--test-size", type=float, default=0.25, help="of all rows (default 0.25)")
    result.add_argument("--transport", choices=("auto", "shm", "tcp", "rdma"), default="auto")
    result.add_argument("--apihost", metavar="URL", help="a control plane started by hand")
    result.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    result.add_argument("-v", "--verbose", action="store_true", help="tracebacks for errors")
    return result


def control_plane(apihost: str | None) -> AbstractContextManager[Any]:
    """The control plane at `apihost`, or one in this process."""
    if apihost is not None:
        from openwhisk.client import HttpControlPlane

        return HttpControlPlane(apihost)
    from openwhisk.control import EmbeddedControlPlane

    return EmbeddedControlPlane(preimport=PREIMPORT)


def report(outcome: Outcome, theirs: float, their_seconds: float) -> Table:
    """Ours and scikit-learn's, side by side."""
    shown = Table(title="breast-cancer data, the same split")
    shown.add_column("")
    for heading in ("accuracy", "test rows", "rounds", "seconds"):
        shown.add_column(heading, justify="right")
    shown.add_row(
        "scad", f"{outcome.accuracy:.2%}", str(outcome.test_rows), str(outcome.rounds),
        f"{outcome.seconds:.3f}",
    )  # fmt: skip
    shown.add_row(
        "scikit-learn", f"{theirs:.2%}", str(outcome.test_rows), "", f"{their_seconds:.3f}"
    )
    return shown


def check(arguments: argparse.Namespace) -> str | None:
    """What is wrong with the arguments or the installation, or None."""
    if arguments.transport == "rdma" and not rdma_ports():
        return "--transport rdma: this machine has no active RDMA port; `scad doctor` says more"
    if not 0 < arguments.test_size < 1:
        return f"--test-size must be between 0 and 1, not {arguments.test_size}"
    if not 1 <= arguments.parallelism <= MAX_COPIES:
        return f"--parallelism must be from 1 to {MAX_COPIES}, not {arguments.parallelism}"
    if importlib.util.find_spec("sklearn") is None:
        return "scikit-learn is not installed; try: pip install 'scad[ml]'"
    return None


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    arguments = parser().parse_args(argv)
    if problem := check(arguments):
        sys.stderr.write(f"logistic_regression.run: {problem}\n")
        return 2
    split = {"seed": arguments.seed, "test_size": arguments.test_size}
    show_notices("logistic_regression.run", verbose=arguments.verbose)
    unwinding = Unwinding()
    try:
        with unwinding:
            with control_plane(arguments.apihost) as plane:
                app = application(arguments.parallelism)
                outcome = train(plane, app, transport=arguments.transport, **split)
            theirs, their_seconds = reference(**split)
            if arguments.json is not None:
                write_json(arguments.json, outcome, theirs, their_seconds)
    except KeyboardInterrupt:
        return interrupted()
    except Exception as error:
        if unwinding.interrupted:  # what unwinds may fail in its own way
            return interrupted()
        if arguments.verbose or not isinstance(error, ScadError | OSError | ValueError):
            raise
        sys.stderr.write(f"logistic_regression.run: {error}\n")
        return 1
    console = Console()
    console.print(report(outcome, theirs, their_seconds))
    difference = 100 * (outcome.accuracy - theirs)
    console.print(f"difference {difference:+.2f} points (allowed: {TOLERANCE} either way)")
    return 0 if abs(difference) <= TOLERANCE else 1


def interrupted() -> int:
    """Say so; the exit status."""
    sys.stderr.write("logistic_regression.run: interrupted\n")
    return 130


def write_json(path: Path, outcome: Outcome, theirs: float, their_seconds: float) -> None:
    """Write the figures atomically."""
    figures = {
        "scad": msgspec.to_builtins(outcome),
        "sklearn": {"accuracy": theirs, "seconds": their_seconds},
    }
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(figures, indent=2) + "\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
