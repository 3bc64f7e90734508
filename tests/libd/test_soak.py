"""Clients of all kinds and faults of all kinds at once, for as long as one likes.

A server lives for a few rounds. In each, clients move random bytes and compare them
(`soak_client`): some that nothing is done to, and whose every operation has to succeed; some whose
connections are cut; some that are stopped, killed and replaced, holding memory. Strangers send
garbage meanwhile. At the end of a round everybody leaves, and the server must be as it was: no
region, lease or connection, no descriptor, segment or memory more. In the last round of its life it
is killed under everybody.

``SCAD_SOAK_SECONDS`` is how long the slow test goes on (600).
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from libd import ElementGrant, LibdAction, MemoryServerProcess
from tests.libd.relay import relay
from tests.libd.soak_client import LEASE, LOST

CLIENT = Path(__file__).with_name("soak_client.py")
ROUNDS = 3
"""Of a server, before the one in which it is killed."""
MIB = 1 << 20
SANITIZED = "SCAD_SANITIZE" in os.environ  # shadows and quarantines are no memory of ours
PATIENCE = 60.0


class Client:
    """A client process."""

    def __init__(self, durl: str, seed: int, largest: int = MIB, **orders: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(CLIENT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=CLIENT.parents[2],
            env=os.environ | {"PYTHONPATH": str(CLIENT.parents[2])},
        )
        assert self.process.stdin is not None
        what = {"durl": durl, "seed": seed, "largest": largest, "faults": "none"} | orders
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def begin(self) -> None:
        """Wait until it has connected."""
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            raise AssertionError(self.end())

    def end(self) -> tuple[int, dict[str, Any], str]:
        """Let it come to its end: its status, what it says of itself, and what went wrong."""
        out, err = self.process.communicate(timeout=PATIENCE)
        said = out.splitlines()[-1] if out else "{}"
        return self.process.returncode, json.loads(said) if said != "ready" else {}, err

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@dataclass
class World:
    """A server and what its clients need."""

    process: MemoryServerProcess
    work: ElementGrant
    counter: ElementGrant
    relayed: int
    cut: Callable[[], None]
    rng: random.Random
    counted: int = 0
    found: list[dict[str, int]] = field(default_factory=list)

    def durl(self, kind: str) -> str:
        return self.work.durl("m", f"rdma_{kind}")

    def steady(self) -> list[Client]:
        """Clients that nothing is done to."""

        def client(durl: str, kind: str, largest: int = MIB) -> Client:
            counter = self.counter.durl("counter", f"rdma_{kind}")
            return Client(durl, self.rng.getrandbits(32), largest, counter=counter)

        return [
            client(self.durl("shm"), "shm"),
            client(self.durl("tcp"), "tcp"),
            client(self.durl("tcp") + "stripes,3;", "tcp", 6 * MIB),
        ]

    def shaky(self) -> Client:
        """A client whose connections are cut."""
        port = self.process.tcp_url.rpartition(":")[2]
        durl = self.durl("tcp").replace(f":{port};", f":{self.relayed};")
        assert durl != self.durl("tcp")
        return Client(durl, self.rng.getrandbits(32), faults="cut")

    def victim(self) -> Client:
        return Client(self.durl(self.rng.choice(["shm", "tcp"])), self.rng.getrandbits(32))

    def stranger(self) -> None:
        """Somebody who sends garbage, or half a greeting, and goes."""
        host, _, port = self.process.tcp_url.removeprefix("tcp://").rpartition(":")
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=5) as sock:
            data = self.rng.randbytes(self.rng.randrange(200))
            sock.sendall(data if self.rng.random() < 0.5 else b"SCADMEM1" + data)
            if self.rng.random() < 0.5:
                sock.settimeout(0.01)
                sock.recv(100)

    def round(self, seconds: float, *, last: bool) -> None:
        """Everything at once for so long; then all leave, or (`last`) the server is killed."""
        steady, shaky = self.steady(), self.shaky()
        victims = [self.victim(), self.victim()]
        try:
            for client in [*steady, shaky]:
                client.begin()
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(self.rng.random() * min(0.4, seconds / 10))
                fault = self.rng.randrange(4)
                if fault == 0:
                    self.cut()
                elif fault == 1:
                    self.stranger()
                else:
                    i = self.rng.randrange(len(victims))
                    if self.rng.random() < 0.5:  # it holds up nobody
                        victims[i].process.send_signal(signal.SIGSTOP)
                        time.sleep(self.rng.random() * 0.2)
                    victims[i].kill()
                    victims[i] = self.victim()
                for client in [*steady, shaky]:
                    assert client.process.poll() is None, client.end()
            if last:
                os.kill(self.process.pid, signal.SIGKILL)
                self.are_lost([*steady, *victims])
                status, said, err = shaky.end()  # it goes on trying until it is told to end
                assert status == 0, err
                assert said["failed"] > 0
            else:
                for victim in victims:
                    victim.kill()
                self.leave(steady, shaky)
                self.settle()
        finally:
            for client in [*steady, shaky, *victims]:
                client.kill()

    def are_lost(self, clients: list[Client]) -> None:
        """All learn that the server is gone, whatever they are doing, and none saw wrong bytes."""
        for client in clients:
            client.process.wait(PATIENCE)
            status, said, err = client.end()
            assert status == LOST, (status, said, err)

    def leave(self, steady: list[Client], shaky: Client) -> None:
        status, said, err = shaky.end()
        assert status == 0, err
        print("shaky", said)
        for client in steady:
            status, said, err = client.end()
            assert status == 0, err
            assert said["failed"] == 0
            self.counted += said["counted"]
            print("steady", said)
            before, after = said["before"], said["after"]
            if before is not None:
                assert after["fds"] == before["fds"]
                assert after["segments"] == before["segments"]
                # What is in its regions, it holds too.
                assert SANITIZED or after["memory"] <= before["memory"] + 32 * MIB

    def settle(self) -> None:
        """What was left behind comes back, nothing else is gone, and nothing grows."""
        control = self.process.control
        until = time.monotonic() + PATIENCE + LEASE
        while True:
            stats, work = control.stats(), control.element_stats(self.work.tenant, self.work.id)
            if stats.connections == 1 and stats.leases == 0:
                break
            assert time.monotonic() < until, stats
            time.sleep(0.02)
        assert work.regions == 0
        assert work.reserved == 0
        with LibdAction("soak", [self.counter.durl("m", "rdma_tcp")]) as action:
            assert action.get_transport("m").fetch_add(0, 0) == self.counted
        while control.stats().connections > 1:
            time.sleep(0.01)
        maps = Path(f"/proc/{self.process.pid}/maps").read_text()
        self.found.append(
            {
                "memory": control.stats().overhead,
                "fds": psutil.Process(self.process.pid).num_fds(),
                "segments": maps.count("memfd:"),
            }
        )
        print(stats, self.found[-1])
        first, now = self.found[0], self.found[-1]
        assert now["fds"] == first["fds"]
        assert now["segments"] == first["segments"]
        assert SANITIZED or now["memory"] <= first["memory"] + MIB


def soak(seconds: float, seed: int) -> None:
    rng = random.Random(seed)
    print("seed", seed)
    here = psutil.Process()
    until = time.monotonic() + seconds
    length = min(10.0, seconds / (ROUNDS + 1))
    descriptors = None
    while descriptors is None or time.monotonic() < until:
        with ExitStack() as stack:
            process = stack.enter_context(MemoryServerProcess("128 MB"))
            tenant = process.control.create_tenant("soak", "32 MB")
            relayed, cut = stack.enter_context(relay(int(process.tcp_url.rpartition(":")[2])))
            world = World(
                process,
                process.control.create_element(tenant, "work", elastic=True),
                process.control.create_element(tenant, "counter", 64),
                relayed,
                cut,
                rng,
            )
            for i in range(ROUNDS + 1):
                world.round(length, last=i == ROUNDS)
        if descriptors is None:
            descriptors = here.num_fds()
        assert here.num_fds() == descriptors
        assert not here.children()


def test_clients_and_faults_for_a_while() -> None:
    soak(6.0, seed=2333)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_clients_and_faults_for_long() -> None:
    soak(
        float(os.environ.get("SCAD_SOAK_SECONDS", "600")),
        seed=random.SystemRandom().getrandbits(32),
    )
