"""``memory_server [PORT]``: the process of a memory server.

Started by hand it serves one region, addresses 0 … size, to whoever reaches it (loopback) or shows
the token. `MemoryServerProcess` starts it for programs, with an administrator and without a default
region.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import select
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from libd import _core
from libd.errors import LibdError, SizeError
from libd.server import KEEP_WARM, MemoryServer
from libd.units import format_size, parse_size

if TYPE_CHECKING:
    from libd.metrics_server import MetricsServer

__all__ = ["main"]

DEFAULT_PORT = 2333
DEFAULT_SIZE = 1 << 30
DRAIN = 5.0
DESCRIPTORS = 1 << 14  # a connection takes 8 KiB, and strangers may take what there is
_LINE_LIMIT = 4096
_PARENT_GONE = "the parent is gone"

logger = logging.getLogger("libd.memory_server")


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except SizeError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"not a TCP port: {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"not a number of seconds: {text!r}")
    return seconds


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", _port(port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="memory_server",
        description="Serve memory to compute elements until SIGTERM or Ctrl-C.",
        epilog="SIGTERM or Ctrl-C finish what has begun, for --drain seconds at most; a second one "
        "ends at once. Tokens are better in the environment, as arguments can be read by others: "
        "$SCAD_MEMORY_TOKEN, $SCAD_ADMIN_TOKEN, $SCAD_METRICS_TOKEN. Every client takes a file "
        f"descriptor: the server raises its limit (ulimit -n) to {DESCRIPTORS} where it may, and "
        "no tenant gets more of them than it leaves to all others. With an administrator's "
        "token, `python -m libd.statistics URL` prints what a running server holds and did.",
    )
    parser.add_argument(
        "port",
        nargs="?",
        type=_port,
        default=DEFAULT_PORT,
        help="TCP port (default: %(default)s; 0: a free one)",
    )
    parser.add_argument(
        "--size",
        type=_size,
        help="bytes to serve, for example '4 GB' (default: 1 GB, or what fits)",
    )
    parser.add_argument(
        "--bind",
        default="127.0.0.1",
        metavar="HOST",
        help="address to listen on (default: %(default)s)",
    )
    parser.add_argument(
        "--token",
        help="clients must show it (better in $SCAD_MEMORY_TOKEN: arguments can be read by others)",
    )
    parser.add_argument(
        "--unix", metavar="@NAME", help="listen on this abstract Unix socket too (rdma_shm)"
    )
    parser.add_argument(
        "--rdma",
        nargs="?",
        const="any",
        metavar="DEVICE",
        help="serve one-sided RDMA through this device: NAME[:PORT[:GID INDEX]] (default: the "
        "first with an active port), or 'auto': if there is one (rdma_uverbs)",
    )
    parser.add_argument(
        "--json", action="store_true", help="say where it listens as one line of JSON on stdout"
    )
    parser.add_argument(
        "--drain",
        type=_seconds,
        default=DRAIN,
        metavar="SECONDS",
        help="for how long to finish what has begun when told to stop (default: %(default)g)",
    )
    parser.add_argument(
        "--keep-warm",
        type=_seconds,
        default=KEEP_WARM,
        metavar="SECONDS",
        help="for how long the pages of freed memory stay with their tenant before the machine has "
        "them back (default: %(default)g)",
    )
    parser.add_argument(
        "--admin-token", help="opens the administrator's connection (ServerControl)"
    )
    parser.add_argument(
        "--metrics",
        type=_host_port,
        metavar="[HOST:]PORT",
        help="serve GET /metrics for Prometheus there; loopback unless there is a token for it",
    )
    parser.add_argument("--metrics-token", help="scrapers must show it as bearer token")
    # For programs: exit when this pipe closes; its first line is the administrator's token.
    parser.add_argument("--lifeline", type=int, metavar="FD", help=argparse.SUPPRESS)
    parser.add_argument("--parent", type=int, metavar="PID", help=argparse.SUPPRESS)
    parser.add_argument(
        "--default-region",
        type=_size,
        help="bytes of the region that is served to whoever reaches it (default: all of --size; "
        "with an administrator, who grants elements, none)",
    )
    return parser


def _read_line(fd: int) -> str:
    line = b""
    while not line.endswith(b"\n") and len(line) < _LINE_LIMIT:
        piece = os.read(fd, 1)
        if not piece:
            break
        line += piece
    return line.decode().rstrip("\n")


def _raise_descriptors() -> None:
    """Every client takes a descriptor. Libraries leave the limit alone; this process is ours."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # not everywhere may it be what the hard one says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _wait(signals: int, lifeline: int | None) -> str:
    """Return why to stop, once there is a reason."""
    poll = select.poll()
    poll.register(signals, select.POLLIN)
    if lifeline is not None:
        poll.register(lifeline, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == signals:
                return signal.Signals(os.read(signals, 1)[0]).name
            if not os.read(fd, _LINE_LIMIT):
                return _PARENT_GONE


def _drain(server: MemoryServer, seconds: float, signals: int) -> None:
    """Let the server finish what has begun; another signal ends it at once."""
    server.drain(seconds)
    while not server.over(0.05):
        if select.select([signals], [], [], 0)[0]:
            return


def _serve_metrics(
    server: MemoryServer, options: argparse.Namespace, admin_token: str
) -> MetricsServer:
    from libd.control import ServerControl
    from libd.metrics_server import MetricsServer

    url = server.tcp_url or server.unix_url
    if url is None:
        raise LibdError("--metrics needs a server that listens somewhere")
    host, port = options.metrics
    token = options.metrics_token or os.environ.get("SCAD_METRICS_TOKEN")
    try:
        control = ServerControl(url, admin_token)
        return MetricsServer(control, bind=host, port=port, token=token)
    except BaseException:
        server.stop()
        raise


def main(argv: Sequence[str] | None = None) -> int:
    """Run the memory server; return the exit status."""
    options = _parser().parse_args(argv)
    _raise_descriptors()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="memory_server: %(message)s")
    # Handled through a pipe, so that a signal at any moment from here on leads to a clean end.
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    if options.parent is not None and not _core.die_with_parent(options.parent):
        return 0
    admin_token: str | None
    if options.lifeline is not None:
        admin_token = _read_line(options.lifeline)
    else:
        admin_token = options.admin_token or os.environ.get("SCAD_ADMIN_TOKEN")
    size = options.size
    if size is None:
        size = min(DEFAULT_SIZE, _core.available_memory() // 2 // 4096 * 4096)
    region = options.default_region
    if region is None and admin_token is None:
        region = size
    if options.metrics and not admin_token:
        admin_token = os.urandom(32).hex()  # for the metrics alone
    metrics = None
    try:
        server = MemoryServer(
            size,
            bind=options.bind or None,
            port=options.port,
            unix=options.unix,
            token=options.token or os.environ.get("SCAD_MEMORY_TOKEN"),
            admin_token=admin_token,
            default_region=region,
            rdma=options.rdma,
            keep_warm=options.keep_warm,
        )
        if options.metrics:
            metrics = _serve_metrics(server, options, admin_token or "")
    except (LibdError, ValueError) as error:
        logger.error("%s", error)
        return 1
    urls = [url for url in (server.tcp_url, server.unix_url) if url]
    if options.json:
        about = {
            "pid": os.getpid(),
            "tcp_url": server.tcp_url,
            "unix_url": server.unix_url,
            "rdma_device": server.rdma_device,
            "size": size,
        }
        sys.stdout.write(json.dumps(about) + "\n")
        sys.stdout.flush()
    if options.lifeline is None:
        logger.info("serving %s (%d bytes) at %s", format_size(size), size, " and ".join(urls))
        if metrics is not None:
            logger.info("metrics at http://%s:%d/metrics", options.metrics[0], metrics.port)
        if server.rdma_device:
            logger.info("RDMA device %s", server.rdma_device)
    reason = _wait(wake_read, options.lifeline)
    if reason != _PARENT_GONE and options.drain > 0:
        _drain(server, options.drain, wake_read)
    if metrics is not None:
        metrics.close()
    server.stop()
    if options.lifeline is None:
        logger.info("stopped (%s)", reason)
    return 0


if __name__ == "__main__":
    sys.exit(main())
