"""Arrow Flight over gRPC: ``do_get`` and ``do_put`` of one binary column of bytes."""

from __future__ import annotations

import struct
import threading
from typing import Any

import pyarrow as pa
from pyarrow import flight

from bench.work import SPAN, Client, Job, Work, source

_TICKET = struct.Struct("<QQ")
_SCHEMA = pa.schema([("bytes", pa.uint8())])


def batch(data: Any) -> Any:
    """A record batch over `data`, without a copy."""
    column = pa.Array.from_buffers(pa.uint8(), len(data), [None, pa.py_buffer(data)])
    return pa.record_batch([column], schema=_SCHEMA)


def content(chunk: Any) -> Any:
    """The bytes of a batch, without a copy."""
    column = chunk.column(0)
    return column.buffers()[1].slice(column.offset, len(column))


class _Service(flight.FlightServerBase):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self.memory = source(0, SPAN)
        self.kept: Any = None

    def do_get(self, context: Any, ticket: Any) -> Any:
        address, size = _TICKET.unpack(ticket.ticket)
        found = self.kept if address == SPAN else batch(self.memory[address : address + size])
        return flight.GeneratorStream(_SCHEMA, iter([found]))

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        for chunk in reader:
            self.kept = chunk.data


class Server:
    """A Flight service on a free port."""

    def __init__(self) -> None:
        self.service = _Service()
        self.address = {"port": self.service.port}
        threading.Thread(target=self.service.serve, daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self.service.shutdown()


class PeerClient(Client):
    """A Flight client; what it reads is Arrow's own buffer."""

    def __init__(self, address: dict[str, Any]) -> None:
        super().__init__(address)
        self.client = flight.FlightClient(f"grpc://127.0.0.1:{address['port']}")

    def _read(self, ticket: Any) -> Any:
        return content(self.client.do_get(ticket).read_chunk().data)

    def prepare(self, job: Job) -> Work:
        """One call after the other."""
        (slot,) = job.slots()
        address = job.addresses()[0]
        ticket = flight.Ticket(_TICKET.pack(address, job.size))
        if job.kind == "read":
            return Work(
                lambda: self._read(ticket),
                lambda: [(source(address, job.size), self._read(ticket))],
            )
        data = batch(slot)
        descriptor = flight.FlightDescriptor.for_path("bytes")

        def write() -> None:
            writer, reader = self.client.do_put(descriptor, _SCHEMA)
            with writer:
                writer.write_batch(data)
                writer.done_writing()
                reader.read()

        back = flight.Ticket(_TICKET.pack(SPAN, job.size))
        return Work(write, lambda: [(slot, self._read(back))])

    def close(self) -> None:
        """Close the channel."""
        self.client.close()
