"""What the tools share: how they speak and how they fail."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, TextIO

from openwhisk.app.model import AppWarning

FAILED = 1
USAGE = 2
INTERRUPTED = 130


class ToolError(Exception):
    """What a tool was asked to do cannot be done; the message is for the user, one line each."""

    status = FAILED


class UsageError(ToolError):
    """The tool was called wrongly."""

    status = USAGE


def write_line(stream: TextIO, text: str) -> None:
    """Write one line. A reader that went away (``| head``) is no error."""
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError:
        # Python would complain once more when it flushes the stream at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say(text: str) -> None:
    """Write a line to the standard output."""
    write_line(sys.stdout, text)


def complain(text: str) -> None:
    """Write a line to the standard error."""
    write_line(sys.stderr, text)


def show_warnings(warnings: tuple[AppWarning, ...]) -> None:
    """Write warnings to the standard error, ``file:line: warning: message``."""
    for warning in warnings:
        where = "" if warning.location is None else f"{warning.location}: "
        complain(f"{where}warning: {warning.message}")


def parser(prog: str, description: str, epilog: str = "") -> argparse.ArgumentParser:
    """Return an argument parser whose ``--help`` keeps the paragraphs of its texts."""
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def write_text(path: Path, text: str) -> None:
    """Write a file as a whole: whoever reads it sees the old text or the new one."""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise ToolError(f"{path}: cannot be written: {error.strerror}") from None


def read_json_object(text: str, what: str) -> dict[str, Any]:
    """Return a JSON object given on the command line."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{what} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{what} must be a JSON object")
    return value
