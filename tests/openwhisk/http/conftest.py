"""A real control plane, `python -m openwhisk`, on a free port with its state in a temporary
folder.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest


@dataclass
class Server:
    """A running service."""

    url: str
    auth: str
    pid: int
    state: Path
    process: subprocess.Popen[str]

    def client(self, auth: str | None = None) -> httpx.Client:
        user, _, key = (auth or self.auth).partition(":")
        return httpx.Client(
            base_url=self.url + "/api/v1/namespaces/_", auth=(user, key), timeout=60
        )

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def start(state: Path, *extra: str) -> Server:
    command = [sys.executable, "-m", "openwhisk", "--port", "0", "--json", "--state", str(state)]
    environment = {k: v for k, v in os.environ.items() if k != "SCAD_AUTH"}
    process = subprocess.Popen(
        [*command, "--preimport", "", *extra], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    process.stdout.close()
    auth = said["auth"] or (state / "auth").read_text().strip()
    return Server(said["url"], auth, said["pid"], state, process)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = start(tmp_path_factory.mktemp("state"))
    yield started
    if started.process.poll() is None:
        assert started.stop() == 0


@pytest.fixture(scope="module")
def start_server() -> object:
    return start
