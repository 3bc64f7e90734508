"""Which Debian packages the guest needs, and which of them are missing (``packages.txt``)."""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["missing", "needed", "say_missing"]

LIST = Path(__file__).with_name("packages.txt")
DYNAMIC = b"ld-linux"  # the loader's name, near the beginning of what is linked dynamically
SYSTEM = ("/usr/sbin", "/sbin")  # not in everybody's PATH


def find_program(name: str) -> str | None:
    """Path of a program, those for administrators included."""
    return shutil.which(name) or shutil.which(name, path=":".join(SYSTEM))


def needed(listing: str | None = None) -> dict[str, str]:
    """Packages, and for each the program or file that proves it is there."""
    lines = (LIST.read_text() if listing is None else listing).splitlines()
    words = [line.split(maxsplit=2) for line in lines if line and not line.startswith("#")]
    return {package: probe for package, probe, _ in words}


def _is_there(probe: str) -> bool:
    if probe.startswith("/"):
        return Path(probe).exists()
    program = find_program(probe)
    if program is None:
        return False
    # Debian has two packages with a busybox; only the static one starts before there is a root.
    return probe != "busybox" or DYNAMIC not in Path(program).read_bytes()[:4096]


def missing() -> list[str]:
    """Packages that are to be installed before a guest can be started."""
    return [package for package, probe in needed().items() if not _is_there(probe)]


def say_missing(packages: list[str]) -> str:
    """One sentence with the command that installs what is missing."""
    return (
        "the RDMA guest needs Debian packages that are not installed: "
        f"apt-get install --no-install-recommends {' '.join(packages)}"
    )
