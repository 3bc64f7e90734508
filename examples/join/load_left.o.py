#@ type: compute
#@ dependents: [join]
#@ corunning:
#@   left: {trans: left, type: rdma}
#@ limits: {cpu: 1, mem: 512 MB}
"""Write orders into `left`, one partition for each copy of `join`."""

import numpy as np
import pyarrow as pa

import remote_frame


def main(params, action):
    rng = np.random.default_rng(1)
    n = params.get("orders", 100_000)
    orders = pa.table(
        {
            "order": pa.array(np.arange(n), pa.int64()),
            "customer": pa.array(rng.integers(0, 1000, n), pa.int32()),
            "amount": pa.array(rng.integers(1, 500, n), pa.int64()),
        }
    )
    return remote_frame.exchange(
        orders, action.get_transport("left", "rdma"), keys=["customer"], partitions=2
    )
