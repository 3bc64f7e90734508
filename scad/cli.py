"""The ``scad`` command: ``doctor``, ``sql``, ``serve``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from libd.program import Parser
from scad.version import __version__

__all__ = ["main"]

EXIT_FAILED = 1

_EXAMPLES = """\
examples:
  scad doctor
  scad sql "select count(*) from t" --table t=sales.parquet
  scad sql - --table sales=data/ --format csv < query.sql
  scad serve --port 3233
"""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="scad",
        description="Data analytics on disaggregated memory.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"scad {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    doctor = commands.add_parser(
        "doctor",
        help="what this machine can do",
        description="Say what this machine can do: versions, transports, memory and limits. "
        "Exit status 1 if something is missing that Scad cannot run without.",
    )
    doctor.add_argument("--json", action="store_true", help="as JSON")

    commands.add_parser("sql", help="run one query (see scad sql --help)", add_help=False)
    commands.add_parser(
        "serve",
        help="run a control plane (the same as python -m openwhisk)",
        add_help=False,
    )
    return parser


def _doctor(options: argparse.Namespace) -> int:
    from scad.doctor import examine

    findings = examine()
    if options.json:
        sys.stdout.write(json.dumps([f.to_json() for f in findings], indent=1) + "\n")
    else:
        width = max(len(finding.name) for finding in findings)
        area = None
        for finding in findings:
            if finding.area != area:
                area = finding.area
                sys.stdout.write(f"{area}\n")
            mark = {"ok": " ", "note": "-", "broken": "!"}[finding.level]
            sys.stdout.write(f" {mark} {finding.name:<{width}}  {finding.detail}\n")
        broken = [finding.name for finding in findings if finding.level == "broken"]
        verdict = f"Scad cannot run here: {', '.join(broken)}" if broken else "Scad runs here."
        sys.stdout.write(verdict + "\n")
    return EXIT_FAILED if any(f.level == "broken" for f in findings) else 0


def _serve(arguments: list[str]) -> int:
    from openwhisk.__main__ import main as serve

    return serve(arguments, "scad serve")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``scad``; returns the exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    # What follows these two is theirs.
    if given[:1] == ["serve"]:
        return _serve(given[1:])
    from engine import cli

    if given[:1] == ["sql"]:
        return cli.sql(given[1:], "scad sql", name="scad")
    options = _parser().parse_args(given)
    return cli.guarded("scad", lambda: _doctor(options), verbose=False)


if __name__ == "__main__":
    sys.exit(main())
