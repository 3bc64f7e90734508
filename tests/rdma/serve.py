"""``python -m tests.rdma.serve``: the tests' memory server, for clients on another machine."""

from __future__ import annotations

import signal

from libd import MemoryServer
from tests.libd.conftest import ADMIN

HOST, PORT = "10.20.0.1", 2333
URL = f"tcp://{HOST}:{PORT}"


def main() -> None:
    """Serve until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    with MemoryServer(1 << 28, bind=HOST, port=PORT, admin_token=ADMIN, rdma="any"):
        signal.sigwait([signal.SIGTERM])


if __name__ == "__main__":
    main()
