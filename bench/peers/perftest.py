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
from collections.abc import Mapping, Sequence

from bench import placement
from bench.harness import Timer
from bench.work import KIB, Job

__all__ = ["PairError", "UcxPerftest", "perftest_timer", "run_pair"]

STREAM_FROM = 64 * KIB


class PairError(Exception):
    """A pair of programs did not do what it should; the message is what they said."""


def run_pair(
    server: Sequence[str], client: Sequence[str], environment: Mapping[str, str] | None = None
) -> str:
    """Run a server and then a client, each with ``-p PORT`` added; return the client's output.

    The port is a free one, or was until a moment ago: if somebody took it (or it still waits for
    the end of an old connection), another is tried.

    Raises
    ------
    PairError
        if the client fails on five ports.
    """
    said = ""
    for _ in range(5):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        where = placement.get()
        prefix = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        with subprocess.Popen(
            [*prefix, *placement.prefix(where.server), *server, "-p", port],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        ) as process:
            try:
                deadline = time.monotonic() + 10
                while process.poll() is None and time.monotonic() < deadline:
                    done = subprocess.run(
                        [*placement.prefix(where.client), *client, "-p", port],
                        capture_output=True, text=True, env=environment, timeout=300, check=False,
                    )  # fmt: skip
                    if done.returncode == 0:
                        return done.stdout
                    said = (done.stdout + done.stderr)[-500:]
                    time.sleep(0.02)
            finally:
                process.kill()
    raise PairError(f"{' '.join(client)}: {said}")


class UcxPerftest(Timer):
    """One test of ``ucx_perftest``; a call is one operation."""

    def __init__(self, job: Job, test: str) -> None:
        self.job = job
        self.test = test

    def seconds(self, repeat: int) -> float:
        """Run the pair of processes; their start is not counted."""
        # It divides by the time between its own reports: below ten iterations there is none.
        iterations = max(repeat * self.job.count, 10)
        client = [
            "ucx_perftest", "127.0.0.1", "-t", self.test, "-s", str(self.job.size),
            "-n", str(iterations), "-w", str(min(iterations, 100)), "-f", "-v",
        ]  # fmt: skip
        if self.test.endswith("_bw"):
            client += ["-O", str(self.job.depth)]
        environment = {**os.environ, "UCX_TLS": "tcp,self", "UCX_LOG_LEVEL": "error"}
        output = run_pair(["ucx_perftest"], client, environment)
        # Iterations, median, average since the last report (which may be infinite), overall.
        match = re.search(r"^\s*\d+,[^,]+,[^,]+,([\d.]+),", output, re.MULTILINE)
        if match is None:
            raise PairError(f"ucx_perftest {self.test}: {output[-500:]}")
        each = float(match[1]) * 1e-6 * (2 if self.test.endswith("_lat") else 1)
        return each * repeat * self.job.count


def perftest_timer(job: Job) -> UcxPerftest:
    """The test that shows UCX at its best for a job."""
    stream = job.depth > 1 or job.size >= STREAM_FROM
    return UcxPerftest(job, "tag_bw" if stream else "tag_lat")
