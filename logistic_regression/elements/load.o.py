#@ type: compute
#@ dependents: [train]
#@ corunning:
#@   dataset: {trans: dataset, type: rdma}
#@ limits: {cpu: 1, mem: 1 GB}
"""Load scikit-learn's breast-cancer data, split it, scale it, and leave it in `dataset`."""

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from remote_array import RemoteArray

MAX_COPIES = 32  # of `train`; each needs a slot for two rounds of partial sums


def main(params, action):
    features, labels = load_breast_cancer(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        features,
        labels.astype(float),
        test_size=params.get("test_size", 0.25),
        random_state=params.get("seed", 0),
        stratify=labels,
    )
    scaler = StandardScaler().fit(x_train)
    arrays = {
        "x_train": scaler.transform(x_train),
        "y_train": y_train,
        "x_test": scaler.transform(x_test),
        "y_test": y_test,
    }
    memory = action.get_transport("dataset", "rdma")
    weights = features.shape[1] + 1
    slots = np.zeros((MAX_COPIES, 2, 1 + weights + weights**2))
    address = memory.alloc(slots.nbytes)
    memory.write_from(address, slots)
    return {
        "slots": memory.ref([(address, slots.nbytes)]).to_json(),
        **{
            name: RemoteArray.from_array(memory, values).handle() for name, values in arrays.items()
        },
    }
