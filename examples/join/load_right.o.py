#@ type: compute
#@ dependents: [join]
#@ corunning:
#@   right: {trans: right, type: rdma}
#@ limits: {cpu: 1, mem: 512 MB}
"""Write customers into `right`, scattered like the orders."""

import pyarrow as pa

import remote_frame

CITIES = ["Bern", "Lyon", "Oslo", "Porto"]


def main(params, action):
    # Only 900 of the 1,000 customers that order are known.
    customers = pa.table(
        {
            "customer": pa.array(range(900), pa.int64()),
            "city": pa.array([CITIES[i % 4] for i in range(900)]),
        }
    )
    return remote_frame.exchange(
        customers, action.get_transport("right", "rdma"), keys=["customer"], partitions=2
    )
