"""``python -m tests.rdma.guest.suite``: pytest where there is RDMA, here or in a guest.

A machine with an RDMA device runs pytest at once. Any other builds the guest and runs it there,
after a collection here: that finds mistakes before the guest starts, and leaves compiled modules
that emulation would take long to make. So would the TPC-DS data.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.rdma.guest import packages
from tests.rdma.guest.__main__ import MISSING
from tests.rdma.guest.__main__ import main as guest
from tests.rdma.guest.run import ROOT
from tpcds.data import ensure

__all__ = ["main"]

DEVICES = Path("/sys/class/infiniband")
MEMORY = 3072  # MiB; the elements of one query are promised more than 1024
TIMEOUT = 3600  # s, for a machine with others at work: each test has a limit of its own
SCALE = 0.01


def has_device(folder: Path = DEVICES) -> bool:
    """Whether this machine has an RDMA device."""
    return folder.is_dir() and any(folder.iterdir())


def main(arguments: list[str] | None = None) -> int:
    """Run pytest with these arguments (default: ``tests/rdma``); returns its status."""
    tests = (sys.argv[1:] if arguments is None else arguments) or ["tests/rdma"]
    pytest = [sys.executable, "-m", "pytest", *tests]
    if has_device():
        environment = {**os.environ, "SCAD_RDMA": "1"}
        return subprocess.run(pytest, cwd=ROOT, env=environment, check=False).returncode
    if absent := packages.missing():
        print(packages.say_missing(absent), file=sys.stderr)
        return MISSING
    collected = subprocess.run(
        [*pytest, "--collect-only", "-q"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if collected.returncode != 0:
        print(collected.stdout, collected.stderr, sep="", file=sys.stderr)
        return collected.returncode
    ensure(SCALE)
    own = ["--memory", str(MEMORY), "--timeout", str(TIMEOUT)]
    return guest([*own, "--", "python", "-m", "pytest", *tests])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
