"""``wskruntime``: OpenWhisk's action-runtime contract for one element, over HTTP on this host."""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from openwhisk.app.elementfile import clean_code
from openwhisk.app.model import ComputeElement
from openwhisk.cli.common import (
    FAILED,
    ToolError,
    UsageError,
    complain,
    parser,
    say,
    write_line,
)
from openwhisk.cli.element import load_compute
from openwhisk.cli.memory import HELP, connect, parse_memory, transports_of
from openwhisk.errors import ApplicationError
from openwhisk.runtime import Action, LoadedElement, Outcome, Resources, call_element, load_code
from openwhisk.runtime.run import failure_of

SENTINEL = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"

DESCRIPTION = """\
Serve one element as an OpenWhisk action runtime, on 127.0.0.1:

    POST /init   {value: {name, main, code, binary, env}}
    POST /run    {value, activation_id, action_name, namespace, deadline, ...}

With ELEMENT, the element is initialised already. Each run gets its fields in the
environment (__OW_ACTIVATION_ID ...); what it prints appears on this process's
standard output and error, followed by the end-of-activation marker on both.
"""

EPILOG = """\
Not served: the routes POST /action/{aid}, POST /action/{aid}/messages and
PUT /action/{aid}/transport/{name} of the prototype's proxy, and code in zip
files (binary: true with an archive). Memory elements are given with -m.
"""


class Runtime:
    """The state behind ``/init`` and ``/run``: at most one element, loaded once, run one at a time.

    Parameters
    ----------
    libd_action
        Where the element's transports come from (`libd.LibdAction`).
    memory_elements
        See `openwhisk.runtime.Action`.
    """

    def __init__(self, libd_action: Any, memory_elements: Mapping[str, str] | None = None) -> None:
        self._libd = libd_action
        self._memory_elements = dict(memory_elements or {})
        self._resources = Resources()
        # Environment, standard streams and sys.modules belong to the process.
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._element: LoadedElement | None = None
        self._name = ""
        self._env: dict[str, str] = {}

    def init(self, value: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Load an element; return the HTTP status and body."""
        with self._lock:
            if self._element is not None:
                return 403, {"error": "Cannot initialize the action more than once."}
            code, main = value.get("code"), value.get("main") or "main"
            if not isinstance(code, str) or not code.strip() or not isinstance(main, str):
                return 403, {"error": "Missing main/no code to execute."}
            if value.get("binary"):
                try:
                    code = base64.b64decode(code, validate=True).decode()
                except (binascii.Error, UnicodeDecodeError):
                    return 502, {"error": "binary code must be base64 of Python text, not a zip"}
            env = value.get("env")
            name = value.get("name")
            return self._load(
                clean_code(code),
                main,
                name=name if isinstance(name, str) and name else "action",
                env={k: _env_text(v) for k, v in env.items()} if isinstance(env, dict) else {},
            )

    def preload(self, element: ComputeElement, path: Path) -> None:
        """Load an element file; raises `ToolError` if that fails."""
        with self._lock:
            status, body = self._load(
                element.code,
                element.main,
                name=element.name,
                env={},
                imports=element.imports,
                modules=element.modules,
                file=str(path),
                first_line=element.first_line,
            )
        if status != 200:
            raise ToolError(body["error"])

    def _load(
        self, code: str, main: str, *, name: str, env: dict[str, str], **options: Any
    ) -> tuple[int, dict[str, Any]]:
        stack = ExitStack()
        try:
            self._element = stack.enter_context(load_code(code, main, name, **options))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            failure = failure_of(error, "load")
            complain(failure.traceback.rstrip("\n"))
            self._end_of_activation()
            return 502, {"error": f"The action failed to initialize: {failure}"}
        self._stack, self._name, self._env = stack, name, env
        return 200, {"ok": True}

    def run(self, message: Mapping[str, Any]) -> tuple[int, Any]:
        """Run the element; return the HTTP status and body."""
        params = message.get("value", {})
        if not isinstance(params, dict):
            return 404, {"error": "The action did not receive a dictionary as an argument."}
        with self._lock:
            if self._element is None:
                return 502, {"error": "The action has not been initialized."}
            outcome = self._call(self._element, params, message)
        if outcome.failure is not None:
            return 502, {"error": f"An error has occurred: {outcome.failure}"}
        return 200, outcome.result

    def _call(
        self, element: LoadedElement, params: dict[str, Any], message: Mapping[str, Any]
    ) -> Outcome:
        activation_id = message.get("activation_id")
        action = Action(
            self._name,
            self._libd,
            activation_id=activation_id if isinstance(activation_id, str) else "",
            memory_elements=self._memory_elements,
            resources=self._resources,
        )
        env = self._env | {
            f"__OW_{k.upper()}": _env_text(v) for k, v in message.items() if k != "value"
        }
        streams = {"stdout": sys.stdout, "stderr": sys.stderr}
        outcome = call_element(
            element,
            params,
            action,
            env={k: v for k, v in env.items() if k and "=" not in k and "\0" not in k + v},
            on_log=lambda stream, text: write_line(streams[stream], text),
            allow_array=True,
        )
        if outcome.failure is not None:
            complain(outcome.failure.traceback.rstrip("\n"))
        self._end_of_activation()
        return outcome

    def _end_of_activation(self) -> None:
        say(SENTINEL)
        complain(SENTINEL)

    def close(self) -> None:
        """Forget the element and what it kept warm; close its transports."""
        with self._lock:
            self._stack.close()
            self._element = None
            self._resources.close()
            self._libd.close()


def _env_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def application(runtime: Runtime) -> Starlette:
    """Return the ASGI application over `runtime`."""

    async def body(request: Request) -> dict[str, Any] | None:
        try:
            message = json.loads(await request.body())
        except (ValueError, RecursionError):
            return None
        return message if isinstance(message, dict) else None

    malformed = JSONResponse({"error": "The body is not a JSON object."}, 400)

    async def init(request: Request) -> JSONResponse:
        message = await body(request)
        if message is None:
            return malformed
        value = message.get("value")
        value = value if isinstance(value, dict) else {}
        status, answer = await run_in_threadpool(runtime.init, value)
        return JSONResponse(answer, status)

    async def run(request: Request) -> JSONResponse:
        message = await body(request)
        if message is None:
            return malformed
        status, answer = await run_in_threadpool(runtime.run, message)
        return JSONResponse(answer, status)

    return Starlette(
        routes=[Route("/init", init, methods=["POST"]), Route("/run", run, methods=["POST"])]
    )


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    args = parser("wskruntime", DESCRIPTION, EPILOG)
    args.add_argument(
        "element", metavar="ELEMENT", type=Path, nargs="?", help="element file, NAME.o.py"
    )
    args.add_argument(
        "--port", type=int, default=8080, help="port to listen on, 0 for any (default 8080)"
    )
    args.add_argument("-m", "--memory", metavar="MEM", action="append", default=[], help=HELP)
    args.add_argument("--token", help="token of the memory servers")
    return args.parse_args(argv)


def _listen(port: int) -> socket.socket:
    if not 0 <= port < 1 << 16:
        raise UsageError(f"--port {port} is not 0 to 65535")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("127.0.0.1", port))
    except OSError as error:
        sock.close()
        raise ToolError(f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from None
    return sock


def _serve(args: argparse.Namespace) -> int:
    element = None
    given = [parse_memory(m, args.token) for m in args.memory]
    durls = {durl.name: durl for durl in given}
    if args.element is not None:
        element = load_compute(args.element)
        durls = transports_of(element, given)
    from libd import LibdAction

    with _listen(args.port) as sock:
        libd_action = LibdAction("wskruntime")
        runtime = Runtime(libd_action, {name: durl.name for name, durl in durls.items()})
        try:
            connect(libd_action, durls.values(), timeout=10.0)
            if element is not None:
                runtime.preload(element, args.element)
            config = uvicorn.Config(
                application(runtime), log_level="warning", access_log=False, lifespan="off"
            )
            complain(f"wskruntime: listening on http://127.0.0.1:{sock.getsockname()[1]}")
            uvicorn.Server(config).run(sockets=[sock])
        finally:
            runtime.close()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``wskruntime``; returns the exit status."""
    args = _arguments(argv)
    try:
        return _serve(args)
    except ApplicationError as error:
        complain(str(error))
    except ToolError as error:
        complain(f"wskruntime: {error}")
        return error.status
    except KeyboardInterrupt:
        return 0
    except ImportError as error:
        complain(f"wskruntime: libd cannot be loaded: {error} (is it built? make setup)")
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
