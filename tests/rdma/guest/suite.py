"""``python -m tests.rdma.guest.suite``: pytest where there is RDMA, here or in a guest.

A machine with an RDMA device runs pytest at once. Any other builds the guest and runs it there,
after a collection here: that finds mistakes before the guest starts, and leaves compiled modules
that emulation would take long to make.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.rdma.guest.__main__ import main as guest
from tests.rdma.guest.run import ROOT

__all__ = ["main"]

DEVICES = Path("/sys/class/infiniband")


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
    collected = subprocess.run(
        [*pytest, "--collect-only", "-q"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if collected.returncode != 0:
        print(collected.stdout, collected.stderr, sep="", file=sys.stderr)
        return collected.returncode
    return guest(["--", "python", "-m", "pytest", *tests])


if __name__ == "__main__":
    sys.exit(main())
