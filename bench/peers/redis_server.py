"""Redis over TCP: Debian's server and redis-py with hiredis, one key for each address and size."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any

import redis

from bench.work import Client, Job, Work, source


class Server:
    """``redis-server`` on a free port of loopback, nothing on disk."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [
            "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "",
            "--appendonly", "no", "--daemonize", "no", "--dir", "/",
        ]  # fmt: skip
        if shutil.which("setpriv"):
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        self.address = {"port": port}
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            except ConnectionRefusedError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.close()
                    raise
                time.sleep(0.01)

    def close(self) -> None:
        """End the server."""
        self.process.kill()
        self.process.wait()


class PeerClient(Client):
    """A connection of redis-py."""

    def __init__(self, address: dict[str, Any]) -> None:
        super().__init__(address)
        self.redis = redis.Redis(host="127.0.0.1", port=address["port"])

    def prepare(self, job: Job) -> Work:
        """GETs or SETs in turn, or pipelines (no transaction) of `depth` of them."""
        addresses = job.addresses()
        keys = [f"{address}:{job.size}" for address in addresses]
        store = self.redis
        if job.kind == "read":
            for address, key in zip(addresses, keys, strict=True):
                store.set(key, source(address, job.size).tobytes())
        slots = job.slots()
        values = [slots[i % job.depth].data for i in range(job.count)]
        chunks = [range(i, min(i + job.depth, job.count)) for i in range(0, job.count, job.depth)]

        def one() -> None:
            if job.kind == "read":
                for key in keys:
                    store.get(key)
            else:
                for key, value in zip(keys, values, strict=True):
                    store.set(key, value)

        pipeline = store.pipeline(transaction=False)

        def pipelined() -> None:
            for chunk in chunks:
                if job.kind == "read":
                    for i in chunk:
                        pipeline.get(keys[i])
                else:
                    for i in chunk:
                        pipeline.set(keys[i], values[i])
                pipeline.execute()

        def moved() -> list[tuple[Any, Any]]:
            found = []
            for address, slot in job.last():
                should = source(address, job.size) if job.kind == "read" else slots[slot]
                found.append((should, store.get(f"{address}:{job.size}")))
            return found

        call: Callable[[], object] = pipelined if job.way == "vector" else one
        if job.count == 1 and job.kind == "read":
            key = keys[0]

            def call() -> object:
                return store.get(key)

        return Work(call, moved)

    def close(self) -> None:
        """Close the connection."""
        self.redis.close()
