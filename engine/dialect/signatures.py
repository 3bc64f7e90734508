"""Typed stand-ins: how a DuckDB function passes through DataFusion untouched.

DataFusion would coerce, simplify and fold functions by rules of its own. It therefore never sees
one: every call becomes a call of an opaque function, one per function and argument types, whose
name says nothing to DataFusion and everything to us. Its declared result type is DuckDB's, so that
no coercion is ever needed around it. It has no implementation: when DataFusion tries to fold a call
over literals, it fails and leaves the call alone.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

__all__ = ["Signature", "Signatures"]


@dataclass(frozen=True, slots=True)
class Signature:
    """A function of the IR at given DuckDB types.

    Attributes
    ----------
    kind
        ``scalar``, ``aggregate``, ``distinct`` (an aggregate over a window that sees each value
        once: DataFusion's plans do not say that), or ``cast`` and ``try_cast`` (with an empty
        `function`).
    function
        Its name in the IR's vocabulary.
    arguments, result
        DuckDB type names.
    """

    kind: Literal["scalar", "aggregate", "distinct", "cast", "try_cast"]
    function: str
    arguments: tuple[str, ...]
    result: str


class Signatures:
    """The stand-ins of one catalog, by name and by signature; grows as queries need them."""

    def __init__(self) -> None:
        self._names: dict[Signature, str] = {}
        self._by_name: dict[str, Signature] = {}
        self._lock = threading.Lock()

    def name(self, signature: Signature) -> str:
        """The stand-in's name for DataFusion, made on first use."""
        known = self._names.get(signature)
        if known is not None:
            return known
        with self._lock:
            word = signature.function or signature.kind
            name = self._names.setdefault(signature, f"{word}__{len(self._names)}")
            self._by_name[name] = signature
        return name

    def get(self, name: str) -> Signature | None:
        """What a name stands for, or None if it is not a stand-in."""
        return self._by_name.get(name)

    def since(self, count: int) -> list[tuple[str, Signature]]:
        """All stand-ins but the first `count`, oldest first."""
        return list(self._by_name.items())[count:]
