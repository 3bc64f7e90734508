"""``ucx_perftest`` over TCP: UCX from C, on its own clock. It does not look at the bytes.

One at a time, small, UCX's best is a ping-pong of tagged messages (``tag_lat`` gives half of one);
its one-sided get over TCP is emulated and takes a millisecond. Large or many at a time it is a
stream of tagged messages (``tag_bw``) with that many outstanding, for which nobody asks. Both
flatter UCX beside a read, which is a request and an answer; so does polling without ever sleeping.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time

from bench.harness import Timer
from bench.work import KIB, Job

__all__ = ["UcxPerftest", "perftest_timer"]

STREAM_FROM = 64 * KIB


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class UcxPerftest(Timer):
    """One test of ``ucx_perftest``; a call is one operation."""

    def __init__(self, job: Job, test: str) -> None:
        self.job = job
        self.test = test

    def seconds(self, repeat: int) -> float:
        """Run the pair of processes; their start is not counted."""
        # It divides by the time between its own reports: below ten iterations there is none.
        iterations = max(repeat * self.job.count, 10)
        port = str(free_port())
        environment = {**os.environ, "UCX_TLS": "tcp,self", "UCX_LOG_LEVEL": "error"}
        prefix = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        with subprocess.Popen(
            [*prefix, "ucx_perftest", "-p", port],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        ) as server:
            try:
                output = self._client(port, iterations, environment, server)
            finally:
                server.kill()
        match = re.search(r"^\s*\d+,([\d.]+),([\d.]+),([\d.]+),", output, re.MULTILINE)
        if match is None:
            raise RuntimeError(f"ucx_perftest {self.test}: {output[-500:]}")
        each = float(match[3]) * 1e-6 * (2 if self.test.endswith("_lat") else 1)
        return each * repeat * self.job.count

    def _client(
        self,
        port: str,
        iterations: int,
        environment: dict[str, str],
        server: subprocess.Popen[bytes],
    ) -> str:
        command = [
            "ucx_perftest", "-p", port, "127.0.0.1", "-t", self.test, "-s", str(self.job.size),
            "-n", str(iterations), "-w", str(min(iterations, 100)), "-f", "-v",
        ]  # fmt: skip
        if self.test.endswith("_bw"):
            command += ["-O", str(self.job.depth)]
        deadline = time.monotonic() + 10
        while True:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, timeout=120, check=False
            )
            if done.returncode == 0:
                return done.stdout
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"ucx_perftest {self.test}: {(done.stdout + done.stderr)[-500:]}"
                )
            time.sleep(0.02)


def perftest_timer(job: Job) -> UcxPerftest:
    """The test that shows UCX at its best for a job."""
    stream = job.depth > 1 or job.size >= STREAM_FROM
    return UcxPerftest(job, "tag_bw" if stream else "tag_lat")
