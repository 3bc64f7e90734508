"""Names in scope: DuckDB's rules of finding a column, case-insensitively, here and in the queries
around.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from engine.errors import SqlError

__all__ = ["Attribute", "Item", "Scope"]


@dataclass(frozen=True, slots=True)
class Attribute:
    """A column that a FROM item offers: its name for people, DataFusion's SQL for it, its DuckDB
    type.
    """

    name: str
    text: str
    type: str


@dataclass(frozen=True, slots=True)
class Item:
    """A FROM item: the name that qualifies its columns, and them in order."""

    name: str
    attributes: tuple[Attribute, ...]


@dataclass(slots=True)
class Scope:
    """The FROM clause of one SELECT.

    Attributes
    ----------
    items
        In order of appearance.
    merged
        Columns that USING made one of two, by lower-case name.
    parent
        The scope of the query around, for correlated columns.
    reached
        Whether a query inside has found a column here or further out.
    touched
        Whether this query, or one inside, has found a column here or further out.
    """

    items: list[Item] = field(default_factory=list)
    merged: dict[str, Attribute] = field(default_factory=dict)
    parent: Scope | None = None
    reached: bool = False
    touched: bool = False

    def find(self, name: str, table: str | None) -> Attribute | None:
        """The column of that name here or in an enclosing scope; None if there is none.

        Raises
        ------
        SqlError
            If several columns of one scope have the name.
        """
        scope: Scope | None = self
        passed: list[Scope | None] = []
        while scope is not None:
            found = scope._here(name.lower(), table.lower() if table else None)
            if found is not None:
                self.touched = True
                for outer in passed:
                    if outer is not None:
                        outer.reached = outer.touched = True
                return found
            scope = scope.parent
            passed.append(scope)
        return None

    def is_outer(self, name: str, table: str | None) -> bool:
        """Whether a column of that name is one of an enclosing scope, and not of this one."""
        if self.parent is None or self._here(name.lower(), table.lower() if table else None):
            return False
        return self.parent.find(name, table) is not None

    def star(self, table: str | None = None) -> Iterator[Attribute]:
        """What ``*`` or ``table.*`` stands for; columns merged by USING come once.

        Raises
        ------
        SqlError
            If there is no such table.
        """
        if table is not None:
            yield from self._item(table).attributes
            return
        seen: set[str] = set()
        for item in self.items:
            for attribute in item.attributes:
                key = attribute.name.lower()
                if key in self.merged:
                    if key not in seen:
                        seen.add(key)
                        yield self.merged[key]
                    continue
                yield attribute

    def attributes(self) -> Iterable[Attribute]:
        """All columns of all items, merged ones twice."""
        return (a for item in self.items for a in item.attributes)

    def _item(self, name: str) -> Item:
        for item in self.items:
            if item.name.lower() == name.lower():
                return item
        raise SqlError(f"there is no table {name!r} in this query's FROM clause")

    def _here(self, name: str, table: str | None) -> Attribute | None:
        if table is None and name in self.merged:
            return self.merged[name]
        found = [
            a
            for item in self.items
            if table is None or item.name.lower() == table
            for a in item.attributes
            if a.name.lower() == name
        ]
        if len(found) > 1:
            raise SqlError(f"the column {name!r} is ambiguous: qualify it with its table")
        return found[0] if found else None
