"""Run the elements of this directory in an embedded control plane and print what they found.

python examples/join/run.py [--transport shm|tcp] [--orders N]
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from openwhisk.app import load_directory
from openwhisk.control import EmbeddedControlPlane


def main() -> None:
    parser = argparse.ArgumentParser(description="Join two remote frames in parallel elements.")
    parser.add_argument("--transport", choices=["auto", "shm", "tcp", "rdma"], default="auto")
    parser.add_argument("--orders", type=int, default=100_000)
    options = parser.parse_args()

    app = load_directory(Path(__file__).parent)
    control = EmbeddedControlPlane(preimport=("remote_frame.api", "operators.duckdb"))
    try:
        control.put_application(app, overwrite=True)
        started = control.invoke(app.name, {"orders": options.orders}, transport=options.transport)
        activation = control.wait(started, timeout=120)
    finally:
        control.close()
    if activation.error:
        raise SystemExit(activation.error)

    orders: Counter[str | None] = Counter()
    amount: Counter[str | None] = Counter()
    for copy in activation.result["join"]:
        for row in copy["cities"]:
            orders[row["city"]] += row["orders"]
            amount[row["city"]] += row["amount"]
    for city in sorted(orders, key=str):
        print(f"{city or 'unknown':8} {orders[city]:7} orders {amount[city]:10}")
    usage = activation.usage
    print(
        f"through memory elements: {usage.bytes_written} bytes written, {usage.bytes_read} read "
        "(over shared memory without a copy)"
    )


if __name__ == "__main__":
    main()
