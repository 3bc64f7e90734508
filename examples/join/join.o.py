#@ type: compute
#@ parents: [load_left, load_right]
#@ parallelism: 2
#@ corunning:
#@   left: {trans: left, type: rdma}
#@   right: {trans: right, type: rdma}
#@ limits: {cpu: 1, mem: 512 MB}
"""Join one partition of the orders with one of the customers; sum up by city."""

import remote_frame
from remote_frame import col, count


def main(params, action):
    orders, customers = (
        remote_frame.open(remote_frame.partition(params[name], action.index), action)
        for name in ("load_left", "load_right")
    )
    joined = remote_frame.join(orders, customers, on="customer", how="left")
    cities = (
        joined.filter(col("amount") >= params.get("least", 100))
        .group_by("city")
        .agg(count().alias("orders"), col("amount").sum().cast("int64"))
        .sort("city")
    )
    # A result is small JSON. Were it large: return cities.write(action.get_transport(…)).
    return {"cities": cities.collect().to_pylist()}
