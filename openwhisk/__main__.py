"""`python -m openwhisk`: the stand-alone control plane, with its REST service."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import uvicorn

from libd.errors import ScadError
from libd.program import Parser, show_notices
from libd.units import parse_size
from openwhisk.control import EmbeddedControlPlane
from openwhisk.http.auth import DEFAULT_NAMESPACE, ensure_key, state_directory
from openwhisk.http.service import Service, create_app, load
from openwhisk.store import Store

PROGRAM = "python -m openwhisk"
DEFAULT_PORT = 3233  # stand-alone OpenWhisk's
# What elements commonly import; a worker forks from a process that has them. Absent ones are left
# out.
PREIMPORT = (
    "numpy,remote_frame.pandas_later,pyarrow.dataset,libd.action,remote_array,"
    "remote_frame.executor,operators.duckdb,engine.element"
)


class Server(uvicorn.Server):
    """uvicorn's server; when it is to stop, requests that wait for an activation are answered."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server.shutdown`."""
        self._service.waiters.close()
        await super().shutdown(sockets)


def cores(text: str) -> float:
    """A number of cores."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


def size(text: str) -> int:
    """A number of bytes."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def port(text: str) -> int:
    """A TCP port."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return int(text)


def parser(program: str = PROGRAM) -> Parser:
    """The command line."""
    result = Parser(
        prog=program,
        description="Run the control plane with its REST service until SIGTERM or Ctrl-C.",
        epilog="The first start prints a key (uuid:key) once and stores it; clients of the same "
        "user find it by themselves, others take it from SCAD_AUTH. Try: wskish list",
    )
    result.add_argument("--port", type=port, default=DEFAULT_PORT, help="0 for any free one")
    result.add_argument("--bind", default="127.0.0.1", metavar="HOST", help="address to listen at")
    result.add_argument("--cores", type=cores, help="cores for elements (default: the machine's)")
    result.add_argument("--memory", type=size, help="bytes for elements, e.g. 8GB")
    result.add_argument(
        "--state", type=Path, default=state_directory(), help="folder of the store and the key"
    )
    result.add_argument("--preimport", default=PREIMPORT, help="modules that workers start with")
    result.add_argument("--json", action="store_true", help="say where it listens as JSON")
    result.add_argument("-v", "--verbose", action="store_true", help="log requests; tracebacks")
    return result


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, bound before anything is started so that a busy port costs nothing."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def serve(arguments: argparse.Namespace) -> None:
    """Start everything, serve, and stop everything."""
    with ExitStack() as stack:
        listener = stack.enter_context(listen(arguments.bind, arguments.port))
        store = stack.enter_context(closing(Store(arguments.state / "openwhisk.sqlite")))
        key = ensure_key(store, arguments.state)
        preimport = tuple(filter(None, arguments.preimport.split(",")))
        plane = EmbeddedControlPlane(arguments.cores, arguments.memory, preimport)
        service = Service(plane, store)
        stack.callback(service.close)
        stack.enter_context(plane)  # closed first: what it cancels is still written to the store
        plane.on_finished(lambda a: service.finished(a, DEFAULT_NAMESPACE))
        load(service, DEFAULT_NAMESPACE)
        announce(arguments, listener, key)
        config = uvicorn.Config(
            create_app(service),
            log_level="info" if arguments.verbose else "warning",
            timeout_graceful_shutdown=5,
        )
        Server(config, service).run(sockets=[listener])


def announce(arguments: argparse.Namespace, listener: socket.socket, key: str | None) -> None:
    """Say where the service is and, the first time, the key."""
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if arguments.json:
        line = json.dumps({"url": url, "pid": os.getpid(), "auth": key})
    else:
        line = f"control plane at {url}, state in {arguments.state}"
        if key is not None:
            line = f"{line}\nkey (shown once; stored in {arguments.state / 'auth'}): {key}"
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(argv: list[str] | None = None, program: str = PROGRAM) -> int:
    """Entry point; returns the exit status. `program` is what it was started as."""
    arguments = parser(program).parse_args(argv)
    # uvicorn finishes on SIGTERM and then raises it again: by then it must unwind, not kill.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    show_notices(program, verbose=arguments.verbose)
    try:
        serve(arguments)
    except KeyboardInterrupt:
        return 130
    except (ScadError, OSError, ValueError) as error:
        if arguments.verbose:
            raise
        sys.stderr.write(f"{program.removeprefix('python -m ')}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
