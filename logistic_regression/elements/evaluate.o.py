#@ type: compute
#@ parents: [train]
#@ corunning:
#@   dataset: {trans: dataset, type: rdma}
#@ limits: {cpu: 1, mem: 1 GB}
"""Accuracy of the trained weights on the test rows."""

import numpy as np

from remote_array import RemoteArray


def main(params, action):
    data = params["train"][0]
    memory = action.get_transport("dataset", "rdma")
    weights, x, y = (
        np.asarray(RemoteArray.open(data[name], memory)) for name in ("weights", "x_test", "y_test")
    )
    predicted = x @ weights[:-1] + weights[-1] > 0
    return {
        "accuracy": float(np.mean(predicted == (y > 0.5))),
        "test_rows": len(y),
        "rounds": data["rounds"],
        "weights": weights.tolist(),
    }
