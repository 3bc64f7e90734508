"""Check libd: write an integer to a memory element and read it back.

    python examples/runtime_example_local.py                # a memory element in this process
    memory_server 2333 &
    python examples/runtime_example_local.py --tcp 2333     # the same over TCP

Either prints ``API test int = 12345, fetch = 12345 True``. The transport is added without an
address and configured afterwards, as the control plane does with elements that start before their
memory.
"""

from __future__ import annotations

import argparse
import sys

from libd import LibdAction
from libd.errors import LibdError


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Write an integer to a memory element and read it back."
    )
    parser.add_argument(
        "--tcp", nargs="?", const=2333, type=int, metavar="PORT", help="use the memory server there"
    )
    port = parser.parse_args().tcp
    kind, config = (
        ("rdma_local", "size,65536;")
        if port is None
        else ("rdma_tcp", f"url,tcp://localhost:{port};")
    )
    try:
        with LibdAction("0000") as action:
            action.add_transport(f"client1;{kind};")
            action.config_transport("client1", config)
            trans = action.get_transport("client1", "rdma")
            trans.reg(8)

            number = 12345
            trans.buf[0:4] = number.to_bytes(4, "little")
            trans.write(4, addr=0, offset=0)
            trans.read(4, addr=0, offset=4)
            fetched = int.from_bytes(trans.buf[4:8], "little")
    except LibdError as error:
        print(f"runtime_example_local: {error}", file=sys.stderr)
        return 1
    print(f"API test int = {number}, fetch = {fetched} {number == fetched}")
    return number != fetched


if __name__ == "__main__":
    sys.exit(main())
