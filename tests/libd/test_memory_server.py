"""The process: ``python -m libd.memory_server``."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from libd import LibdAction, LibdError, MemoryServerProcess, TransportClosedError
from tests.libd.by_hand import by_hand

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "libd.memory_server"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_it_cleanly(number: signal.Signals) -> None:
    with by_hand("0", "--size", "1 MB") as (process, url):
        with LibdAction("0", [f"m;rdma_tcp;url,{url};"]) as action:
            trans = action.get_transport("m")
            trans.write_from(0, b"x")
            process.send_signal(number)
            assert process.wait(20) == 0
            assert process.stderr is not None
            assert number.name in process.stderr.read()
            with pytest.raises(TransportClosedError):
                trans.flush()


def test_the_example_of_the_prototype() -> None:
    example = [sys.executable, str(ROOT / "examples" / "runtime_example_local.py")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with by_hand("0", "--size", "1 MB") as (_, url):
        for arguments in ([], ["--tcp", url.rpartition(":")[2]]):
            done = subprocess.run(
                [*example, *arguments], capture_output=True, text=True, env=environment, timeout=60
            )
            assert (done.returncode, done.stdout) == (
                0,
                "API test int = 12345, fetch = 12345 True\n",
            ), done.stderr
    done = subprocess.run(
        [*example, "--tcp", "1"], capture_output=True, text=True, env=environment, timeout=60
    )
    assert done.returncode == 1
    assert "no memory server can be reached" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--size", "12 XB"], 2, "XB"),
        (["--size", "64 TB"], 1, "can promise"),
        (["70000"], 2, "not a TCP port"),
        (["--bind", "0.0.0.0"], 1, "token"),
        (["--bind", "host.invalid", "--token", "t"], 1, "memory server"),
    ],
)
def test_bad_arguments(arguments: list[str], status: int, message: str) -> None:
    port = [] if arguments[0].isdecimal() else ["0"]
    done = subprocess.run(
        [*COMMAND, *port, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == status
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*COMMAND, port, "--size", "1MB"], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 1
    assert "in use" in done.stderr


def test_the_token_may_come_from_the_environment() -> None:
    process = subprocess.Popen(
        [*COMMAND, "0", "--size", "64KB"], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"SCAD_MEMORY_TOKEN": "hush"},
    )  # fmt: skip
    assert process.stderr is not None
    try:
        url = process.stderr.readline().split(" at ")[1].split()[0]
        with LibdAction(
            "0", [f"m;rdma_tcp;url,{url};", f"n;rdma_tcp;url,{url};token,hush;"]
        ) as action:
            with pytest.raises(LibdError, match="token"):
                action.get_transport("m")
            assert action.get_transport("n").size == 1 << 16
    finally:
        process.terminate()
        process.wait(20)
        process.stderr.close()


def test_process_helper() -> None:
    with MemoryServerProcess("32 MB") as process:
        assert process.alive()
        assert process.control.stats().size == 32 << 20
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert process._admin_token.encode() not in arguments
        assert (
            process._admin_token.encode() not in Path(f"/proc/{process.pid}/environ").read_bytes()
        )
        tenant = process.control.create_tenant("t", "16 MB")
        grant = process.control.create_element(tenant, "m", 4096)
        with LibdAction("0", [grant.durl("s", "rdma_shm"), grant.durl("t", "rdma_tcp")]) as action:
            action.get_transport("s").write_from(0, b"hello")
            out = bytearray(5)
            action.get_transport("t").read_into(0, out)
            assert out == b"hello"
        with (
            LibdAction("0", [f"m;rdma_tcp;url,{process.tcp_url};"]) as action,
            pytest.raises(LibdError),
        ):
            action.get_transport("m")  # no default region
        pid = process.pid
    assert not process.alive()
    assert process.returncode == 0
    assert not psutil.pid_exists(pid)
    process.stop()


def test_helper_passes_the_servers_message_on() -> None:
    with pytest.raises(LibdError, match="can promise"):
        MemoryServerProcess("1000 TB")


ORPHAN = """
import sys, time
from libd import MemoryServerProcess
process = MemoryServerProcess("16 MB")
print(process.pid, process.unix_url, flush=True)
time.sleep(600)
"""


def test_it_dies_with_whoever_started_it() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout as stdout:
        pid, url = stdout.readline().split()
        server = psutil.Process(int(pid))
        parent.kill()
        parent.wait()
        psutil.wait_procs([server], timeout=20)
        with contextlib.suppress(psutil.NoSuchProcess):
            assert server.status() == psutil.STATUS_ZOMBIE
    assert url.removeprefix("unix://") not in Path("/proc/net/unix").read_text()


def test_start_up_imports_nothing_heavy() -> None:
    heavy = "{'numpy', 'pyarrow', 'asyncio', 'typing_extensions'}"
    code = f"import sys, libd.memory_server; print(sorted(set(sys.modules) & {heavy}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
