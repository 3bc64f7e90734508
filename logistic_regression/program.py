"""Submitting the element files, and scikit-learn's answer to hold ours against.

The program itself is the element files beside this module (`elements/`, also reachable as
`examples/logistic_regression`): load, train in parallel copies, evaluate, around one memory
element. Nothing here moves data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from libd.errors import ScadError
from openwhisk.api import ControlPlane, Usage
from openwhisk.app import load_directory
from openwhisk.app.model import Application, ComputeElement

__all__ = ["ELEMENTS", "MAX_COPIES", "Outcome", "ProgramError", "application", "reference", "train"]

ELEMENTS = Path(__file__).parent / "elements"
MAX_COPIES = 32  # as many slots as elements/load.o.py makes


class ProgramError(ScadError):
    """The program did not finish."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the last element returned, and what the run cost.

    `accuracy` is the share of test rows predicted right; `seconds` is from submission to result.
    """

    accuracy: float
    test_rows: int
    rounds: int
    weights: list[float]
    seconds: float
    usage: Usage


def application(copies: int) -> Application:
    """The element files as an application whose `train` has `copies` copies.

    Raises
    ------
    ValueError
        If `copies` is not between 1 and `MAX_COPIES`.
    """
    if not 1 <= copies <= MAX_COPIES:
        raise ValueError(f"parallelism must be from 1 to {MAX_COPIES}, not {copies}")
    app = load_directory(ELEMENTS)
    elements = [
        dataclasses.replace(e, parallelism=copies)
        if isinstance(e, ComputeElement) and e.name == "train"
        else e
        for e in app
    ]
    return Application("logistic_regression", elements)


def train(
    plane: ControlPlane, app: Application, *, seed: int, test_size: float, transport: str = "auto"
) -> Outcome:
    """Run the application and return what it learnt.

    Raises
    ------
    ProgramError
        If the activation failed; the message is its error.
    KeyboardInterrupt
        After cancelling the activation.
    """
    plane.put_application(app, overwrite=True)
    activation_id = plane.invoke(
        app.name, {"seed": seed, "test_size": test_size}, transport=transport
    )
    with cancelled_on_interrupt(plane, activation_id):
        activation = plane.wait(activation_id)
    if activation.status != "success" or activation.end is None:
        raise ProgramError(f"activation {activation_id} {activation.status}: {activation.error}")
    result = activation.result["evaluate"]
    return Outcome(
        accuracy=result["accuracy"],
        test_rows=result["test_rows"],
        rounds=result["rounds"],
        weights=result["weights"],
        seconds=activation.end - activation.start,
        usage=activation.usage,
    )


@contextmanager
def cancelled_on_interrupt(plane: ControlPlane, activation_id: str) -> Iterator[None]:
    """Cancel the activation if the block is left by Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        plane.cancel(activation_id)
        raise


def reference(*, seed: int, test_size: float) -> tuple[float, float]:
    """Accuracy of scikit-learn's LogisticRegression on the same split, and the seconds it took."""
    import time

    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    features, labels = load_breast_cancer(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        features, labels, test_size=test_size, random_state=seed, stratify=labels
    )
    scaler = StandardScaler().fit(x_train)
    start = time.perf_counter()
    model = LogisticRegression(max_iter=1000).fit(scaler.transform(x_train), y_train)
    seconds = time.perf_counter() - start
    return float(model.score(scaler.transform(x_test), y_test)), seconds
