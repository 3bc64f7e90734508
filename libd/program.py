"""How the command-line programs of all rooms speak on stderr: one line at a time, with a name."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import NoReturn

__all__ = ["EXIT_USAGE", "Parser", "show_notices"]

EXIT_USAGE = 2
_STARTER = "python -m "


class Parser(argparse.ArgumentParser):
    """An argument parser that refuses a wrong command line with one line, ``program: why``."""

    def error(self, message: str) -> NoReturn:
        """Write the line to stderr and exit with status 2."""
        name = self.prog.removeprefix(_STARTER)
        self.exit(EXIT_USAGE, f"{name}: {message} (--help shows how to use it)\n")


def show_notices(program: str, *, verbose: bool = False) -> None:
    """Have what libraries log written to stderr as ``program: warning: message``.

    Warnings and worse, or with `verbose` information too. For the main function of a program; where
    logging is configured already (by somebody who calls that function) nothing is changed.
    """
    handler = _Stderr()
    handler.setFormatter(_OneLine(program.removeprefix(_STARTER)))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])


class _Stderr(logging.Handler):
    """Writes to what is ``sys.stderr`` at that moment: while a live table is shown, what passes
    through there is put above it.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


class _OneLine(logging.Formatter):
    """``program: warning: message``. An unexpected exception keeps its traceback, below."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def formatMessage(self, record: logging.LogRecord) -> str:
        words = " ".join(record.message.split())
        return f"{self._program}: {record.levelname.lower()}: {words}"
