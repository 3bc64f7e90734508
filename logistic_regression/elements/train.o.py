#@ type: compute
#@ parents: [load]
#@ dependents: [evaluate]
#@ corunning:
#@   dataset: {trans: dataset, type: rdma}
#@ parallelism: 2
#@ limits: {cpu: 1, mem: 1 GB}
"""Fit L2-regularised logistic regression, data-parallel: every copy holds a slice of the rows.

Each round is one Newton step (iteratively reweighted least squares; Hastie, Tibshirani and
Friedman, *The Elements of Statistical Learning*, §4.4.1). A copy writes the gradient and Hessian
of its slice into its own slot in the memory element, then its round number; when every slot shows
the round, each copy adds up all slots and takes the same step, so that the weights need no
broadcast. A slot holds two rounds, used in turn: a copy may be one round ahead of the slowest
reader, never two, because it waits for all copies in between.
"""

import time

import numpy as np

from libd import Ref
from remote_array import RemoteArray

ROUNDS = 25
TOLERANCE = 1e-10
PATIENCE_SECONDS = 60.0


def local_sums(weights, x, y):
    """Gradient and Hessian of the log-loss over this copy's rows."""
    predicted = 1.0 / (1.0 + np.exp(-(x @ weights)))
    gradient = x.T @ (predicted - y)
    hessian = (x * (predicted * (1.0 - predicted))[:, None]).T @ x
    return np.concatenate([gradient, hessian.ravel()])


class Slots:
    """One slot for each copy in the memory element: a round number, then that copy's sums, twice
    (see above).
    """

    def __init__(self, memory, base, copies, width):
        self.memory, self.base, self.copies, self.width = memory, base, copies, width

    def address(self, copy, round_):
        return self.base + (2 * copy + round_ % 2) * (1 + self.width) * 8

    def publish(self, copy, round_, sums):
        address = self.address(copy, round_)
        self.memory.write_from(address + 8, sums)
        self.memory.flush()  # the sums are visible before the round number says so
        self.memory.write_from(address, np.array([round_], dtype=np.int64))

    def total(self, round_):
        """The sum over all copies' slots, once all of them show this round."""
        total = np.zeros(self.width)
        for copy in range(self.copies):
            self.await_round(copy, round_)
            sums = np.empty(self.width)
            self.memory.read_into(self.address(copy, round_) + 8, sums)
            total += sums
        return total

    def await_round(self, copy, round_):
        seen = np.zeros(1, dtype=np.int64)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            self.memory.read_into(self.address(copy, round_), seen)
            if seen[0] == round_:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"copy {copy} did not reach round {round_} in {PATIENCE_SECONDS} s"
                )
            time.sleep(0.0001)


def main(params, action):
    data = params["load"][0]
    memory = action.get_transport("dataset", "rdma")
    mine = slice(action.index, None, action.count)
    x = RemoteArray.open(data["x_train"], memory)[mine]
    y = RemoteArray.open(data["y_train"], memory)[mine]
    x = np.column_stack([x, np.ones(len(x))])  # the last weight is the intercept

    features = x.shape[1]
    [(base, _)] = memory.resolve(Ref.from_json(data["slots"]))
    slots = Slots(memory, base, action.count, features + features**2)
    penalty = np.append(np.ones(features - 1), 0.0)  # C=1; not on the intercept
    weights = np.zeros(features)
    for round_ in range(1, ROUNDS + 1):
        slots.publish(action.index, round_, local_sums(weights, x, y))
        total = slots.total(round_)
        gradient = total[:features] + penalty * weights
        hessian = total[features:].reshape(features, features) + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        weights -= step
        if np.abs(step).max() < TOLERANCE:
            break
    if action.index:
        return {"rounds": round_}
    return {
        "rounds": round_,
        "weights": RemoteArray.from_array(memory, weights).handle(),
        "x_test": data["x_test"],
        "y_test": data["y_test"],
    }
