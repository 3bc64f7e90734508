"""Stopping in good order: what has begun comes to its end, nothing else begins."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

from libd import LibdAction, MemoryServer, TransportClosedError

Stand = Any  # conftest.py's


def test_a_transfer_that_has_begun_is_finished(stand: Stand) -> None:
    size = 64 << 20
    grant = stand.control.create_element(stand.tenant(size), "m", size)
    trans = stand.open(grant, "tcp")
    idle = stand.open(grant, "tcp")
    data = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)
    trans.write_from(0, data)
    out = np.empty_like(data)
    done = trans.submit(reads=[(0, out)])
    time.sleep(0.2)  # the server fills the sockets, and waits for us
    assert not done.done
    stand.server.drain(30)
    with pytest.raises(TransportClosedError):
        idle.read_into(0, bytearray(1))
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", stand.server.port), timeout=5)
    assert not stand.server.over(0)
    assert done.wait(timeout=60) == size
    np.testing.assert_array_equal(out, data)
    with pytest.raises(TransportClosedError):
        trans.read_into(0, bytearray(1))
    assert stand.server.over(30)


def test_an_idle_server_is_over_at_once(stand: Stand) -> None:
    trans = stand.open(stand.control.create_element(stand.tenant(), "m", 4096), "tcp")
    stand.server.drain(60)
    with pytest.raises(TransportClosedError):
        trans.flush()
    trans.close()
    stand.control.close()
    assert stand.server.over(30)
    stand.server.drain(1)  # and nothing happens


def test_who_does_not_come_to_an_end_is_cut_off() -> None:
    with MemoryServer(64 << 20) as server:
        with LibdAction("0", [f"m;rdma_tcp;url,{server.tcp_url};"]) as action:
            done = action.get_transport("m").submit(reads=[(0, np.empty(64 << 20, np.uint8))])
            server.drain(0.1)
            assert server.over(30)
            with pytest.raises(TransportClosedError):
                done.wait(timeout=30)


def test_a_second_request_to_stop_is_obeyed_at_once() -> None:
    with MemoryServer(64 << 20) as server:
        with LibdAction("0", [f"m;rdma_tcp;url,{server.tcp_url};"]) as action:
            action.get_transport("m").submit(reads=[(0, np.empty(64 << 20, np.uint8))])
            server.drain(1000)
            assert not server.over(0.05)
            server.drain(1000)
            assert server.over(30)


@pytest.mark.parametrize("second", [False, True])
def test_sigterm_drains_the_process(second: bool) -> None:
    command = [sys.executable, "-m", "libd.memory_server", "0", "--size", "64MB", "--json"]
    process = subprocess.Popen(
        [*command, "--drain", "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        url = process.stdout.readline().split('"tcp_url": "')[1].split('"')[0]
        with LibdAction("0", [f"m;rdma_tcp;url,{url};"]) as action:
            trans = action.get_transport("m")
            trans.write_from(0, b"\1" * (64 << 20))
            out = np.zeros(64 << 20, np.uint8)
            done = trans.submit(reads=[(0, out)])
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            assert process.poll() is None
            if second:
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0
                with pytest.raises(TransportClosedError):
                    done.wait(timeout=30)
            else:
                assert done.wait(timeout=60) == 64 << 20
                assert (out == 1).all()
                trans.close()
                assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
