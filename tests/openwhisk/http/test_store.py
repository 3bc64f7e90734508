"""The store: entities, activations, credentials, and files that are none of ours."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from openwhisk.errors import AlreadyExistsError, NotFoundError
from openwhisk.http.auth import basic_credentials, ensure_key, read_key
from openwhisk.store import Store, StoreError


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    yield made
    made.close()


def test_put_get_and_versions(store: Store) -> None:
    assert store.put("ns", "a", {"x": 1}, overwrite=False) == "0.0.1"
    with pytest.raises(AlreadyExistsError, match="'a' already exists"):
        store.put("ns", "a", {"x": 2}, overwrite=False)
    assert store.put("ns", "a", {"x": 2}, overwrite=True) == "0.0.2"
    body, version, updated = store.get("ns", "a")
    assert (body, version) == ({"x": 2}, "0.0.2")
    assert updated > 1_600_000_000_000


def test_namespaces_are_separate(store: Store) -> None:
    store.put("one", "a", {}, overwrite=False)
    with pytest.raises(NotFoundError, match="'a' in 'two'"):
        store.get("two", "a")
    assert store.count("one") == 1
    assert store.count("two") == 0


def test_delete_and_list(store: Store) -> None:
    for name in ("b", "a", "c"):
        store.put("ns", name, {"name": name}, overwrite=False)
    assert [row[0] for row in store.list_entities("ns", limit=2, skip=1)] == ["b", "c"]
    assert store.delete("ns", "b") == {"name": "b"}
    assert [row[0] for row in store.list_entities("ns")] == ["a", "c"]
    with pytest.raises(NotFoundError):
        store.delete("ns", "b")


def record(number: int, name: str = "app") -> dict[str, object]:
    return {"activationId": f"{number:032x}", "name": name, "start": 1000 + number}


def test_activations_newest_first_and_filters(store: Store) -> None:
    for number in range(5):
        store.put_activation("ns", record(number, "even" if number % 2 == 0 else "odd"))
    starts = [r["start"] for r in store.list_activations("ns", limit=3)]
    assert starts == [1004, 1003, 1002]
    assert [r["start"] for r in store.list_activations("ns", name="odd")] == [1003, 1001]
    assert [r["start"] for r in store.list_activations("ns", since=1001, upto=1002)] == [1002, 1001]
    assert store.get_activation("ns", f"{3:032x}")["name"] == "odd"
    with pytest.raises(NotFoundError, match="no activation"):
        store.get_activation("other", f"{3:032x}")


def test_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "store.sqlite"
    first = Store(path)
    first.put("ns", "a", {"x": 1}, overwrite=False)
    first.close()
    second = Store(path)
    assert second.get("ns", "a")[0] == {"x": 1}
    second.close()


def test_refuses_what_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.write_bytes(b"this is not a database, " * 100)
    with pytest.raises(StoreError, match=r"store\.sqlite"):
        Store(path)


def test_refuses_a_newer_format(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    Store(path).close()
    db = sqlite3.connect(path)
    db.execute("pragma user_version=99")
    db.close()
    with pytest.raises(StoreError, match="newer scad"):
        Store(path)


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    with pytest.raises(KeyError):
        store.put_activation("ns", {"activationId": "x"})
    assert store.list_activations("ns") == []
    store.put("ns", "still-works", {}, overwrite=False)


def test_many_threads(store: Store) -> None:
    def work(thread: int) -> None:
        for number in range(20):
            store.put("ns", f"{thread}-{number}", {}, overwrite=False)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.count("ns") == 80


def test_key_is_generated_once_and_kept_private(store: Store, tmp_path: Path) -> None:
    key = ensure_key(store, tmp_path)
    assert key is not None
    assert ensure_key(store, tmp_path) is None
    file = tmp_path / "auth"
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_key(tmp_path) == key
    user, _, secret = key.partition(":")
    assert store.authenticate(user, secret) == "guest"
    assert store.authenticate(user, secret + "x") is None
    assert store.authenticate("nobody", secret) is None


def test_the_environment_names_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SCAD_AUTH", "u:k")
    assert read_key(tmp_path) == "u:k"
    monkeypatch.delenv("SCAD_AUTH")
    assert read_key(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Basic dTpr", ("u", "k")),
        ("basic dTpr", ("u", "k")),
        ("Basic dTprOmw=", ("u", "k:l")),
        (None, None),
        ("Bearer dTpr", None),
        ("Basic !!", None),
        ("Basic dQ==", None),
        ("Basic /w==", None),
    ],
)
def test_basic_credentials(header: str | None, expected: tuple[str, str] | None) -> None:
    assert basic_credentials(header) == expected
