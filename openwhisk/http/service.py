"""Routes of the REST service.

Handlers are thin: they parse, call the control plane or the store, and put the answer into
OpenWhisk's form. Calls that may wait run in threads; waiting for an activation to finish does not
hold one (`Waiters`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from libd.errors import ScadError
from openwhisk.api import Activation
from openwhisk.app.model import Application
from openwhisk.control import EmbeddedControlPlane
from openwhisk.errors import AlreadyExistsError, NotFoundError, OpenWhiskError
from openwhisk.http import entities, records
from openwhisk.http.auth import basic_credentials
from openwhisk.http.errors import HANDLERS, ApiError
from openwhisk.http.requests import flag, integer, page, read_json
from openwhisk.http.waiters import Waiters
from openwhisk.store import Store

__all__ = ["Service", "create_app"]

BLOCKING_MAX_MS = 60_000
API = "/api/v1"
_LOG = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


class Service:
    """What the routes need: the control plane, the store, and who may come in.

    Activations that have ended are written to the store by a thread of the service's own: the
    control plane tells of them on its thread, which must not wait for a disk. `close` writes the
    rest.
    """

    def __init__(self, plane: EmbeddedControlPlane, store: Store) -> None:
        self.plane = plane
        self.store = store
        self.waiters = Waiters()
        self._ended: SimpleQueue[tuple[Activation, str] | threading.Event | None] = SimpleQueue()
        self._changing = threading.Lock()
        self._writer = threading.Thread(target=self._write, name="scad-store", daemon=True)
        self._writer.start()

    def finished(self, activation: Activation, namespace: str) -> None:
        """Take note of an activation that has ended and wake whoever waits for it; any thread."""
        self._ended.put((activation, namespace))
        self.waiters.finished(activation.activation_id)

    def _write(self) -> None:
        while (item := self._ended.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            activation, namespace = item
            try:
                record = records.to_json(activation, namespace=namespace)
                self.store.put_activation(namespace, record)
            except Exception:
                _LOG.exception("activation %s was not stored", activation.activation_id)

    def flush(self) -> None:
        """Return when every activation that anybody has seen end is in the store."""
        # A record can be read a moment before the control plane tells of it.
        self.plane.settle()
        written = threading.Event()
        self._ended.put(written)
        while not written.wait(1.0) and self._writer.is_alive():
            pass

    def close(self) -> None:
        """Write what is still to be written."""
        self._ended.put(None)
        self._writer.join()

    def namespace(self, request: Request) -> str:
        """The caller's namespace.

        Raises
        ------
        ApiError
            401 without valid credentials, 403 for somebody else's namespace.
        """
        credentials = basic_credentials(request.headers.get("authorization"))
        own = None if credentials is None else self.store.authenticate(*credentials)
        if own is None:
            raise ApiError(401, "authentication failed: send Basic authentication with uuid:key")
        asked = request.path_params.get("namespace", "_")
        if asked not in ("_", own):
            raise ApiError(403, f"these credentials do not open namespace {asked!r}")
        return own

    def put(
        self,
        namespace: str,
        name: str,
        application: Application,
        body: Mapping[str, Any],
        *,
        overwrite: bool,
    ) -> str:
        """Give an entity to the control plane, which may refuse it, then to the store; return its
        version.
        """
        with self._changing:
            if not overwrite and self.store.has(namespace, name):
                raise AlreadyExistsError(
                    f"{name!r} already exists; add overwrite=true to replace it"
                )
            self.install(application, body)
            return self.store.put(namespace, name, body, overwrite=True)

    def delete(self, namespace: str, name: str) -> dict[str, Any]:
        """Remove an entity; return its body."""
        with self._changing:
            body = self.store.delete(namespace, name)
            with suppress(NotFoundError):  # it could not be read when the service started
                self.plane.delete_application(name)
            return body

    def install(self, application: Application, body: Mapping[str, Any]) -> None:
        """Give an entity to the control plane, replacing what had its name."""
        put = self.plane.put_action if entities.is_plain(body) else self.plane.put_application
        put(application, overwrite=True)

    # Applications and actions

    async def info(self, request: Request) -> Response:
        about = {
            "description": "Scad's OpenWhisk",
            "api_paths": [API],
            "version": version("scad"),
        }
        return JSONResponse(about)

    async def cluster(self, request: Request) -> Response:
        self.namespace(request)
        return JSONResponse(entities.builtins(await call(self.plane.info)))

    async def namespaces(self, request: Request) -> Response:
        return JSONResponse([self.namespace(request)])

    async def put_action(self, request: Request) -> Response:
        namespace, name = self.namespace(request), request.path_params["name"]
        body = await read_json(request)
        overwrite = flag(request, "overwrite")
        application = entities.parse(name, body)
        version = await call(self.put, namespace, name, application, body, overwrite=overwrite)
        return JSONResponse(entities.describe(namespace, name, body, version))

    async def get_action(self, request: Request) -> Response:
        namespace, name = self.namespace(request), request.path_params["name"]
        body, version, updated = await call(self.store.get, namespace, name)
        if request.query_params.get("code") == "false":
            body = entities.without_code(body)
        return JSONResponse(entities.describe(namespace, name, body, version, updated))

    async def list_actions(self, request: Request) -> Response:
        namespace = self.namespace(request)
        if flag(request, "count"):
            return JSONResponse({"actions": await call(self.store.count, namespace)})
        limit, skip = page(request)
        found = await call(self.store.list_entities, namespace, limit=limit, skip=skip)
        return JSONResponse(
            [
                entities.describe(namespace, name, entities.without_code(body), version, updated)
                for name, body, version, updated in found
            ]
        )

    async def delete_action(self, request: Request) -> Response:
        namespace, name = self.namespace(request), request.path_params["name"]
        body = await call(self.delete, namespace, name)
        return JSONResponse(entities.describe(namespace, name, body, "0.0.1"))

    async def invoke(self, request: Request) -> Response:
        namespace, name = self.namespace(request), request.path_params["name"]
        body, _, _ = await call(self.store.get, namespace, name)
        payload = await read_json(request, default={})
        query = request.query_params
        activation_id = await call(
            self.plane.invoke,
            name,
            {**entities.parameters(body), **payload},
            session=query.get("session"),
            transport=query.get("transport", "auto"),
        )
        headers = {"x-openwhisk-activation-id": activation_id}
        finished = None
        if flag(request, "blocking"):
            wait_ms = min(integer(request, "timeout", BLOCKING_MAX_MS), BLOCKING_MAX_MS)
            finished = await self.wait(activation_id, wait_ms / 1000)
        if finished is None:
            return JSONResponse({"activationId": activation_id}, 202, headers)
        record = records.to_json(finished, namespace=namespace)
        status = 200 if record["response"]["success"] else 502
        answer = record["response"]["result"] if flag(request, "result") else record
        return JSONResponse(answer, status, headers)

    async def wait(self, activation_id: str, seconds: float) -> Activation | None:
        """The activation once it has ended, or None after `seconds`."""
        event = self.waiters.register(activation_id)
        try:
            activation = await call(self.plane.activation, activation_id)
            if activation.end is not None:
                return activation
            try:
                await asyncio.wait_for(event.wait(), seconds)
            except TimeoutError:
                return None
            activation = await call(self.plane.activation, activation_id)
            return None if activation.end is None else activation  # None: the service stops
        finally:
            self.waiters.forget(activation_id, event)

    # Activations

    async def record(self, request: Request) -> dict[str, Any]:
        """The record that the path names, running or stored."""
        namespace, activation_id = self.namespace(request), request.path_params["id"]
        try:
            activation = await call(self.plane.activation, activation_id)
        except OpenWhiskError:
            record = await call(self.store.get_activation, namespace, activation_id)
        else:
            record = records.to_json(activation, namespace=namespace)
        return record

    async def get_activation(self, request: Request) -> Response:
        if (wait_ms := integer(request, "wait", 0)) > 0:
            self.namespace(request)
            # An activation that is not running here any more has a stored record, which answers.
            with suppress(OpenWhiskError):
                await self.wait(request.path_params["id"], min(wait_ms, BLOCKING_MAX_MS) / 1000)
        return JSONResponse(await self.record(request))

    async def get_logs(self, request: Request) -> Response:
        return JSONResponse({"logs": (await self.record(request))["logs"]})

    async def get_result(self, request: Request) -> Response:
        record = await self.record(request)
        if "response" not in record:
            raise ApiError(404, f"activation {record['activationId']!r} has not ended yet")
        response = record["response"]
        return JSONResponse({key: response[key] for key in ("result", "status", "success")})

    async def list_activations(self, request: Request) -> Response:
        namespace = self.namespace(request)
        limit, skip = page(request)
        query = request.query_params
        await call(self.flush)
        found = await call(
            self.store.list_activations,
            namespace,
            name=query.get("name"),
            since=integer(request, "since"),
            upto=integer(request, "upto"),
            limit=limit,
            skip=skip,
        )
        if not flag(request, "docs"):
            dropped = ("logs", "response", "elements", "usage")
            found = [{k: v for k, v in record.items() if k not in dropped} for record in found]
        return JSONResponse(found)

    async def cancel(self, request: Request) -> Response:
        self.namespace(request)
        await call(self.plane.cancel, request.path_params["id"])
        return Response(status_code=204)

    # Sessions

    async def open_session(self, request: Request) -> Response:
        self.namespace(request)
        body = await read_json(request, default={})
        lease = body.get("lease", 60.0)
        if not isinstance(lease, int | float) or not 0 < lease <= 86_400:
            raise ApiError(400, f"lease must be a number of seconds up to 86400, not {lease!r}")
        info = await call(self.plane.open_session, body.get("name"), lease)
        return JSONResponse(entities.builtins(info))

    async def renew_session(self, request: Request) -> Response:
        self.namespace(request)
        await call(self.plane.renew_session, request.path_params["session"])
        return Response(status_code=204)

    async def close_session(self, request: Request) -> Response:
        self.namespace(request)
        await call(self.plane.close_session, request.path_params["session"])
        return Response(status_code=204)

    async def grant(self, request: Request) -> Response:
        self.namespace(request)
        path = request.path_params
        transport = request.query_params.get("transport", "auto")
        durl = await call(self.plane.grant, path["session"], path["id"], path["element"], transport)
        return JSONResponse({"durl": durl}, headers={"Cache-Control": "no-store"})

    async def release(self, request: Request) -> Response:
        self.namespace(request)
        path = request.path_params
        await call(self.plane.release, path["session"], path["id"], path["element"])
        return Response(status_code=204)


async def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking call in a thread."""
    return await anyio.to_thread.run_sync(lambda: function(*args, **kwargs))


def create_app(service: Service) -> Starlette:
    """The ASGI application; start it with uvicorn."""
    actions = f"{API}/namespaces/{{namespace}}/actions"
    activations = f"{API}/namespaces/{{namespace}}/activations"
    sessions = f"{API}/namespaces/{{namespace}}/sessions"
    element = f"{sessions}/{{session}}/activations/{{id}}/elements/{{element}}"
    routes = [
        Route("/", service.info),
        Route(API, service.info),
        Route(f"{API}/cluster", service.cluster),
        Route(f"{API}/namespaces", service.namespaces),
        Route(actions, service.list_actions),
        Route(f"{actions}/{{name}}", service.put_action, methods=["PUT"]),
        Route(f"{actions}/{{name}}", service.get_action, methods=["GET"]),
        Route(f"{actions}/{{name}}", service.invoke, methods=["POST"]),
        Route(f"{actions}/{{name}}", service.delete_action, methods=["DELETE"]),
        Route(activations, service.list_activations),
        Route(f"{activations}/{{id}}", service.get_activation, methods=["GET"]),
        Route(f"{activations}/{{id}}", service.cancel, methods=["DELETE"]),
        Route(f"{activations}/{{id}}/logs", service.get_logs),
        Route(f"{activations}/{{id}}/result", service.get_result),
        Route(sessions, service.open_session, methods=["POST"]),
        Route(f"{sessions}/{{session}}", service.renew_session, methods=["PUT"]),
        Route(f"{sessions}/{{session}}", service.close_session, methods=["DELETE"]),
        Route(element, service.grant, methods=["GET"]),
        Route(element, service.release, methods=["DELETE"]),
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.waiters.start()
        yield

    return Starlette(routes=routes, exception_handlers=HANDLERS, lifespan=lifespan)


def load(service: Service, namespace: str) -> int:
    """Give the control plane every entity that the store holds; return how many.

    One that cannot be run (an older or newer version stored it) is left out, and said so.
    """
    loaded = 0
    for name, body, _, _ in service.store.list_entities(namespace, limit=-1):
        try:
            service.install(entities.parse(name, body), body)
        except ScadError as error:
            _LOG.warning("%s is stored, but cannot be run: %s", name, error)
        else:
            loaded += 1
    return loaded
