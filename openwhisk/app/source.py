"""Documents that know where each of their values stands.

`YamlSource` and `JsonSource` hold plain data beside the place of every value, so that messages can
name a line or a JSON path. `Report` collects what is found; reading goes on after a problem, and
all of them are shown at once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Protocol

import yaml

from openwhisk.app.model import AppWarning, Location, Problem
from openwhisk.errors import ApplicationError

Path = tuple[str | int, ...]

# Aliases make a short YAML text stand for an exponential number of values.
MAX_NODES = 100_000
MAX_DEPTH = 100


@dataclass
class Report:
    """Problems and warnings found so far."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[AppWarning] = field(default_factory=list)

    def error(self, message: str, location: Location | None) -> None:
        """Note a problem."""
        self.problems.append(Problem(message, location))

    def warn(self, message: str, location: Location | None) -> None:
        """Note a warning."""
        self.warnings.append(AppWarning(message, location))

    def check(self) -> None:
        """Raise `ApplicationError` if there is any problem."""
        if self.problems:
            raise ApplicationError(self.problems)


class Source(Protocol):
    """A document that was read."""

    data: Any

    def locate(self, path: Path) -> Location:
        """Return where the value at `path` stands, or the closest value around it."""


class JsonSource:
    """A JSON document: places are paths such as ``$.functions[0].objects[2].name``."""

    def __init__(self, data: Any, file: str) -> None:
        self.data = data
        self.file = file

    @classmethod
    def parse(cls, text: str | bytes, file: str) -> JsonSource:
        """Read a JSON text; raises `ApplicationError` with the line if it is none."""

        def refuse(constant: str) -> Any:
            raise ValueError(f"{constant} is not JSON")

        try:
            return cls(json.loads(text, parse_constant=refuse), file)
        except json.JSONDecodeError as error:
            where = Location(file, error.lineno)
            raise ApplicationError([Problem(f"not JSON: {error.msg}", where)]) from None
        except (ValueError, RecursionError) as error:
            raise ApplicationError([Problem(f"not JSON: {error}", Location(file))]) from None

    def locate(self, path: Path) -> Location:
        """Return the JSON path."""
        steps = (f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)
        return Location(self.file, path="$" + "".join(steps))


class YamlSource:
    """A YAML document, possibly inside another file: places are lines of that file."""

    def __init__(self, text: str, file: str, first_line: int = 1) -> None:
        """Read `text`, whose first line is line `first_line` of `file`.

        Raises
        ------
        ApplicationError
            If it is not YAML, uses tags of other types than YAML's own, or repeats a key.
        """
        self.file = file
        self._first_line = first_line
        self._lines: dict[Path, int] = {(): first_line}
        self._nodes = 0
        self._loader = yaml.SafeLoader(text)
        try:
            node = self._loader.get_single_node()
            self.data: Any = None if node is None else self._convert(node, (), 0)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = None if mark is None else mark.line + first_line
            what = error.problem or error.context or "cannot be read"
            raise ApplicationError([Problem(f"not YAML: {what}", Location(file, line))]) from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            what = " ".join(str(error).split())
            raise ApplicationError(
                [Problem(f"not YAML: {what}", Location(file, first_line))]
            ) from None
        finally:
            self._loader.dispose()

    def locate(self, path: Path) -> Location:
        """Return the line of the value at `path`, or of the closest value around it."""
        while path not in self._lines:
            path = path[:-1]
        return Location(self.file, self._lines[path])

    def _convert(self, node: yaml.Node, path: Path, depth: int) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            raise ValueError("too many values, or nested too deep")
        self._lines.setdefault(path, node.start_mark.line + self._first_line)
        if isinstance(node, yaml.SequenceNode):
            return [self._convert(n, (*path, i), depth + 1) for i, n in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return self._loader.construct_object(node)  # type: ignore[no-untyped-call]
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + self._first_line
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem="a key must be a plain word", problem_mark=key_node.start_mark
                )
            key = key_node.value
            if key in found:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} is given twice", problem_mark=key_node.start_mark
                )
            self._lines[*path, key] = line
            found[key] = self._convert(value_node, (*path, key), depth + 1)
        return found
