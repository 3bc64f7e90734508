"""Basic authentication, and the file in which the generated key lies for clients of the same
user.
"""

from __future__ import annotations

import base64
import os
import secrets
import uuid
from pathlib import Path

from openwhisk.store import Store

__all__ = ["DEFAULT_NAMESPACE", "basic_credentials", "ensure_key", "read_key", "state_directory"]

DEFAULT_NAMESPACE = "guest"


def state_directory() -> Path:
    """Where the stand-alone control plane keeps its store and key: `$XDG_STATE_HOME/scad`, else
    `~/.local/state/scad`.
    """
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "scad"


def read_key(state: Path | None = None) -> str | None:
    """`uuid:key` for a client: `$SCAD_AUTH`, else what the server of this user stored, else
    None.
    """
    if given := os.environ.get("SCAD_AUTH"):
        return given
    try:
        return ((state or state_directory()) / "auth").read_text().strip()
    except OSError:
        return None


def ensure_key(store: Store, state: Path) -> str | None:
    """Generate and store credentials on the first start.

    Returns
    -------
    str or None
        The new `uuid:key`, to be shown once; None where the store has credentials already.
    """
    if DEFAULT_NAMESPACE in store.namespaces():
        return None
    user, key = str(uuid.uuid4()), secrets.token_urlsafe(48)
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = state / "auth"
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{user}:{key}\n")
    store.set_key(DEFAULT_NAMESPACE, user, key)
    return f"{user}:{key}"


def basic_credentials(header: str | None) -> tuple[str, str] | None:
    """User and key of an `Authorization` header, or None if it is no valid Basic one."""
    if header is None or not header.lower().startswith("basic "):
        return None
    try:
        user, colon, key = base64.b64decode(header[6:], validate=True).decode().partition(":")
    except ValueError:  # not base64, or not text
        return None
    return (user, key) if colon else None
