"""``wskgen``: a directory of element files to an application JSON, and back."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from openwhisk.app import Application, load_directory
from openwhisk.cli.common import (
    FAILED,
    INTERRUPTED,
    ToolError,
    complain,
    parser,
    say,
    show_warnings,
    write_text,
)
from openwhisk.errors import ApplicationError

DESCRIPTION = """\
Turn a directory of element files (NAME.o.py, NAME.o.yaml) into the JSON of an
application, or back.

    wskgen -o app.json DIR               directory to JSON
    wskgen --reverse -o DIR app.json     JSON to directory
    wskgen --check DIR|app.json          only say what is wrong
"""

EPILOG = """\
Warnings and errors go to the standard error, one line each: file:line: message.
Exit status: 0, or 1 if the application is wrong, 2 for wrong usage.
"""


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    args = parser("wskgen", DESCRIPTION, EPILOG)
    args.add_argument("source", metavar="SOURCE", type=Path, help="directory, or JSON file")
    args.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUTPUT",
        help="JSON file to write (default: standard output); with --reverse the directory",
    )
    args.add_argument("--name", help="name of the application (default: what the source is called)")
    mode = args.add_mutually_exclusive_group()
    mode.add_argument("--reverse", action="store_true", help="from JSON to a directory")
    mode.add_argument("--check", action="store_true", help="validate, write nothing")
    found = args.parse_args(argv)
    if found.reverse and found.output is None:
        args.error("--reverse needs -o DIR")
    if found.check and found.output is not None:
        args.error("--check writes nothing: leave out -o")
    return found


def _read_json(path: Path, name: str | None) -> Application:
    try:
        text = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise ToolError(f"{path}: cannot be read: {error.strerror}") from None
    return Application.from_json(text, name=name, file=str(path))


def _run(args: argparse.Namespace) -> int:
    if args.reverse or (args.check and not args.source.is_dir()):
        app = _read_json(args.source, args.name)
    else:
        app = load_directory(args.source, args.name)
    show_warnings(app.warnings)
    if args.check:
        return 0
    if args.reverse:
        app.write_directory(args.output)
        return 0
    text = json.dumps(app.to_json(), indent=2)
    if args.output is None or str(args.output) == "-":
        say(text)
    else:
        write_text(args.output, text + "\n")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``wskgen``; returns the exit status."""
    args = _arguments(argv)
    try:
        return _run(args)
    except ApplicationError as error:
        complain(str(error))
    except ToolError as error:
        complain(f"wskgen: {error}")
        return error.status
    except KeyboardInterrupt:
        complain("wskgen: interrupted")
        return INTERRUPTED
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
