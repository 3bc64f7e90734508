"""Entities and finished activations in SQLite.

The store keeps what must survive a restart of the stand-alone control plane: applications, plain
actions, activation records and the hash of each namespace's key. What is running lives in the
scheduler, not here.
"""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from openwhisk.errors import AlreadyExistsError, NotFoundError, OpenWhiskError

__all__ = ["Store", "StoreError"]

SCHEMA = """
create table if not exists entity (
    namespace text not null, name text not null, version text not null, body text not null, updated
    integer not null, primary key (namespace, name)
) without rowid;
create table if not exists activation (
    id text primary key, namespace text not null, name text not null, start integer not null, body
    text not null
) without rowid;
create index if not exists activation_by_start on activation (namespace, start desc);
create table if not exists subject (namespace text primary key, uuid text not null unique, key_hash
blob not null) without rowid;
"""
SCHEMA_VERSION = 1


class StoreError(OpenWhiskError):
    """The store's file cannot be used."""

    http_status = 500


def next_version(version: str) -> str:
    """OpenWhisk's semantic version with the patch number raised."""
    major, minor, patch = version.split(".")
    return f"{major}.{minor}.{int(patch) + 1}"


class Store:
    """One SQLite file, or memory where `path` is None.

    Thread-safe: one connection behind a lock, because every statement is short and SQLite has one
    writer anyway.

    Raises
    ------
    StoreError
        The file cannot be opened, is no database, or was written by a newer version.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(
                ":memory:" if path is None else path, check_same_thread=False, isolation_level=None
            )
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=normal")
            (version,) = self._db.execute("pragma user_version").fetchone()
            if version > SCHEMA_VERSION:
                self._db.close()
                raise StoreError(
                    f"{path} was written by a newer scad (format {version}, this one reads "
                    f"{SCHEMA_VERSION}); upgrade scad or name another --state directory"
                )
            self._db.executescript(SCHEMA)
            self._db.execute(f"pragma user_version={SCHEMA_VERSION}")
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"cannot use {path} as the control plane's store: {error}") from error

    def close(self) -> None:
        """Close the file; idempotent."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("begin immediate")
                yield self._db
                self._db.execute("commit")
            except sqlite3.Error as error:
                raise StoreError(f"the control plane's store cannot be written: {error}") from error
            finally:
                # Also after a commit that failed (a full disk): nothing may stay half open.
                with suppress(sqlite3.Error):
                    if self._db.in_transaction:
                        self._db.execute("rollback")

    # Entities

    def put(self, namespace: str, name: str, body: Mapping[str, Any], *, overwrite: bool) -> str:
        """Store an application or action and return its version.

        Raises
        ------
        AlreadyExistsError
            It exists and `overwrite` is false.
        """
        with self._transaction() as db:
            row = db.execute(
                "select version from entity where namespace = ? and name = ?", (namespace, name)
            ).fetchone()
            if row is not None and not overwrite:
                raise AlreadyExistsError(
                    f"{name!r} already exists; add overwrite=true to replace it"
                )
            version = "0.0.1" if row is None else next_version(row[0])
            db.execute(
                "insert or replace into entity values (?, ?, ?, ?, ?)",
                (namespace, name, version, msgspec.json.encode(body).decode(), _now_ms()),
            )
        return version

    def get(self, namespace: str, name: str) -> tuple[dict[str, Any], str, int]:
        """Body, version and time of the last update (ms since the epoch) of an entity.

        Raises
        ------
        NotFoundError
            There is none of that name.
        """
        with self._lock:
            row = self._db.execute(
                "select body, version, updated from entity where namespace = ? and name = ?",
                (namespace, name),
            ).fetchone()
        if row is None:
            raise NotFoundError(f"no application or action {name!r} in {namespace!r}")
        return msgspec.json.decode(row[0]), row[1], row[2]

    def has(self, namespace: str, name: str) -> bool:
        """Whether there is an entity of that name."""
        with self._lock:
            row = self._db.execute(
                "select 1 from entity where namespace = ? and name = ?", (namespace, name)
            ).fetchone()
        return row is not None

    def delete(self, namespace: str, name: str) -> dict[str, Any]:
        """Remove an entity and return the body that it had.

        Raises
        ------
        NotFoundError
            There is none of that name.
        """
        body, _, _ = self.get(namespace, name)
        with self._transaction() as db:
            db.execute("delete from entity where namespace = ? and name = ?", (namespace, name))
        return body

    def list_entities(
        self, namespace: str, *, limit: int = 30, skip: int = 0
    ) -> list[tuple[str, dict[str, Any], str, int]]:
        """`(name, body, version, updated)` of a namespace's entities, by name."""
        with self._lock:
            rows = self._db.execute(
                "select name, body, version, updated from entity where namespace = ? "
                "order by name limit ? offset ?",
                (namespace, limit, skip),
            ).fetchall()
        return [(n, msgspec.json.decode(b), v, u) for n, b, v, u in rows]

    def count(self, namespace: str) -> int:
        """How many entities a namespace has."""
        with self._lock:
            (count,) = self._db.execute(
                "select count(*) from entity where namespace = ?", (namespace,)
            ).fetchone()
        return int(count)

    # Activations

    def put_activation(self, namespace: str, record: Mapping[str, Any]) -> None:
        """Keep a finished activation's record (OpenWhisk's form)."""
        with self._transaction() as db:
            db.execute(
                "insert or replace into activation values (?, ?, ?, ?, ?)",
                (
                    record["activationId"],
                    namespace,
                    record["name"],
                    record["start"],
                    msgspec.json.encode(record).decode(),
                ),
            )

    def get_activation(self, namespace: str, activation_id: str) -> dict[str, Any]:
        """One record.

        Raises
        ------
        NotFoundError
            There is none of that id.
        """
        with self._lock:
            row = self._db.execute(
                "select body from activation where id = ? and namespace = ?",
                (activation_id, namespace),
            ).fetchone()
        if row is None:
            raise NotFoundError(f"no activation {activation_id!r}")
        return dict(msgspec.json.decode(row[0]))

    def list_activations(
        self,
        namespace: str,
        *,
        name: str | None = None,
        since: int | None = None,
        upto: int | None = None,
        limit: int = 30,
        skip: int = 0,
    ) -> list[dict[str, Any]]:
        """Records of a namespace, the newest first; `since` and `upto` are ms since the epoch,
        inclusive.
        """
        conditions, values = ["namespace = ?"], [namespace]
        for column, operator, value in (
            ("name", "=", name),
            ("start", ">=", since),
            ("start", "<=", upto),
        ):
            if value is not None:
                conditions.append(f"{column} {operator} ?")
                values.append(value)  # type: ignore[arg-type]
        with self._lock:
            rows = self._db.execute(
                f"select body from activation where {' and '.join(conditions)} "
                "order by start desc, id limit ? offset ?",
                (*values, limit, skip),
            ).fetchall()
        return [dict(msgspec.json.decode(body)) for (body,) in rows]

    # Subjects

    def set_key(self, namespace: str, uuid: str, key: str) -> None:
        """Make `uuid:key` the namespace's credentials; only a hash of the key is kept."""
        with self._transaction() as db:
            db.execute(
                "insert or replace into subject values (?, ?, ?)", (namespace, uuid, _hash(key))
            )

    def namespaces(self) -> list[str]:
        """Namespaces that have credentials."""
        with self._lock:
            rows = self._db.execute("select namespace from subject order by namespace").fetchall()
        return [namespace for (namespace,) in rows]

    def authenticate(self, uuid: str, key: str) -> str | None:
        """The namespace that `uuid:key` opens, or None."""
        with self._lock:
            row = self._db.execute(
                "select namespace, key_hash from subject where uuid = ?", (uuid,)
            ).fetchone()
        if row is None or not hmac.compare_digest(row[1], _hash(key)):
            return None
        return str(row[0])


def _hash(key: str) -> bytes:
    # Keys are 64 random characters, not passwords: a fast hash is enough against a stolen file.
    return hashlib.sha256(key.encode()).digest()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
