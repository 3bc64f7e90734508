"""Reading typed fields out of a document, with a message for everything that is not as it should
be.

A `Fields` is one mapping of a document. Each reader takes a key out of it and returns a value of
the right type, noting a problem and falling back to a default where it must. `Fields.finish`
reports the keys that nobody took.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from libd.errors import SizeError
from libd.units import parse_size
from openwhisk.app.model import Corunning, Limits, Location, Merged
from openwhisk.app.plain import NotPlainError, plain_json
from openwhisk.app.source import Path, Report, Source

L = TypeVar("L", bound=str)

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def describe(value: Any) -> str:
    """Return a value for a message: short, and in the words of YAML and JSON."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


class Fields:
    """One mapping of a document.

    Parameters
    ----------
    what
        The element in question, for messages.
    """

    def __init__(self, source: Source, report: Report, data: Any, path: Path, what: str) -> None:
        self.source = source
        self.report = report
        self.path = path
        self.what = what
        self.places: dict[str, Location] = {}
        if data is not None and not isinstance(data, Mapping):
            self.error((), f"must be a mapping, not {describe(data)}")
        self.data: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
        self._taken: set[str] = set()

    def locate(self, *keys: str | int) -> Location:
        """Return the place of a value below this mapping."""
        return self.source.locate((*self.path, *keys))

    def error(self, keys: Sequence[str | int], message: str) -> None:
        """Note a problem with the value at `keys`."""
        name = ".".join(str(k) for k in keys)
        about = f"{self.what}: {name} " if name else f"{self.what} "
        self.report.error(about + message, self.locate(*keys))

    def has(self, key: str) -> bool:
        """Whether there is a value, other than null, under `key`."""
        return self.data.get(key) is not None

    def take(self, key: str) -> Any:
        """Return the raw value under `key`, or ``None``."""
        self._taken.add(key)
        if key in self.data:
            self.places[key] = self.locate(key)
        return self.data.get(key)

    def inner(self, key: str) -> Fields:
        """Return the mapping under `key`; an empty one if there is none."""
        what = f"{self.what}: {key}"
        return Fields(self.source, self.report, self.take(key), (*self.path, key), what)

    def text(self, key: str, default: str) -> str:
        """Return a text."""
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, str):
            self.error([key], f"must be text, not {describe(value)}")
            return default
        return value

    def choice(self, key: str, default: L, choices: Sequence[L]) -> L:
        """Return one of a few words."""
        value = self.take(key)
        if value is None:
            return default
        for choice in choices:
            if value == choice:
                return choice
        self.error([key], f"must be {' or '.join(choices)}, not {describe(value)}")
        return default

    def boolean(self, key: str, default: bool) -> bool:
        """Return true or false."""
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.error([key], f"must be true or false, not {describe(value)}")
            return default
        return value

    def count(self, key: str, default: int) -> int:
        """Return a whole number."""
        value = self.take(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self.error([key], f"must be a whole number, not {describe(value)}")
            return default
        return value

    def number(self, key: str, default: float) -> float:
        """Return a number."""
        value = self.take(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.error([key], f"must be a number, not {describe(value)}")
            return default
        try:
            return float(value)
        except OverflowError:
            self.error([key], f"is too large: {describe(value)}")
            return default

    def size(self, key: str, default: int) -> int:
        """Return a number of bytes, written as in ``64 MB``."""
        value = self.take(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            self.error([key], f"must be a size such as '64 MB', not {describe(value)}")
            return default
        try:
            return parse_size(value)
        except SizeError as error:
            self.error([key], f"is {error}" if str(error).startswith("not ") else f": {error}")
            return default

    def json(self, key: str) -> dict[str, Any]:
        """Return a mapping of any JSON values."""
        value = self.take(key)
        if value is None:
            return {}
        try:
            plain = plain_json(value, key)
        except NotPlainError as error:
            self.report.error(f"{self.what}: {error}", self.locate(key))
            return {}
        if not isinstance(plain, dict):
            self.error([key], f"must be a mapping, not {describe(value)}")
            return {}
        return plain

    def names(self, key: str) -> tuple[str, ...]:
        """Return a list of names; a single name stands for a list of one."""
        value = self.take(key)
        if isinstance(value, str):
            value = [value]
        if value is None:
            return ()
        if isinstance(value, Mapping):
            self.error([key], "must be a list of names, not a mapping")
            return ()
        return tuple(self._names(key, value))

    def corunning_names(self) -> tuple[str, ...]:
        """Return the names under ``corunning``, written as a list or as a map."""
        if isinstance(value := self.data.get("corunning"), Mapping):
            self.take("corunning")
            return tuple(self._names("corunning", list(value), list(value)))
        return self.names("corunning")

    def corunning_map(self) -> dict[str, Corunning]:
        """Return ``corunning`` with transport names and types; a plain list gets the defaults."""
        value = self.data.get("corunning")
        if not isinstance(value, Mapping):
            return {name: Corunning(name) for name in self.names("corunning")}
        self.take("corunning")
        found = {}
        for name in self._names("corunning", list(value), list(value)):
            one = Fields(
                self.source,
                self.report,
                value[name],
                (*self.path, "corunning", name),
                f"{self.what}: corunning.{name}",
            )
            trans = one.text("trans", name)
            found[name] = Corunning(name, trans, one.text("type", "rdma"))
            one.finish()
        return found

    def _names(
        self, key: str, values: Any, keys: Sequence[str | int] | None = None
    ) -> Iterator[str]:
        if not isinstance(values, (list, tuple)):
            self.error([key], f"must be a list of names, not {describe(values)}")
            return
        seen: set[str] = set()
        for i, value in enumerate(values):
            at = keys[i] if keys is not None else i
            where = self.locate(key, at)
            if value is None or value == "None":
                # The prototype's element files say "None" where there is nobody.
                self.report.warn(f"{self.what}: {key} names nobody; left out", where)
            elif not isinstance(value, str):
                self.error([key, at], f"must be a name in quotes, not {describe(value)}")
            elif value in seen:
                self.report.warn(f"{self.what}: {key} names {value} twice", where)
            else:
                seen.add(value)
                self.places[f"{key}.{value}"] = where
                yield value

    def limits(self, default: Limits, *, required_mem: bool = False) -> Limits:
        """Return ``limits: {cpu, mem, storage, timeout}`` as element files write them."""
        inner = self.inner("limits")
        if required_mem and not inner.has("mem"):
            place = self.locate("limits") if self.has("limits") else self.locate()
            self.report.error(f"{self.what}: limits.mem is missing: how large is it?", place)
        limits = read_resources(inner, default, inner.number("timeout", default.timeout))
        inner.finish()
        self._adopt("limits", inner)
        return limits

    def merged(self, key: str) -> tuple[Merged, ...]:
        """Return ``withMerged`` in the prototype's form."""
        value = self.take(key)
        if value is None:
            return ()
        if not isinstance(value, (list, tuple)):
            self.error([key], f"must be a list, not {describe(value)}")
            return ()
        found = []
        for i, item in enumerate(value):
            what = f"{self.what}: {key}[{i}]"
            one = Fields(self.source, self.report, item, (*self.path, key, i), what)
            one.choice("elem", "Memory", ("Memory",))
            action = one.inner("action")
            name = action.text("name", "")
            if not name:
                one.error([], "has no action.name")
            namespace = action.text("namespace", "whisk.system")
            inner = one.inner("resources")
            if not inner.has("mem"):
                one.error([], "has no resources.mem: how large is it?")
            limits = read_resources(inner, Limits(cpu=0.0), Limits().timeout)
            for part in (action, inner, one):
                part.finish()
            self.places[f"{key}.{name}"] = one.locate()
            found.append(Merged(name, limits, namespace))
        return tuple(found)

    def finish(self) -> None:
        """Report the keys that nobody asked for."""
        for key in self.data:
            if key not in self._taken:
                close = difflib.get_close_matches(str(key), self._taken, 1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                self.report.error(f"{self.what}: unknown key {key!r}{hint}", self.locate(key))

    def _adopt(self, key: str, inner: Fields) -> None:
        self.places.update({f"{key}.{k}": v for k, v in inner.places.items()})


def read_resources(fields: Fields, default: Limits, timeout: float) -> Limits:
    """Return limits from a mapping with ``cpu``, ``mem`` and ``storage``."""
    return Limits(
        cpu=fields.number("cpu", default.cpu),
        mem=fields.size("mem", default.mem),
        storage=fields.size("storage", default.storage),
        timeout=round(timeout, 3),
    )
