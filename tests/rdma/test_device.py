"""The devices that the other tests rely on, checked with programs of others."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

IN_GUEST = "SCAD_GUEST_OUTPUT" in os.environ
Converse = Callable[[list[str], list[str], int], tuple[str, str]]


def received(device: str) -> int | None:
    """Packets that a Soft-RoCE device has received; None for other devices."""
    path = Path(f"/sys/class/infiniband/{device}/ports/1/hw_counters/rcvd_pkts")
    return int(path.read_text()) if path.exists() else None


@pytest.mark.skipif(not IN_GUEST, reason="names and addresses are the guest's")
def test_the_guest_has_two_devices(endpoints: list[Any]) -> None:
    found = [(e.device, e.port, e.gid_index, e.address) for e in endpoints]
    assert found == [("rxe0", 1, 1, "10.20.0.1"), ("rxe1", 1, 1, "10.20.0.2")]


def test_libd_lists_the_devices(endpoints: list[Any]) -> None:
    from libd._core import rdma_devices

    found = {device["name"]: device for device in rdma_devices()}
    assert {endpoint.device for endpoint in endpoints} <= set(found)
    for endpoint in endpoints:
        assert "error" not in found[endpoint.device]
        assert found[endpoint.device]["max_qp"] > 0


def test_messages_arrive_unchanged(pair: Any, converse: Converse, free_port: int) -> None:
    first, second = pair

    def command(end: Any, *more: str) -> list[str]:
        device = ["-d", end.device, "-i", str(end.port), "-g", str(end.gid_index)]
        return ["ibv_rc_pingpong", *device, "-p", str(free_port), "-n", "100", "-c", *more]

    for said in converse(command(first), command(second, first.address), free_port):
        assert "100 iters" in said
        assert "invalid data" not in said


@pytest.mark.parametrize("program", ["ib_read_bw", "ib_write_bw", "ib_atomic_bw"])
def test_perftest_moves_data(pair: Any, converse: Converse, free_port: int, program: str) -> None:
    first, second = pair
    size = [] if program == "ib_atomic_bw" else ["-s", "65536"]

    def command(end: Any, *more: str) -> list[str]:
        device = ["-d", end.device, "-i", str(end.port), "-x", str(end.gid_index)]
        return [program, *device, "-p", str(free_port), "-n", "20", *size, *more]

    before = received(first.device)
    converse(command(first), command(second, first.address), free_port)
    if before is not None:
        assert received(first.device) >= before + 20


ATTEMPTS = 5


@pytest.mark.slow
def test_perftest_reads_all_sizes(pair: Any, converse: Converse, free_port: int) -> None:
    first, second = pair

    def command(end: Any, *more: str) -> list[str]:
        device = ["-d", end.device, "-i", str(end.port), "-x", str(end.gid_index)]
        return ["ib_read_bw", *device, "-p", str(free_port), "-n", "5", "-a", *more]

    before = received(second.device)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _, said = converse(command(first), command(second, first.address), free_port)
            break
        except AssertionError as error:  # it compares two clocks before it reports
            if "Correlation coefficient" not in str(error) or attempt == ATTEMPTS:
                raise
    sizes = [int(line.split()[0]) for line in said.splitlines() if line.split()[1:2] == ["5"]]
    assert sizes == [2**power for power in range(1, 24)], said
    if before is not None:
        assert received(second.device) >= before + 5 * sum(sizes) // 4096


def test_the_connection_manager_connects(pair: Any, converse: Converse) -> None:
    address = pair[0].address
    if address == "127.0.0.1":
        pytest.skip("the device has no IPv4 address")
    port = ["-p", "7174"]
    _, said = converse(
        ["rping", "-s", "-a", address, *port, "-C", "5"],
        ["rping", "-c", "-a", address, *port, "-C", "5", "-V", "-v"],
        0,
    )
    assert said.count("ping data") == 5


def test_pyverbs_registers_memory(pyverbs: ModuleType, pair: Any) -> None:
    from pyverbs.device import Context
    from pyverbs.enums import IBV_ACCESS_LOCAL_WRITE, IBV_ACCESS_REMOTE_READ
    from pyverbs.mr import MR
    from pyverbs.pd import PD

    for end in pair:
        with Context(name=end.device) as context, PD(context) as domain:
            with MR(domain, 4096, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ) as region:
                region.write(b"written", 7)
                assert region.read(7, 0) == b"written"
                assert region.rkey != 0


@pytest.mark.no_device
class TestWhatIsTakenForADevice:
    """The search itself, on folders like the kernel's."""

    @pytest.fixture
    def conftest(self, request: pytest.FixtureRequest) -> Any:
        [plugin] = [
            plugin
            for name, plugin in request.config.pluginmanager.list_name_plugin()
            if name.endswith("tests/rdma/conftest.py")
        ]
        return plugin

    def make(self, sysfs: Path, device: str, state: str, gids: list[tuple[str, str]]) -> None:
        port = sysfs / device / "ports" / "1"
        (port / "gids").mkdir(parents=True)
        (port / "gid_attrs" / "types").mkdir(parents=True)
        (port / "state").write_text(state)
        for number, (gid, kind) in enumerate(gids):
            (port / "gids" / str(number)).write_text(gid + "\n")
            (port / "gid_attrs" / "types" / str(number)).write_text(kind + "\n")

    def test_the_ipv4_roce_v2_gid_is_found(self, conftest: Any, tmp_path: Path) -> None:
        link_local = ("fe80:0000:0000:0000:5054:00ff:fe5c:ad01", "RoCE v2")
        ipv4 = "0000:0000:0000:0000:0000:ffff:0a14:0001"
        gids = [link_local, (ipv4, "IB/RoCE v1"), (ipv4, "RoCE v2")]
        self.make(tmp_path, "x0", "4: ACTIVE\n", gids)
        assert conftest.find_endpoints(tmp_path) == [conftest.Endpoint("x0", 1, 2, "10.20.0.1")]

    def test_infiniband_has_none(self, conftest: Any, tmp_path: Path) -> None:
        gid = ("fe80:0000:0000:0000:0002:c903:00ff:0001", "IB/RoCE v1")
        self.make(tmp_path, "ib0", "4: ACTIVE\n", [gid])
        assert conftest.find_endpoints(tmp_path) == [conftest.Endpoint("ib0", 1, 0, "127.0.0.1")]

    def test_a_port_that_is_down_is_none(self, conftest: Any, tmp_path: Path) -> None:
        self.make(tmp_path, "x0", "1: DOWN\n", [])
        assert conftest.find_endpoints(tmp_path) == []

    def test_no_subsystem(self, conftest: Any, tmp_path: Path) -> None:
        assert conftest.find_endpoints(tmp_path / "none") == []

    def test_a_missing_device_is_a_skip_or_a_failure(self, conftest: Any) -> None:
        with pytest.raises(pytest.skip.Exception, match="make test-rdma"):
            conftest.demand([], required=False)
        with pytest.raises(pytest.fail.Exception, match="SCAD_RDMA"):
            conftest.demand([], required=True)
        conftest.demand([SimpleNamespace()], required=True)
