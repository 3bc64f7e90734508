"""``python -m tests.rdma.guest``: run a command where there is RDMA."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tests.rdma.guest import kernel, packages
from tests.rdma.guest.machine import Size
from tests.rdma.guest.run import BROKEN, Options, run, run_pair, run_shell

MISSING = 77  # what automake's and meson's test harnesses take for "skipped"
EXPLANATION = """\
The guest is an emulated machine (QEMU without KVM) with Debian's kernel and Soft-RoCE. It sees this
machine's files, read-only below a layer in memory, and runs COMMAND in this folder with this Python
first in its PATH. Its devices are rxe0 (10.20.0.1) and rxe1 (10.20.0.2), joined by a virtual cable;
GID index 1 is IPv4. What COMMAND leaves in $SCAD_GUEST_OUTPUT survives if --output is given.

With --pair there are two guests with a kernel and an rxe0 each, 10.20.0.1 (server) and 10.20.0.2
(client). CLIENT starts when the server's guest listens on a TCP port or SERVER made the file
$SCAD_GUEST_READY; SERVER gets SIGTERM when CLIENT has ended. Either one's failure is the run's.

status: the command's; 124 after the time limit; 125 if a guest ended without one (a kernel panic);
77 if Debian packages are missing (they are named) or apt knows no kernel.

examples:
  python -m tests.rdma.guest -- python -m pytest tests/rdma -x
  python -m tests.rdma.guest -- ib_read_lat --help
  python -m tests.rdma.guest --shell
  python -m tests.rdma.guest --pair -- ib_read_bw -d rxe0 -x 1 -- ib_read_bw -d rxe0 -x 1 10.20.0.1
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.rdma.guest",
        usage="%(prog)s [options] -- COMMAND… (with --pair: -- SERVER… -- CLIENT…)",
        description="Run a command where there is RDMA.",
        epilog=EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--memory", type=int, metavar="MIB", help="of a guest (default: 1024)")
    parser.add_argument("--cpus", type=int, default=2, metavar="N", help="of a guest (default: 2)")
    parser.add_argument(
        "--timeout",
        type=float,
        default=900,
        metavar="SECONDS",
        help="after which the guest is killed (default: 900; not with --shell)",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep $SCAD_GUEST_OUTPUT here")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--pair", action="store_true", help="two guests")
    kind.add_argument(
        "--shell", action="store_true", help="at this terminal (COMMAND: sh); end it with `exit`"
    )
    kind.add_argument(
        "--build", action="store_true", help="only make the kernel ready, and say where it is"
    )
    return parser


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in arguments:
        return arguments, []
    place = arguments.index("--")
    return arguments[:place], arguments[place + 1 :]


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = _parser()
    own, command = _split(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(own)
    server, client = _split(command) if options.pair else ([], [])
    if options.pair and not (server and client):
        parser.error("--pair takes two commands: --pair -- SERVER… -- CLIENT…")
    if not command and not options.shell and not options.build:
        parser.error("no command: … -- COMMAND")
    if options.cpus < 1 or (options.memory or 1024) < 256 or options.timeout <= 0:
        parser.error("a guest needs a processor, 256 MiB and some time")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _end)
    if absent := packages.missing():
        print(packages.say_missing(absent), file=sys.stderr)
        return MISSING
    try:
        ready = kernel.ensure()
        chosen = Options(
            size=Size(options.memory or 1024, options.cpus),
            timeout=options.timeout,
            output=options.output,
        )
        if options.build:
            print(ready.folder)
            return 0
        if options.shell:
            return run_shell(ready, command or ["sh"], chosen)
        if options.pair:
            return run_pair(ready, server, client, chosen)
        return run(ready, command, chosen)
    except kernel.NoKernelError as error:
        print(error, file=sys.stderr)
        return MISSING
    except kernel.GuestError as error:
        print(f"rdma guest: {error}", file=sys.stderr)
        return BROKEN
    except KeyboardInterrupt:
        print("rdma guest: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return BROKEN


if __name__ == "__main__":
    sys.exit(main())
