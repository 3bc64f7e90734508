"""The guest's kernel: Debian's, downloaded once, of which the image and some modules are kept.

It is in ``$XDG_CACHE_HOME/scad/rdma-guest``, in a folder named after the kernel's version and a
hash of this file. The folder appears at once and complete; of several programs that want to make
it one does and the others wait.
"""

from __future__ import annotations

import fcntl
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.rdma.guest.packages import find_program

__all__ = ["GuestError", "Kernel", "NoKernelError", "cache_folder", "ensure"]

META_PACKAGE = "linux-image-amd64"
MODULES = (
    "virtio_pci",
    "virtio_console",
    "virtio_net",
    "9pnet_virtio",
    "9p",
    "overlay",
    "veth",
    "rdma_rxe",
    "crc32_generic",  # rdma_rxe asks for one by the name of the algorithm
    "crc32_pclmul",
    "rdma_ucm",
    "ib_uverbs",
)


class GuestError(Exception):
    """The guest cannot be made or started, or ended without the command's status."""


class NoKernelError(GuestError):
    """There is no kernel in the cache, and apt knows none."""


@dataclass(frozen=True)
class Kernel:
    """A kernel in the cache.

    Attributes
    ----------
    folder
        Holds ``vmlinuz`` and ``lib/modules/VERSION`` with the modules that a guest loads.
    """

    folder: Path

    @property
    def image(self) -> Path:
        """What the emulator boots."""
        return self.folder / "vmlinuz"


def cache_folder() -> Path:
    """Where kernels are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "scad", "rdma-guest")


def _recipe() -> str:
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    """Output of a program that must succeed."""
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        words = " ".join(map(str, command))
        raise GuestError(f"{words}: status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def offered() -> tuple[str, str] | None:
    """Package and version of the kernel that apt would install; None where apt knows none."""
    if shutil.which("apt-cache") is None:
        return None
    try:
        depends = re.search(
            r"Depends: (linux-image-\S+)", _run("apt-cache", "depends", META_PACKAGE)
        )
        if depends is None:
            return None
        about = _run("apt-cache", "show", "--no-all-versions", depends[1])
    except GuestError:
        return None
    version = re.search(r"^Version: (\S+)$", about, re.MULTILINE)
    return (depends[1], version[1]) if version else None


def ensure(cache: Path | None = None) -> Kernel:
    """Return the newest kernel, downloaded if the cache does not have it.

    Without apt's lists the newest of the cache serves.

    Raises
    ------
    NoKernelError
        There is none in the cache and apt knows none.
    GuestError
        It could not be downloaded or is not as expected.
    """
    cache = cache or cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    offer = offered()
    if offer is None:
        ready = sorted(cache.glob(f"*-{_recipe()}"), key=lambda path: path.stat().st_mtime)
        if not ready:
            raise NoKernelError(
                f"the RDMA guest needs Debian's kernel, but apt knows no {META_PACKAGE}: "
                "apt-get update"
            )
        return Kernel(ready[-1])
    package, version = offer
    folder = cache / f"{package.removeprefix('linux-image-')}-{version}-{_recipe()}"
    if not folder.exists():
        with _locked(cache / ".lock"):
            if not folder.exists():
                _make(package, folder)
    return Kernel(folder)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(package: str, folder: Path) -> None:
    for stale in folder.parent.glob(".tmp-*"):  # its maker is dead: the lock is ours
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder.parent) as made:
        work = Path(made)
        _run("apt-get", "download", package, cwd=work)
        [archive] = work.glob("*.deb")
        _run("dpkg-deb", "-x", archive, work / "all")
        version = package.removeprefix("linux-image-")
        kept = work / "kept"
        keep_modules(work / "all", kept, version)
        shutil.copy(work / "all" / "boot" / f"vmlinuz-{version}", kept / "vmlinuz")
        kept.rename(folder)


def keep_modules(source: Path, kept: Path, version: str) -> None:
    """Copy the modules of a guest, and those that they need, from one root folder to another."""
    depmod = find_program("depmod") or "depmod"
    modules = Path("lib", "modules", version)
    _run(depmod, "-b", source, version)
    depends: dict[str, list[str]] = {}
    for line in (source / modules / "modules.dep").read_text().splitlines():
        name, _, others = line.partition(":")
        depends[name] = others.split()
    by_name = {Path(name).name.partition(".")[0].replace("-", "_"): name for name in depends}
    for module in MODULES:
        if module not in by_name:
            raise GuestError(f"kernel {version} has no module {module}")
        for name in (by_name[module], *depends[by_name[module]]):
            content = (source / modules / name).read_bytes()
            target = kept / modules / name.removesuffix(".xz")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(lzma.decompress(content) if name.endswith(".xz") else content)
    for listing in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(source / modules / listing, kept / modules / listing)
    _run(depmod, "-b", kept, version)
