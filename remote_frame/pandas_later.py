"""Importing this keeps pandas out of a process until somebody asks for it.

pyarrow imports pandas, where it is installed, as soon as it makes a value, to know a pandas object
if it is given one: a quarter of a second, and 26 MiB that every worker has and hardly any element
uses. pyarrow looks once. Here it looks while pandas cannot be found; when pandas is imported later,
by whomever, pyarrow is told.

For processes that are ours, such as workers: a zygote imports this before anything else that has
to do with Arrow. In a process where pandas or pyarrow's look for it came first it has no effect.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__: list[str] = []

_PANDAS = "pandas"


class _Teller(Loader):
    """pandas' own loader, after which pyarrow knows of it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        _look()


class _Finder(MetaPathFinder):
    """Finds no pandas at first, then the real one, and is gone."""

    hidden = True

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _PANDAS:
            return None
        if self.hidden:
            raise ModuleNotFoundError(f"No module named {_PANDAS!r}", name=_PANDAS)
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(_PANDAS)
        if spec is not None and spec.loader is not None:
            spec.loader = _Teller(spec.loader)
        return spec


def _look() -> None:
    """Have pyarrow look for pandas again."""
    import pyarrow as pa

    # One that is too old for pyarrow can be imported nevertheless.
    with contextlib.suppress(ImportError):
        pa.nulls(0).to_pandas()


def _hide() -> None:
    if _PANDAS in sys.modules:
        return
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        import pyarrow as pa
        import pyarrow.dataset

        pa.scalar(0)  # whatever value: it looks
    finally:
        finder.hidden = False


_hide()
