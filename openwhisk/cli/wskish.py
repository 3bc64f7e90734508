"""`wskish`: talk to a control plane: put, post, get, list, delete, cancel."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from libd.errors import ScadError
from openwhisk.app import load_directory
from openwhisk.client import ApiStatusError, HttpControlPlane

DEFAULT_HOST = "http://127.0.0.1:3233"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="wskish",
        description="Submit applications to a control plane and look at their activations.",
        epilog="Example: wskish put demo examples/corunning-2-node && wskish post demo --blocking",
    )
    result.add_argument(
        "--apihost", default=os.environ.get("SCAD_APIHOST", DEFAULT_HOST),
        help="control plane, by default $SCAD_APIHOST or %(default)s",
    )  # fmt: skip
    result.add_argument("--auth", metavar="UUID:KEY", help="default: $SCAD_AUTH or the stored key")
    result.add_argument("-v", "--verbose", action="store_true", help="tracebacks for errors")
    commands = result.add_subparsers(dest="command", required=True, metavar="COMMAND")

    put = commands.add_parser("put", help="store an application or a plain Python action")
    put.add_argument("name")
    put.add_argument(
        "source", type=Path, help="a folder of element files, wskgen's JSON, or a Python file"
    )
    put.add_argument("--overwrite", action="store_true", help="replace what has that name")

    post = commands.add_parser("post", help="invoke an application or action")
    post.add_argument("name")
    post.add_argument(
        "-p", "--param", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"),
        help="a parameter; VALUE is JSON, or else text",
    )  # fmt: skip
    post.add_argument("-P", "--param-file", type=Path, help="parameters from a JSON file")
    post.add_argument("--blocking", action="store_true", help="wait and print the activation")
    post.add_argument("--result", action="store_true", help="wait and print only the result")
    post.add_argument("--transport", choices=("auto", "shm", "tcp", "rdma"), default="auto")

    get = commands.add_parser("get", help="show an activation (by its id) or an entity (by name)")
    get.add_argument("name", help="activation id or entity name")
    only = get.add_mutually_exclusive_group()
    only.add_argument("--logs", action="store_true", help="only an activation's logs")
    only.add_argument("--result", action="store_true", help="only an activation's result")

    listing = commands.add_parser("list", help="list entities, or activations")
    listing.add_argument("kind", nargs="?", choices=("actions", "activations"), default="actions")
    listing.add_argument("--limit", type=int, default=30)

    for command, text in (("delete", "remove an entity"), ("cancel", "stop an activation")):
        commands.add_parser(command, help=text).add_argument("name")
    return result


def body_of(source: Path, name: str) -> dict[str, Any]:
    """What to PUT for a folder, a JSON file or a Python file.

    Raises
    ------
    ScadError, OSError, ValueError
        The source is missing, or no application or action.
    """
    if source.is_dir():
        app = load_directory(source)
        for warning in app.warnings:
            sys.stderr.write(f"warning: {warning}\n")
        return app.to_json()
    text = source.read_text()
    if source.suffix == ".json":
        body = json.loads(text)
        if not isinstance(body, dict):
            raise ValueError(f"{source}: an application is a JSON object")
        return body
    if source.name.endswith(".o.py"):
        raise ValueError(f"{source} is one element; put its folder")
    return {"exec": {"kind": "python:default", "code": text}}


def parameters_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Parameters of an invocation: the file's, then the single ones."""
    params: dict[str, Any] = {}
    if arguments.param_file is not None:
        params = json.loads(arguments.param_file.read_text())
        if not isinstance(params, dict):
            raise ValueError(f"{arguments.param_file}: parameters are a JSON object")
    for key, value in arguments.param:
        try:
            params[key] = json.loads(value)
        except ValueError:
            params[key] = value
    return params


def is_activation_id(name: str) -> bool:
    """Whether a name has the form of an activation id: 32 hexadecimal digits."""
    return len(name) == 32 and all(c in "0123456789abcdef" for c in name)


def run(plane: HttpControlPlane, arguments: argparse.Namespace) -> tuple[Any, int]:
    """Carry out a command; return what to print as JSON and the exit status."""
    name = getattr(arguments, "name", "")
    match arguments.command:
        case "put":
            body = body_of(arguments.source, name)
            query = {"overwrite": "true" if arguments.overwrite else "false"}
            entity = plane.request("PUT", f"/actions/{name}", json=body, params=query)
            return {key: entity[key] for key in ("namespace", "name", "version")}, 0
        case "post":
            return post(plane, arguments)
        case "get" if is_activation_id(name):
            part = "/logs" if arguments.logs else "/result" if arguments.result else ""
            return plane.request("GET", f"/activations/{name}{part}"), 0
        case "get":
            if arguments.logs or arguments.result:
                raise ValueError(f"{name!r} is no activation id: --logs and --result need one")
            return plane.request("GET", f"/actions/{name}"), 0
        case "list":
            return plane.request("GET", f"/{arguments.kind}", params={"limit": arguments.limit}), 0
        case "delete":
            plane.request("DELETE", f"/actions/{name}")
            return {"deleted": name}, 0
        case "cancel":
            plane.cancel(name)
            return {"cancelled": name}, 0
    raise AssertionError(arguments.command)


def post(plane: HttpControlPlane, arguments: argparse.Namespace) -> tuple[Any, int]:
    """Invoke; waiting goes on past the time that one request may take."""
    activation_id = plane.invoke(
        arguments.name, parameters_of(arguments), transport=arguments.transport
    )
    if not (arguments.blocking or arguments.result):
        return {"activationId": activation_id}, 0
    plane.wait(activation_id)
    record = plane.request("GET", f"/activations/{activation_id}")
    shown = record["response"]["result"] if arguments.result else record
    return shown, 0 if record["response"]["success"] else 1


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    arguments = parser().parse_args(argv)
    try:
        with HttpControlPlane(arguments.apihost, arguments.auth) as plane:
            shown, status = run(plane, arguments)
    except KeyboardInterrupt:
        return 130
    except (ScadError, OSError, ValueError) as error:
        if arguments.verbose:
            raise
        hint = f" (transaction {error.code})" if isinstance(error, ApiStatusError) else ""
        # An application may have several problems, one on each line.
        for line in f"{error}{hint}".splitlines():
            sys.stderr.write(f"wskish: {line}\n")
        return 1
    sys.stdout.write(json.dumps(shown, indent=2) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
