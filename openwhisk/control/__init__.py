"""The control plane in this process: scheduler and invoker on one thread, behind thread-safe
methods.

It does not cover HTTP or storage: those wrap an `EmbeddedControlPlane` and are told of finished
activations by `on_finished`.
"""

from __future__ import annotations

from openwhisk.control.embedded import EmbeddedControlPlane

__all__ = ["EmbeddedControlPlane"]
