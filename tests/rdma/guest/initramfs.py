"""The guest's first file system, in the kernel's format (cpio "newc").

It is small and made anew for every start. Nothing in it is compressed: decompression under
emulation would take longer than loading.
"""

from __future__ import annotations

import stat
from pathlib import Path

from tests.rdma.guest.kernel import GuestError, Kernel
from tests.rdma.guest.packages import find_program

__all__ = ["Archive", "initramfs"]

SCRIPTS = Path(__file__).parent
APPLETS = ("sh", "cp", "echo", "mkdir", "modprobe", "mount", "sleep", "switch_root")
FOLDERS = ("proc", "sys", "dev", "host", "layer", "newroot")


class Archive:
    """A cpio archive in memory."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._folders: set[str] = set()

    def _append(self, part: bytes) -> None:
        part += b"\0" * (-len(part) % 4)
        self._parts.append(part)
        self._size += len(part)

    def _entry(self, name: str, mode: int, content: bytes = b"") -> None:
        encoded = name.encode() + b"\0"
        # Inode (numbers distinguish nothing here: one link each), mode, owner, group, links, time,
        # size, two devices of two numbers, length of the name, checksum.
        fields = (len(self._parts), mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        self._append(b"070701" + b"".join(b"%08X" % field for field in fields) + encoded)
        self._append(content)

    def folder(self, name: str) -> None:
        """Add a folder and those above it, unless they are there."""
        for parent in [*reversed(Path(name).parents[:-1]), Path(name)]:
            if str(parent) not in self._folders:
                self._folders.add(str(parent))
                self._entry(str(parent), stat.S_IFDIR | 0o755)

    def file(self, name: str, content: bytes, mode: int = 0o755) -> None:
        """Add a file, and the folders above it."""
        if parent := str(Path(name).parent).removeprefix("."):
            self.folder(parent)
        self._entry(name, stat.S_IFREG | mode, content)

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def finish(self) -> bytes:
        """Return the whole archive."""
        self._entry("TRAILER!!!", 0)
        return b"".join(self._parts)


def initramfs(kernel: Kernel) -> bytes:
    """Return what the guest starts with: busybox, the modules, our two scripts.

    Raises
    ------
    GuestError
        There is no busybox.
    """
    busybox = find_program("busybox")
    if busybox is None:
        raise GuestError("there is no busybox")
    archive = Archive()
    for folder in FOLDERS:
        archive.folder(folder)
    archive.file("bin/busybox", Path(busybox).read_bytes())
    for applet in APPLETS:
        archive.link(f"bin/{applet}", "busybox")
    archive.file("init", (SCRIPTS / "init.sh").read_bytes())
    archive.file("session.sh", (SCRIPTS / "session.sh").read_bytes())
    for path in sorted((kernel.folder / "lib").rglob("*")):
        if path.is_file():
            archive.file(str(path.relative_to(kernel.folder)), path.read_bytes(), 0o644)
    return archive.finish()
