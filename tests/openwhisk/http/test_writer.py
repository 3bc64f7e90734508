"""The thread that writes records: who lists them waits for it."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from openwhisk.api import Activation
from openwhisk.control import EmbeddedControlPlane
from openwhisk.http.service import Service
from openwhisk.store import Store, StoreError


class Plane:
    """A control plane that has nothing to say."""

    def settle(self) -> None:
        pass


class SlowStore(Store):
    """Writes when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.entered = threading.Event()

    def put_activation(self, namespace: str, record: Any) -> None:
        self.entered.set()
        assert self.gate.wait(60)
        super().put_activation(namespace, record)


def test_flush_returns_when_what_ended_before_is_written() -> None:
    store = SlowStore()
    service = Service(cast(EmbeddedControlPlane, Plane()), store)
    ended = Activation(activation_id="1" * 32, name="a", start=1.0, end=2.0, status="success")
    service.finished(ended, "ns")
    assert store.entered.wait(60)
    flush = threading.Thread(target=service.flush)
    flush.start()
    assert store.list_activations("ns") == []
    assert flush.is_alive()
    store.gate.set()
    flush.join(60)
    assert [r["activationId"] for r in store.list_activations("ns")] == ["1" * 32]
    service.close()
    service.flush()  # nothing to wait for
    store.close()


def test_a_failed_transaction_leaves_the_store_usable(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    other = sqlite3.connect(tmp_path / "s.sqlite", isolation_level=None)
    other.execute("begin immediate")
    store._db.execute("pragma busy_timeout=0")
    with pytest.raises(StoreError, match="cannot be written"):
        store.put("ns", "a", {}, overwrite=False)
    other.execute("rollback")
    other.close()
    assert store.put("ns", "a", {}, overwrite=False) == "0.0.1"
    store.close()
