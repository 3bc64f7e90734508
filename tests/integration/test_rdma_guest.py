"""The guest with RDMA: one run of tests/rdma in it, two guests, and all the ways to fail."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.rdma.guest import kernel, packages
from tests.rdma.guest.initramfs import Archive
from tests.rdma.guest.suite import has_device

LONGEST = 500.0  # seconds; an emulated machine on a busy one
BOOTED = pytest.mark.timeout(600)
GUEST = ("-m", "tests.rdma.guest")


@pytest.fixture(scope="session")
def kernel_cache() -> dict[str, str]:
    """The cache with the kernel, made ready; without the packages for that there is a skip."""
    if has_device():
        pytest.skip("this machine has an RDMA device: tests/rdma runs on it, without a guest")
    lacking = packages.missing()
    try:
        if not lacking:
            kernel.ensure()
            return {"XDG_CACHE_HOME": str(kernel.cache_folder().parents[1])}
        why = packages.say_missing(lacking)
    except kernel.NoKernelError as error:
        why = str(error)
    if os.environ.get("SCAD_CI") == "1":
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture
def guest(world: Any, kernel_cache: dict[str, str]) -> Callable[..., Any]:
    """Run a guest to its end."""

    def run(*arguments: str) -> Any:
        process = world.start(*GUEST, *arguments, **kernel_cache)
        return world.finish(process, LONGEST)

    return run


def emulators(world: Any) -> list[int]:
    found = []
    for pid in world.pids():
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended after it was listed
            words = psutil.Process(pid).cmdline()
            found += [pid] if words and "qemu-system" in words[0] else []
    return found


class TestSuite:
    """What tests/rdma says, with its output if it fails."""

    def check(self, world: Any, cache: dict[str, str], marked: str) -> None:
        arguments = ["tests/rdma", "-m", marked, "-rs", "--durations=10"]
        process = world.start("-m", "tests.rdma.guest.suite", *arguments, **cache)
        finished = world.finish(process, LONGEST)
        passed = re.search(r"\d+ passed", finished.out)
        if finished.status != 0 or not passed or "no RDMA device" in finished.out:
            pytest.fail(f"status {finished.status}\n{finished.out}\n{finished.err}", pytrace=False)

    @BOOTED
    def test_quick_part(self, world: Any, kernel_cache: dict[str, str]) -> None:
        self.check(world, kernel_cache, "not slow")

    @BOOTED
    @pytest.mark.slow
    def test_slow_part(self, world: Any, kernel_cache: dict[str, str]) -> None:
        self.check(world, kernel_cache, "slow")


class TestOneGuest:
    @BOOTED
    def test_status_output_and_environment(self, world: Any, guest: Callable[..., Any]) -> None:
        """What the command says comes out as it is; what it leaves is kept; its status is ours."""
        says = (
            "echo on stdout; echo on stderr >&2; pwd; python -c 'import sys; print(sys.prefix)'; "
            "ls /sys/class/infiniband; echo kept >$SCAD_GUEST_OUTPUT/file; "
            "echo $SCAD_RDMA $PYTHONDONTWRITEBYTECODE; ulimit -l; rm /etc/hostname; exit 7"
        )
        kept = world.folder / "kept"
        finished = guest("--output", str(kept), "--", "sh", "-c", says)
        root = str(Path(__file__).parents[2])
        python = subprocess.run(
            ["python", "-c", "import sys; print(sys.prefix)"],
            env={"PATH": str(Path(sys.executable).parent)},
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        assert finished.out.splitlines() == [
            "on stdout", "on stderr", root, python, "rxe0", "rxe1", "1 1", "unlimited",
        ]  # fmt: skip
        assert finished.status == 7
        assert (kept / "file").read_text() == "kept\n"
        assert Path("/etc/hostname").exists()  # what the guest removed, it removed for itself

    def test_after_the_time_limit_it_is_killed(self, guest: Callable[..., Any]) -> None:
        finished = guest("--timeout", "3", "--", "true")
        assert finished.status == 124
        assert "killed after 3 s" in finished.err

    @BOOTED
    @pytest.mark.slow
    def test_a_command_that_hangs_is_killed_with_what_it_said(
        self, guest: Callable[..., Any]
    ) -> None:
        finished = guest("--timeout", "90", "--", "sh", "-c", "echo begins; sleep 10000")
        assert finished.status == 124
        assert finished.out == "begins\n"

    @BOOTED
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("trigger", "says"), [("c", "Kernel panic - not syncing"), ("o", "without a status")]
    )
    def test_the_end_of_the_kernel_is_a_failure(
        self, guest: Callable[..., Any], trigger: str, says: str
    ) -> None:
        command = f"echo {trigger} >/proc/sysrq-trigger; sleep 10000"
        finished = guest("--", "sh", "-c", command)
        assert finished.status == 125
        assert "ended without a status" in finished.err
        assert says in finished.err

    @BOOTED
    @pytest.mark.slow
    def test_what_a_command_leaves_running_does_not_keep_the_guest(
        self, guest: Callable[..., Any]
    ) -> None:
        finished = guest("--", "sh", "-c", "sleep 10000 & echo done")
        assert (finished.status, finished.out) == (0, "done\n")

    @BOOTED
    @pytest.mark.slow
    def test_much_output_arrives_whole(self, guest: Callable[..., Any]) -> None:
        finished = guest("--", "seq", "100000")
        assert finished.out.split() == [str(number) for number in range(1, 100001)]

    @pytest.mark.parametrize(
        ("number", "status", "says"),
        [
            (signal.SIGINT, 130, "rdma guest: interrupted\n"),
            (signal.SIGTERM, 128 + signal.SIGTERM, ""),
            (signal.SIGHUP, 128 + signal.SIGHUP, ""),
        ],
    )
    def test_signals_end_it(
        self,
        world: Any,
        kernel_cache: dict[str, str],
        until: Any,
        number: int,
        status: int,
        says: str,
    ) -> None:
        if signal.getsignal(number) is signal.SIG_IGN:  # under nohup, and so for what it starts
            signal.signal(number, signal.SIG_DFL)
        process = world.start(*GUEST, "--", "sleep", "10000", **kernel_cache)
        assert until(lambda: bool(emulators(world)))
        process.send_signal(number)
        finished = world.finish(process)
        assert (finished.status, finished.err) == (status, says)
        assert emulators(world) == []

    def test_sigkill_ends_it_and_the_next_one_tidies_up(
        self, world: Any, kernel_cache: dict[str, str], guest: Any, until: Any
    ) -> None:
        process = world.start(*GUEST, "--", "sleep", "10000", **kernel_cache)
        assert until(lambda: bool(emulators(world)))
        process.kill()
        world.finish(process)
        assert until(lambda: emulators(world) == [])
        assert guest("--timeout", "0.5", "--", "true").status == 124  # the world checks the rest

    def test_two_at_once_leave_one_anothers_folders_alone(
        self, world: Any, kernel_cache: dict[str, str], guest: Any, until: Any
    ) -> None:
        process = world.start(*GUEST, "--", "sleep", "10000", **kernel_cache)
        assert until(lambda: bool(emulators(world)))
        before = sorted((world.folder / "tmp").iterdir())
        assert guest("--timeout", "0.5", "--", "true").status == 124
        assert sorted((world.folder / "tmp").iterdir()) == before != []
        process.terminate()
        world.finish(process)

    @pytest.mark.parametrize(
        "arguments",
        [(), ("--",), ("--pair", "--", "true"), ("--cpus", "0", "--", "true"), ("--nothing",)],
    )
    def test_nonsense_is_refused(self, world: Any, arguments: tuple[str, ...]) -> None:
        finished = world.run(*GUEST, *arguments)
        assert finished.status == 2
        assert "usage: python -m tests.rdma.guest" in finished.err


@BOOTED
@pytest.mark.slow
class TestTwoGuests:
    def test_perftest_between_two_kernels(self, guest: Callable[..., Any]) -> None:
        command = ["ib_read_bw", "-d", "rxe0", "-x", "1", "-s", "65536", "-n", "30"]
        finished = guest("--pair", "--", *command, "--", *command, "10.20.0.1")
        assert finished.status == 0, finished
        for side in ("server", "client"):
            assert re.search(rf"{side}\|  *65536 +30 ", finished.out), finished.out

    def test_libd_between_two_kernels(self, guest: Callable[..., Any]) -> None:
        """The conformance suite (without what takes long) from one guest to the other."""
        client = ["python", "-m", "pytest", "tests/rdma/test_conformance.py", "-q", "-k"]
        parts = "write_then_read or vectors or ranges_outside or freed or extend or refs or batch"
        finished = guest(
            "--pair",
            "--", "python", "-m", "tests.rdma.serve",
            "--", "env", "SCAD_TEST_SERVER=tcp://10.20.0.1:2333", *client, parts,
        )  # fmt: skip
        assert finished.status == 0, finished
        passed = re.search(r"client\| (\d+) passed", finished.out)
        assert passed, finished.out
        assert int(passed[1]) > 30

    def test_the_server_is_ended_after_the_client(self, guest: Callable[..., Any]) -> None:
        client = (
            'echo "asks $SCAD_GUEST_SERVER from $SCAD_GUEST_ADDRESS"; ping -c 1 10.20.0.1 || true'
        )
        finished = guest(
            "--pair",
            "--", "sh", "-c", "echo serves; : >$SCAD_GUEST_READY; sleep 10000",
            "--", "sh", "-c", client,
        )  # fmt: skip
        assert finished.status == 0, finished
        assert "server| serves\n" in finished.out
        assert "client| asks 10.20.0.1 from 10.20.0.2\n" in finished.out

    @pytest.mark.parametrize(
        ("server", "client", "status"),
        [
            (": >$SCAD_GUEST_READY; sleep 10000", "exit 3", 3),
            ("exit 4", "true", 4),
            (": >$SCAD_GUEST_READY; sleep 10; exit 5", "sleep 10000", 5),
            ("trap 'exit 6' TERM; : >$SCAD_GUEST_READY; while :; do sleep 1; done", "true", 6),
            (": >$SCAD_GUEST_READY; echo c >/proc/sysrq-trigger", "sleep 10000", 125),
        ],
    )
    def test_either_failure_is_the_runs(
        self, guest: Callable[..., Any], server: str, client: str, status: int
    ) -> None:
        finished = guest("--pair", "--", "sh", "-c", server, "--", "sh", "-c", client)
        assert finished.status == status, finished


class TestPackages:
    @pytest.mark.skipif(has_device(), reason="the suite needs no guest here")
    @pytest.mark.parametrize("command", [(*GUEST, "--", "true"), ("-m", "tests.rdma.guest.suite")])
    def test_missing_ones_are_named_with_the_command(
        self, world: Any, command: tuple[str, ...]
    ) -> None:
        finished = world.run(*command, PATH=str(world.folder))
        assert finished.status == 77
        assert "apt-get install --no-install-recommends" in finished.err
        assert "qemu-system-x86 " in finished.err

    def test_a_dynamic_busybox_does_not_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program = tmp_path / "busybox"
        monkeypatch.setenv("PATH", str(tmp_path))
        for content, answer in ((b"\x7fELF", False), (b"\x7fELF /lib64/ld-linux-x86-64", True)):
            program.write_bytes(content)
            program.chmod(0o755)
            assert ("busybox-static" in packages.missing()) is answer

    def test_every_package_has_a_proof_and_a_reason(self) -> None:
        listing = packages.LIST.read_text()
        assert len(packages.needed()) == 12
        for line in listing.splitlines()[1:]:
            assert len(line.split(maxsplit=2)) == 3, line


class TestContinuousIntegration:
    """`.ci/run`, with stand-ins for Debian's programs and make."""

    @pytest.fixture
    def run(self, tmp_path: Path) -> Callable[..., list[str]]:
        """Run it where some packages and perhaps apt's lists are missing; return what it called."""

        def run(absent: list[str], lists: bool) -> list[str]:
            log = tmp_path / "log"
            log.unlink(missing_ok=True)
            scripts = {
                "dpkg-query": f"case ' {' '.join(absent)} ' in *\" $3 \"*) exit 1 ;; esac; "
                "printf installed",
                "apt-cache": f"{'echo Package: $2' if lists else 'exit 100'}",
                "apt-get": f'echo "apt-get $*" >>{log}',
                "make": f'echo "make $* with SCAD_CI=$SCAD_CI" >>{log}',
                "sudo": '"$@"',
            }
            for name, text in scripts.items():
                (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
                (tmp_path / name).chmod(0o755)
            program = Path(__file__).parents[2] / ".ci" / "run"
            environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
            subprocess.run([program], env=environment, check=True)
            return log.read_text().splitlines()

        return run

    TEST = "make test with SCAD_CI=1"
    UPDATE = "apt-get update --quiet --quiet"

    def test_only_what_is_missing_is_installed(self, run: Callable[..., list[str]]) -> None:
        update, install, test = run(["perftest", "kmod"], True)
        assert update == self.UPDATE
        assert install.split()[:2] == ["apt-get", "install"]
        assert "--no-install-recommends" in install.split()
        assert [word for word in install.split()[2:] if not word.startswith("-")] == [
            "kmod",
            "perftest",
        ]
        assert test == self.TEST

    def test_nothing_is_missing(self, run: Callable[..., list[str]]) -> None:
        assert run([], True) == [self.TEST]

    def test_the_kernel_needs_apts_lists(self, run: Callable[..., list[str]]) -> None:
        assert run([], False) == [self.UPDATE, self.TEST]


class TestKernel:
    """Making the cache, with stand-ins for Debian's programs."""

    VERSION = "6.1.0-1-amd64"

    @pytest.fixture
    def programs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder of programs that act as apt and depmod; ``log`` in it has their calls."""
        folder = tmp_path / "bin"
        folder.mkdir()
        modules = f"lib/modules/{self.VERSION}"
        made = " ".join(f"{name}.ko" for name in kernel.MODULES)
        scripts = {
            "apt-cache": f"""
                case $1 in
                depends) echo "  Depends: linux-image-{self.VERSION}" ;;
                show) echo "Version: 6.1.1-1" ;;
                esac""",
            "apt-get": f"""
                echo download >>{folder}/log
                sleep 0.5
                [ -e {folder}/offline ] && {{ echo "no network" >&2; exit 100; }}
                : >$2.deb""",
            "dpkg-deb": f"""
                mkdir -p $3/boot $3/{modules}
                echo image >$3/boot/vmlinuz-{self.VERSION}
                for name in {made} base.ko; do echo $name >$3/{modules}/$name; done
                cd $3/{modules} && touch modules.order modules.builtin modules.builtin.modinfo""",
            "depmod": f"""
                cd $2/{modules} && for name in *.ko; do
                case $name in base.ko) echo $name: ;; *) echo $name: base.ko ;; esac
                done >modules.dep""",
        }
        for name, text in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return folder

    def test_it_is_downloaded_once(self, programs: Path, tmp_path: Path) -> None:
        made = kernel.ensure(tmp_path / "cache")
        assert made == kernel.ensure(tmp_path / "cache")
        assert made.image.read_text() == "image\n"
        kept = {path.name for path in (made.folder / "lib/modules" / self.VERSION).glob("*.ko")}
        assert kept == {f"{name}.ko" for name in (*kernel.MODULES, "base")}
        assert (programs / "log").read_text() == "download\n"

    def test_two_builders_at_once_make_one(self, programs: Path, tmp_path: Path) -> None:
        code = "from tests.rdma.guest import kernel; print(kernel.ensure().folder)"
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        builders = [
            subprocess.Popen(
                [sys.executable, "-c", code],
                env=environment, stdout=subprocess.PIPE, text=True,
            )
            for _ in range(3)
        ]  # fmt: skip
        said = {builder.communicate()[0] for builder in builders}
        assert {builder.returncode for builder in builders} == {0}
        assert len(said) == 1
        assert (programs / "log").read_text() == "download\n"

    def test_a_failed_download_leaves_nothing(self, programs: Path, tmp_path: Path) -> None:
        (programs / "offline").touch()
        with pytest.raises(kernel.GuestError, match=r"apt-get download .* no network"):
            kernel.ensure(tmp_path / "cache")
        assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]

    def test_half_of_a_killed_builder_is_removed(self, programs: Path, tmp_path: Path) -> None:
        half = tmp_path / "cache" / ".tmp-abc"
        half.mkdir(parents=True)
        (half / "file").touch()
        made = kernel.ensure(tmp_path / "cache")
        assert {path.name for path in (tmp_path / "cache").iterdir()} == {".lock", made.folder.name}

    def test_a_module_that_the_kernel_lacks(
        self, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kernel, "MODULES", (*kernel.MODULES, "siw"))
        with pytest.raises(kernel.GuestError, match="no module siw"):
            kernel.ensure(tmp_path / "cache")

    def test_without_apts_lists_the_cache_serves(self, programs: Path, tmp_path: Path) -> None:
        made = kernel.ensure(tmp_path / "cache")
        (programs / "apt-cache").write_text("#!/bin/sh\nexit 100\n")
        assert kernel.ensure(tmp_path / "cache") == made
        with pytest.raises(kernel.NoKernelError, match="apt-get update"):
            kernel.ensure(tmp_path / "empty")


def test_the_archive_is_what_cpio_reads(tmp_path: Path) -> None:
    busybox = packages.find_program("busybox")
    if busybox is None:
        pytest.skip("busybox-static is not installed")
    archive = Archive()
    archive.file("a/b/odd", b"12345", 0o640)
    archive.file("top", b"")
    archive.link("a/link", "b/odd")
    archive.folder("a/b/c")
    archive.folder("a/b")
    subprocess.run([busybox, "cpio", "-idm"], cwd=tmp_path, input=archive.finish(), check=True)
    found = {
        str(path.relative_to(tmp_path)): stat.filemode(path.lstat().st_mode)
        for path in tmp_path.rglob("*")
    }
    assert found == {
        "a": "drwxr-xr-x",
        "a/b": "drwxr-xr-x",
        "a/b/c": "drwxr-xr-x",
        "a/b/odd": "-rw-r-----",
        "a/link": "lrwxrwxrwx",
        "top": "-rwxr-xr-x",
    }
    assert (tmp_path / "a/link").read_bytes() == b"12345"
