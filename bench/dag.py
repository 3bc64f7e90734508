"""The control plane's own cost: chains and fans of no-op elements, beside Ray tasks of the same
shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from bench.harness import Case, Options, Side
from bench.peers import missing
from openwhisk.app import complete
from openwhisk.app.model import Application, ComputeElement, Limits
from openwhisk.control import EmbeddedControlPlane

__all__ = ["NAMES", "chain_application", "dag", "fan_application"]

WIDTH = 8
TARGET_MS = 1.0
NAMES = [f"chain of {WIDTH}", f"fan of {WIDTH}"]
NO_OP = "def main(params, action):\n    return {}\n"
SMALL = Limits(cpu=0.1, mem=512 << 20)


def no_op(name: str, *, parents: tuple[str, ...] = (), parallelism: int = 1) -> ComputeElement:
    """An element that returns at once."""
    return ComputeElement(name, NO_OP, parents=parents, parallelism=parallelism, limits=SMALL)


def chain_application(length: int) -> Application:
    """`length` elements, each the dependent of the one before."""
    elements = [no_op(f"e{i}", parents=(f"e{i - 1}",) if i else ()) for i in range(length)]
    return complete(Application("chain", elements))


def fan_application(width: int) -> Application:
    """One element, then `width` copies of another, then one that joins them."""
    return complete(
        Application(
            "fan",
            [
                no_op("first"),
                no_op("each", parents=("first",), parallelism=width),
                no_op("last", parents=("each",)),
            ],
        )
    )


def invoke(plane: EmbeddedControlPlane, application: Application) -> Side:
    """Run an application that the control plane has, and wait for it."""
    plane.put_application(application)

    def run() -> None:
        activation = plane.wait(plane.invoke(application.name), timeout=60)
        if activation.status != "success":
            raise RuntimeError(f"{application.name}: {activation.status}: {activation.error}")

    return run


def ray_shapes(stack: ExitStack) -> tuple[Side, Side] | None:
    """The same chain and fan as Ray tasks, or None where Ray is not installed."""
    if missing("ray"):
        return None
    import ray

    from bench.peers.ray_objects import ray_session

    stack.enter_context(ray_session())
    task: Callable[..., Any] = ray.remote(num_cpus=0.1)(lambda *_: {}).remote

    def chain() -> None:
        result = task()
        for _ in range(WIDTH - 1):
            result = task(result)
        ray.get(result)

    def fan() -> None:
        first = task()
        ray.get(task(*[task(first) for _ in range(WIDTH)]))

    return chain, fan


def dag(options: Options) -> Iterator[Case]:
    """A chain and a fan of no-op elements in the embedded control plane, milliseconds per
    element.
    """
    with ExitStack() as stack:
        plane = stack.enter_context(EmbeddedControlPlane())
        peers = ray_shapes(stack) if options.wants("ray") else None
        name = "Ray tasks" if peers else missing("ray") or "-"
        shapes = [
            (chain_application(WIDTH), WIDTH, peers and peers[0]),
            (fan_application(WIDTH), WIDTH + 2, peers and peers[1]),
        ]
        yield from [
            Case(
                label, "ms", invoke(plane, application), name, peer,
                operations=elements, target=1.0, limit=TARGET_MS, repeat=5,
                table="dag of no-op elements",
            )
            for label, (application, elements, peer) in zip(NAMES, shapes, strict=True)
        ]  # fmt: skip
