from __future__ import annotations

from typing import Any

import pytest


class FakeTransports:
    """The part of LibdAction that an Action uses, noting what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def add_transport(self, durl: Any) -> None:
        self.calls.append(("add", durl))

    def config_transport(self, name: str, durl: Any) -> None:
        self.calls.append(("config", name, durl))

    def get_transport(self, name: str, type: str = "rdma", timeout: float | None = 9.0) -> str:
        self.calls.append(("get", name, type, timeout))
        return f"transport {name}"

    def close(self) -> None:
        self.calls.append(("close",))


@pytest.fixture
def transports() -> FakeTransports:
    return FakeTransports()
