"""The Resource of the API: routing, authorization, dispatch to a handler, and error responses.

A client that disconnects cancels the handler's coroutine wherever it waits; its ``finally`` blocks
free what the handler holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from twisted_registry.api import (
    blobs,
    catalog,
    extensions,
    manifests,
    referrers,
    routes,
    tags,
    uploads,
)
from twisted_registry.api.audit import run_audited
from twisted_registry.api.context import (
    EMPTY_QUERY,
    APISettings,
    Query,
    RequestContext,
    get_caller,
    get_header_fields,
    header,
    name_invalid,
    validate_name,
)
from twisted_registry.api.request_log import RequestLog, status_of_unanswered
from twisted_registry.api.response import AsyncResource, CommonHeaders, Response, send_response
from twisted_registry.http.interfaces import BodyAborted
from twisted_registry.http.redaction import describe_request
from twisted_registry.http.request_id import get_request_id
from twisted_registry.metrics.interfaces import FinishedRequest
from twisted_registry.oci.errors import (
    ErrorCode,
    RegistryError,
    insufficient_storage,
    method_not_allowed,
)
from twisted_registry.oci.names import NameInvalid, check_new_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from twisted.internet.interfaces import IReactorTime
    from twisted.web.server import Request

    from twisted_registry.auth.audit import IAuditLog
    from twisted_registry.auth.interfaces import Access, Caller, IAccessController, IGrant
    from twisted_registry.metrics.interfaces import IMetricsObserver
    from twisted_registry.repository.registry import Registry

log = Logger()

_PUSH_METHODS = frozenset({"POST", "PUT", "PATCH"})
_COMMON_HEADERS = {
    "Docker-Distribution-Api-Version": ("registry/2.0",),
    # Clients choose the stored content and its media type: a browser must not run it.
    "X-Content-Type-Options": ("nosniff",),
    "Content-Security-Policy": ("default-src 'none'; sandbox",),
}


async def get_base(context: RequestContext) -> Response:  # noqa: ARG001
    """Answer the version check (end-1)."""
    return Response.json({})


HANDLERS: Mapping[tuple[str, str], Callable[[RequestContext], Awaitable[Response]]] = {
    ("base", "GET"): get_base,
    ("extensions", "GET"): extensions.get,
    ("catalog", "GET"): catalog.get,
    ("tags", "GET"): tags.get,
    ("manifest", "GET"): manifests.get,
    ("manifest", "PUT"): manifests.put,
    ("manifest", "DELETE"): manifests.delete,
    ("blob", "GET"): blobs.get,
    ("blob", "DELETE"): blobs.delete,
    ("blob_upload", "POST"): uploads.post,
    ("blob_upload_chunk", "GET"): uploads.get,
    ("blob_upload_chunk", "PATCH"): uploads.patch,
    ("blob_upload_chunk", "PUT"): uploads.put,
    ("blob_upload_chunk", "DELETE"): uploads.delete,
    ("referrers", "GET"): referrers.get,
    ("repository", "DELETE"): extensions.delete,
}


class RegistryResource(AsyncResource):
    """The API, to be mounted as ``v2``.

    :param access: authorizes each request before its body is read.
    :param clock: times requests and idle bodies.
    :param metrics: receives the start and the end of every request.
    :param audit: receives an entry for each push and delete; None for no audit log.
    :param request_log: logs requests; by default only those that fail.
    :param wait_for_events: called before the response to a request that may have changed something;
        returns what to wait for, or None.
    """

    isLeaf = True

    def __init__(
        self,
        registry: Registry,
        access: IAccessController,
        clock: IReactorTime,
        settings: APISettings | None = None,
        metrics: IMetricsObserver | None = None,
        audit: IAuditLog | None = None,
        wait_for_events: Callable[[], Awaitable[None] | None] | None = None,
        request_log: RequestLog | None = None,
    ) -> None:
        super().__init__()
        self._registry = registry
        self._access = access
        self._clock = clock
        self._settings = settings or APISettings()
        self._metrics = metrics
        self._audit = audit
        self._wait_for_events = wait_for_events
        self._request_log = RequestLog() if request_log is None else request_log
        self._methods = self._find_methods()
        self._warnings: Mapping[str, Sequence[str]] = {}
        self._common = self._make_common_headers(self._warnings)
        self._storage_full = False

    @property
    def settings(self) -> APISettings:
        """The settings in use."""
        return self._settings

    def use_access(self, access: IAccessController) -> None:
        """Authorize further requests with another controller."""
        self._access = access

    def use_settings(self, settings: APISettings) -> None:
        """Answer further requests with other settings."""
        self._settings = settings
        self._methods = self._find_methods()
        self._common = self._make_common_headers(self._warnings)

    def set_storage_state(self, warning: str, *, full: bool) -> None:
        """Set the warning in every response, and whether pushes are refused.

        :param warning: a message for people, for the Warning header of the distribution
            specification ("Warnings"); empty for none.
        :param full: whether POST, PUT and PATCH are answered 507. Started uploads are kept.
        """
        self._warnings = {"Warning": (f'299 - "{warning}"',)} if warning else {}
        self._common = self._make_common_headers(self._warnings)
        self._storage_full = full

    def _make_common_headers(self, more: Mapping[str, Sequence[str]]) -> CommonHeaders:
        """Make the headers of every response; those of the configuration replace the defaults."""
        configured = self._settings.headers
        names = {name.lower() for name in configured}
        defaults = {
            name: values for name, values in _COMMON_HEADERS.items() if name.lower() not in names
        }
        return CommonHeaders({**defaults, **configured, **more})

    async def respond(self, request: Request) -> None:
        """Send the response, log the request, and report it to the observer of metrics."""
        route = routes.find_route(tuple(request.postpath or ()))
        started = self._clock.seconds()
        handler = "unknown" if route is None else route.endpoint.handler
        if self._metrics is not None:
            self._metrics.request_started(handler)
        response = None
        complete = False
        try:
            response = await self._response_for(request, route)
            await send_response(response, request, self._common)
            complete = True
        finally:
            seconds = self._clock.seconds() - started
            self._request_log.request_ended(request, route, response, seconds, complete=complete)
            if self._metrics is not None:
                self._metrics.request_finished(
                    FinishedRequest(
                        handler,
                        request.method.decode("ascii", "replace"),
                        status_of_unanswered(request) if response is None else response.status,
                        seconds,
                        request.sentLength,
                        _received_bytes(request),
                    )
                )

    async def _response_for(self, request: Request, route: routes.RouteMatch | None) -> Response:
        """Return the response of the handler, or of the error that it raised."""
        try:
            return await self._call_handler(request, route)
        except RegistryError as raised:
            error = raised
        except CancelledError:
            raise
        except BodyAborted as raised:
            if request.channel is None:
                # The client has left: its disconnect has cancelled the handler's read of the body.
                raise CancelledError from raised
            error = RegistryError(
                ErrorCode.SIZE_INVALID, message="the body is incomplete", detail=str(raised)
            )
        except Exception:  # noqa: BLE001 - the client gets a response to any error
            log.failure("{request} failed", request=describe_request(request))
            # Clients show the message, and none of them shows headers.
            message = f"unknown error, request ID {get_request_id(request)}"
            error = RegistryError(ErrorCode.UNKNOWN, message=message)
        if error.limit and self._metrics is not None:
            self._metrics.limit_hit(error.limit)
        return Response.from_error(error)

    async def _call_handler(self, request: Request, route: routes.RouteMatch | None) -> Response:
        method = request.method.decode("ascii", "replace")
        if route is None:
            raise RegistryError(ErrorCode.UNSUPPORTED, message="no such endpoint", status=404)
        if not route.name_is_valid:
            validate_name(route.name)
        methods = self._methods[route.endpoint.handler]
        if method == "OPTIONS":
            return self._respond_to_options(request, methods)
        if method not in methods:
            disabled = method in route.endpoint.methods
            detail = "disabled by the configuration" if disabled else None
            raise method_not_allowed(*methods, "OPTIONS", detail=detail)
        target = request.uri
        query = Query.parse(target.partition(b"?")[2]) if b"?" in target else EMPTY_QUERY
        source = None
        if route.endpoint.handler == "blob_upload":
            source = query.first("from") or None
        if source is not None:
            validate_name(source)
        header_fields = get_header_fields(request)
        caller = get_caller(request, header_fields)
        if source is None:
            # Not by _authorize: this is the fast path of every pull.
            decision = self._access.authorize(caller, route.required_access(method))
            grant = await decision if hasattr(decision, "__await__") else decision
        else:
            grant = await self._authorize_mount(caller, route, method, source)
        request.user = grant.user.encode()  # twisted.web's access log prints it
        if method in _PUSH_METHODS:
            await self._check_may_push(route.name)
        context = RequestContext(
            request,
            method,
            route,
            query,
            header_fields,
            caller,
            grant,
            self._registry,
            self._settings,
            self._clock,
        )
        handler = HANDLERS[route.endpoint.handler, "GET" if method == "HEAD" else method]
        if method in routes.WRITE_METHODS:
            return await self._write(handler, context)
        return await handler(context)

    async def _write(
        self, handler: Callable[[RequestContext], Awaitable[Response]], context: RequestContext
    ) -> Response:
        """Return the response to a request that may change something, once that is recorded."""
        if self._audit is None:
            response = await handler(context)
        else:
            response = await run_audited(self._audit, handler, context)
        waiting = None if self._wait_for_events is None else self._wait_for_events()
        if waiting is not None:
            await waiting
        return response

    async def _check_may_push(self, name: str) -> None:
        """Check that the store has space, and that a new repository has a permitted name.

        :raises RegistryError: 507, or NAME_INVALID.
        """
        if self._storage_full:
            raise insufficient_storage()
        try:
            check_new_name(name)
        except NameInvalid as error:
            if not await self._registry.repository(name).exists():
                raise name_invalid(name, error) from error

    async def _authorize(self, caller: Caller, accesses: Sequence[Access]) -> IGrant:
        decision = self._access.authorize(caller, accesses)
        return await decision if hasattr(decision, "__await__") else decision

    async def _authorize_mount(
        self, caller: Caller, route: routes.RouteMatch, method: str, source: str
    ) -> IGrant:
        """Authorize a request to mount a blob of another repository.

        A caller who may push, but not pull from the source of a mount, starts an upload instead,
        and learns nothing about the source. An authenticated caller whose token does not cover the
        source is challenged for a wider token.
        """
        try:
            return await self._authorize(caller, route.required_access(method, source))
        except RegistryError as refusal:
            try:
                grant = await self._authorize(caller, route.required_access(method))
            except RegistryError:
                raise refusal from None
            if refusal.code is ErrorCode.UNAUTHORIZED and grant.user:
                raise
            return grant

    def _find_methods(self) -> dict[str, tuple[str, ...]]:
        """Return the allowed methods of each endpoint."""
        return {
            endpoint.handler: self._allowed_methods(endpoint) for endpoint in routes.ALL_ENDPOINTS
        }

    def _allowed_methods(self, endpoint: routes.Endpoint) -> tuple[str, ...]:
        """Return the methods of an endpoint that the settings allow."""
        settings = self._settings
        return tuple(
            method
            for method, actions in endpoint.actions.items()
            if not (settings.read_only and method in routes.WRITE_METHODS)
            and (settings.delete or "delete" not in actions)
        )

    def _respond_to_options(self, request: Request, methods: Sequence[str]) -> Response:
        """Answer OPTIONS, also as a CORS preflight request of a browser (Fetch standard).

        ``http.headers`` of the configuration is part of every response. The allowed methods are
        added if it allows an origin, and does not set them.
        """
        allow = ", ".join((*methods, "OPTIONS"))
        headers = [("Allow", allow)]
        names = {name.lower() for name in self._settings.headers}
        if (
            header(request, "access-control-request-method")
            and "access-control-allow-origin" in names
            and "access-control-allow-methods" not in names
        ):
            headers.append(("Access-Control-Allow-Methods", allow))
        return Response(204, headers)


def _received_bytes(request: Request) -> int:
    """Return how many bytes of the body of a request were received."""
    received: int | None = getattr(request, "received_bytes", None)
    if received is not None:
        return received
    # twisted.web has buffered the body, and may have closed the buffer.
    length = get_header_fields(request).get(b"content-length", b"")
    return int(length) if length.isdigit() else 0
