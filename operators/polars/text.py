"""Text of Polars expressions that knows how tightly it binds and what its type is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum

from operators.errors import UnsupportedPlan

__all__ = ["Strength", "Text", "plain_name", "quoted"]


class Strength(IntEnum):
    """How tightly Python binds, loosest first; calls, attributes and names bind tightest."""

    COMPARE = 0
    OR = 1
    XOR = 2
    AND = 3
    SUM = 4
    PRODUCT = 5
    UNARY = 6
    TIGHT = 7


@dataclass(frozen=True, slots=True)
class Text:
    """Source of one expression.

    Attributes
    ----------
    code
        Python source.
    strength
        How tightly its outermost operator binds.
    exact
        Whether Polars gives it the very type that `polars_type` says, rather than one of the same
        kind that holds the same values (a wider decimal, another width of integer).
    bare
        Whether it is a plain Python value, which has a type only beside an expression.
    """

    code: str
    strength: Strength = Strength.TIGHT
    exact: bool = True
    bare: bool = False

    def within(self, outer: Strength) -> str:
        """The source, in parentheses where `outer` binds tighter."""
        return f"({self.code})" if self.strength < outer else self.code

    @property
    def tight(self) -> str:
        """The source as something that a method can be called on."""
        return self.within(Strength.TIGHT)

    def then(self, method: str, *, exact: bool = True) -> Text:
        """The text with ``.method`` behind it."""
        return Text(f"{self.tight}.{method}", exact=exact)


def quoted(text: str) -> str:
    """`text` as a Python string in double quotes."""
    if text.isidentifier() and text.isascii():  # most names, in a tenth of the time
        return f'"{text}"'
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\x7f")


def plain_name(name: str) -> str:
    """A column's name that Polars takes for nothing but a name."""
    if name == "*" or (name.startswith("^") and name.endswith("$")):
        raise UnsupportedPlan(f"a column named {name!r}, which is a pattern")
    return name
