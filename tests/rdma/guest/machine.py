"""One emulated machine: its folder, its QEMU process, what it printed and how it ended."""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.rdma.guest.initramfs import initramfs
from tests.rdma.guest.kernel import GuestError, Kernel
from tests.rdma.guest.packages import find_program

__all__ = ["Machine", "Size", "script"]

SHARE = Path("/run/guest")  # where the guest sees the shared folder
KERNEL_ARGUMENTS = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr nowatchdog audit=0"
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


@dataclass(frozen=True)
class Size:
    """What a guest gets: memory in MiB, and how many processors."""

    memory: int = 1024
    cpus: int = 2


def script(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    """Shell script that runs a command in a folder with exactly that environment."""
    assignments = [f"{name}={value}" for name, value in sorted(environment.items())]
    program = shlex.join(["env", "-i", *assignments, *command])
    return f"cd {shlex.quote(str(folder))} && exec {program}\n"


class Machine:
    """A guest that runs one command.

    Parameters
    ----------
    folder
        An empty folder of its own: the guest's files, later its kernel's messages.
    role
        ``alone`` with rxe0 and rxe1 on a virtual cable; ``server`` or ``client`` of a pair with
        rxe0 each.
    link
        The role's end of a stream socket pair that is the cable between two guests.
    shell
        The command talks to this program's terminal.
    """

    def __init__(
        self,
        kernel: Kernel,
        folder: Path,
        command: str,
        size: Size,
        *,
        role: str = "alone",
        link: socket.socket | None = None,
        shell: bool = False,
    ) -> None:
        self.role = role
        self.folder = folder
        self.share = folder / "share"
        self.output = self.share / "output"
        self.output.mkdir(parents=True)
        (self.share / "command").write_text(command)
        settings = f"role={role}\nshell={'yes' if shell else 'no'}\n"
        (self.share / "settings").write_text(settings)
        (folder / "initramfs").write_bytes(initramfs(kernel))
        self._link = link
        self._shell = shell
        self._arguments = self._command_line(kernel, size)
        self._process: subprocess.Popen[bytes] | None = None

    def _command_line(self, kernel: Kernel, size: Size) -> list[str]:
        emulator = find_program("qemu-system-x86_64")
        if emulator is None:
            raise GuestError("there is no qemu-system-x86_64")
        root = "local,path=/,mount_tag=hostroot,security_model=none,readonly=on,multidevs=remap"
        folder = str(self.folder).replace(",", ",,")  # QEMU's way to write a comma
        share = f"local,path={folder}/share,mount_tag=share,security_model=none,multidevs=remap"
        arguments = [
            emulator, "-accel", "tcg,thread=multi", "-cpu", "max,la57=off", "-machine", "q35",
            "-smp", str(size.cpus), "-m", str(size.memory),
            "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
            "-kernel", str(kernel.image), "-initrd", str(self.folder / "initramfs"),
            "-append", KERNEL_ARGUMENTS,
            "-chardev", f"file,id=log,path={folder}/kernel.log", "-serial", "chardev:log",
            "-chardev", "stdio,id=out,signal=off", "-device", "virtio-serial-pci",
            "-device", "virtconsole,chardev=out",
            "-virtfs", root, "-virtfs", share,
        ]  # fmt: skip
        if self._link is not None:
            number = {"server": 1, "client": 2}[self.role]
            device = f"virtio-net-pci,netdev=cable,mac=52:54:00:5c:ad:0{number},host_mtu=9000"
            cable = f"socket,id=cable,fd={self._link.fileno()}"
            arguments += ["-netdev", cable, "-device", device]
        return arguments

    def start(self) -> None:
        """Start the emulator; it ends with the thread that called this, however that ends."""
        parent = os.getpid()

        def die_with_parent() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

        with (self.folder / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(
                self._arguments,
                stdin=None if self._shell else subprocess.DEVNULL,
                stdout=None if self._shell else subprocess.PIPE,
                stderr=log,
                pass_fds=() if self._link is None else (self._link.fileno(),),
                preexec_fn=die_with_parent,
                # Ctrl-C is ours: we end the guest, and a shell in it has the terminal.
                process_group=None if self._shell else 0,
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The emulator."""
        if self._process is None:
            raise GuestError("the guest is not started")
        return self._process

    def tell(self, what: str) -> None:
        """Leave a note in the shared folder; the guest waits for some."""
        if not self.has_note(what):
            (self.share / what).touch()

    def has_note(self, what: str) -> bool:
        """Whether there is a note of that name, ours or the guest's."""
        return (self.share / what).exists()

    def status(self) -> int:
        """Status of the command in a guest that has ended.

        Raises
        ------
        GuestError
            The guest left none: its kernel or the emulator failed. Their last words are in it.
        """
        try:
            return int((self.share / "status").read_text())
        except (OSError, ValueError):
            raise GuestError(
                f"the guest ended without a status (qemu: {self.process.poll()})\n"
                + "\n".join(self.last_words())
            ) from None

    def last_words(self, lines: int = 40) -> list[str]:
        """The ends of the kernel's and the emulator's messages."""
        found = []
        for name in ("kernel.log", "qemu.log"):
            path = self.folder / name
            text = path.read_text(errors="replace") if path.exists() else ""
            found += [f"{name}: {line.rstrip()}" for line in text.splitlines()[-lines:]]
        return found

    def kill(self) -> None:
        """End the emulator at once, if it runs, and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
