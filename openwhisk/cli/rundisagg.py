"""``rundisagg``: run one element against memory servers that were started by hand."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from libd.signals import Unwinding
from libd.units import format_size
from openwhisk.app.model import ComputeElement
from openwhisk.cli.common import (
    FAILED,
    INTERRUPTED,
    ToolError,
    UsageError,
    complain,
    parser,
    read_json_object,
    say,
    write_line,
    write_text,
)
from openwhisk.cli.element import load_compute
from openwhisk.cli.memory import HELP, connect, parse_memory, transports_of
from openwhisk.cli.results import parents_results, store_result
from openwhisk.errors import ApplicationError
from openwhisk.runtime import Action, Outcome, run_element

RESULTS = ".rundisagg"

DESCRIPTION = """\
Run one compute element in this process, against memory servers that were started
by hand. What the element prints is shown as it comes; its result is the last line.

    memory_server 2333 &
    rundisagg compute1.o.py -m 'mem1:2333'
    rundisagg compute2.o.py -m 'mem1:2333'
"""

EPILOG = f"""\
Results: each run stores its result as DIR/NAME@INDEX.json, and an element with
parents gets theirs from there, so that a chain can be run by hand. DIR is -d, or
{RESULTS} beside the element file. An element without parents gets --params.

Exit status: 0, or 1 if the element failed or could not be run, 2 for wrong usage.
"""


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    args = parser("rundisagg", DESCRIPTION, EPILOG)
    args.add_argument("element", metavar="ELEMENT", type=Path, help="element file, NAME.o.py")
    args.add_argument("-m", "--memory", metavar="MEM", action="append", default=[], help=HELP)
    args.add_argument(
        "-i", "--index", metavar="N", type=int, default=0, help="which parallel copy (default 0)"
    )
    args.add_argument(
        "-n",
        "--total",
        metavar="TOTAL",
        type=int,
        help="number of parallel copies (default: what the element file says)",
    )
    args.add_argument(
        "-d", "--directory", metavar="DIR", type=Path, help="where results are stored and found"
    )
    args.add_argument(
        "-p",
        "--profile",
        action="store_true",
        help="say how long it took, how many bytes it moved and its peak memory",
    )
    args.add_argument("--params", metavar="JSON", help="parameters of the invocation, an object")
    args.add_argument("--token", help="token of the memory servers")
    args.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=10.0,
        help="how long to try to reach a memory server (default 10)",
    )
    found = args.parse_args(argv)
    if found.timeout <= 0:
        args.error("--timeout must be more than 0")
    return found


def _run(args: argparse.Namespace, unwinding: Unwinding) -> int:
    element = load_compute(args.element)
    count = element.parallelism if args.total is None else args.total
    if not 0 <= args.index < count:
        raise UsageError(f"-i {args.index}: {element.name} has {count} copies, numbered from 0")
    directory = args.directory or args.element.resolve().parent / RESULTS
    params: dict[str, Any] = dict(element.parameters)
    if args.params is not None:
        params |= read_json_object(args.params, "--params")
    durls = transports_of(element, [parse_memory(m, args.token) for m in args.memory])
    params |= parents_results(directory, element.name, element.parents)

    # The native core is only needed from here on.
    from libd import LibdAction

    libd_action = LibdAction(f"{element.name}@{args.index}")
    try:
        transports = connect(libd_action, durls.values(), args.timeout)
        action = Action(
            element.name,
            libd_action,
            activation_id="0" * 32,
            index=args.index,
            count=count,
            limits=element.limits,
            memory_elements={name: durl.name for name, durl in durls.items()},
        )
        begin, cpu = time.monotonic(), time.process_time()
        outcome = _call(element, params, action, args.element)
        unwinding.check()  # an element that was interrupted looks like one that failed
        seconds, cpu_seconds = time.monotonic() - begin, time.process_time() - cpu
        if args.profile:
            complain(
                f"profile: {seconds:.6f} s, {cpu_seconds:.6f} s of cpu, "
                f"peak memory of the process {format_size(_peak_memory())}"
            )
            _profile(transports, action, begin)
    finally:
        libd_action.close()
    if outcome.failure is not None:
        if outcome.failure.phase != "result":
            complain(outcome.failure.traceback.rstrip("\n"))
        raise ToolError(f"element {element.name} failed: {outcome.failure}")
    store_result(directory, element.name, args.index, count, outcome.result)
    if args.directory is None:
        # Results beside the sources are nothing to commit.
        write_text(directory / ".gitignore", "*\n")
    say(json.dumps(outcome.result))
    return 0


def _call(
    element: ComputeElement, params: Mapping[str, Any], action: Action, path: Path
) -> Outcome:
    streams = {"stdout": sys.stdout, "stderr": sys.stderr}
    # Elements import helper modules that lie beside them, whether or not they declare them.
    sys.path.insert(0, str(path.resolve().parent))
    try:
        return run_element(
            element.code,
            element.main,
            params,
            action,
            imports=element.imports,
            modules=element.modules,
            file=str(path),
            first_line=element.first_line,
            on_log=lambda stream, text: write_line(streams[stream], text),
        )
    finally:
        sys.path.pop(0)


def _profile(transports: Mapping[str, Any], action: Action, begin: float) -> None:
    for name, transport in transports.items():
        c = transport.counters
        complain(
            f"profile: {name}: read {c.bytes_read} bytes in {c.reads} calls, "
            f"wrote {c.bytes_written} bytes in {c.writes} calls, mapped "
            f"{c.bytes_mapped + c.bytes_mapped_writable} bytes"
        )
    for mark, at in action.profile_marks:
        complain(f"profile: mark {mark!r} at {at - begin:.6f} s")


def _peak_memory() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``rundisagg``; returns the exit status."""
    args = _arguments(argv)
    unwinding = Unwinding()
    try:
        with unwinding:
            return _run(args, unwinding)
    except ApplicationError as error:
        complain(str(error))
        return FAILED
    except ToolError as error:
        complain(f"rundisagg: {error}")
        return error.status
    except KeyboardInterrupt:
        complain("rundisagg: interrupted")
        return INTERRUPTED
    except ImportError as error:
        complain(f"rundisagg: libd cannot be loaded: {error} (is it built? make setup)")
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
