"""Memory servers and elements for the tests of libd."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from libd import ElementGrant, LibdAction, MemoryServer, ServerControl, TenantGrant, Transport

ADMIN = "the administrator's token"


@pytest.fixture(scope="session", autouse=True)
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What other servers of this user promise while the tests run is none of their business."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIBD_LEDGER", str(tmp_path_factory.mktemp("ledger")))
        yield


@dataclass
class Stand:
    """A memory server in this process with its administrator."""

    server: MemoryServer
    control: ServerControl
    actions: list[LibdAction] = field(default_factory=list)

    def tenant(self, quota: int = 1 << 24) -> TenantGrant:
        return self.control.create_tenant(secrets.token_hex(6), quota)

    def open(self, grant: ElementGrant, kind: str) -> Transport:
        action = LibdAction("test", [grant.durl("mem", f"rdma_{kind}")])
        self.actions.append(action)
        return action.get_transport("mem", "rdma")


@pytest.fixture
def stand() -> Iterator[Stand]:
    server = MemoryServer(
        1 << 28,
        unix=f"@scad-test-{secrets.token_hex(8)}",
        admin_token=ADMIN,
        default_region=1 << 16,
    )
    control = ServerControl(server.tcp_url or "", ADMIN, unix_url=server.unix_url)
    made = Stand(server, control)
    yield made
    for action in made.actions:
        action.close()
    control.close()
    server.stop()


Maker = Callable[..., Transport]


@pytest.fixture(params=["local", "shm", "tcp"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(kind: str, stand: Stand) -> Maker:
    """Open a new memory element: ``make(size, elastic=…)``."""

    def open_one(size: int = 1 << 16, elastic: bool = False) -> Transport:
        if kind == "local":
            flag = "elastic,true;" if elastic else ""
            action = LibdAction("test", [f"mem;rdma_local;size,{size};{flag}"])
            stand.actions.append(action)
            return action.get_transport("mem", "rdma")
        tenant = stand.tenant(size)
        return stand.open(stand.control.create_element(tenant, "mem", size, elastic=elastic), kind)

    return open_one
