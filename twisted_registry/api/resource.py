"""Log lines of requests that were refused, with the field names that Distribution's logs have.

What is not there is asked for all the time (a push looks for every layer first), and so is a
login; these go to the debug level.

The one Resource of the API: routes, asks for access, runs a handler, renders what it raises.

``render`` runs when the headers are in, before any byte of a body is taken. A client that leaves
cancels the handler, wherever it waits, and the handler's ``finally`` blocks free what it holds.
"""

from __future__ import annotations

import secrets
from itertools import count
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

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
from twisted_registry.api.context import (
    EMPTY_QUERY,
    APISettings,
    Query,
    RequestContext,
    client_address,
    get_caller,
    get_header_fields,
    header,
    validate_name,
)
from twisted_registry.api.response import CommonHeaders, Response, run_until_wait, send
from twisted_registry.http.interfaces import BodyAborted, IStreamingResource
from twisted_registry.metrics.interfaces import FinishedRequest
from twisted_registry.oci.errors import ErrorCode, RegistryError, insufficient_storage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from twisted.internet.interfaces import IReactorTime
    from twisted.web.server import Request

    from twisted_registry.api.routes import RouteMatch
    from twisted_registry.auth.interfaces import Caller, IAccessController, IGrant
    from twisted_registry.metrics.interfaces import IMetricsObserver
    from twisted_registry.repository.registry import Registry

log = Logger()

_DEBUG_STATUSES = frozenset({401, 404})


def log_error_response(request: Request, route: RouteMatch | None, error: RegistryError) -> None:
    """Note that a request was answered with an error."""
    status = error.http_status
    level = LogLevel.info
    if status >= 500:
        level = LogLevel.error
    elif status in _DEBUG_STATUSES:
        level = LogLevel.debug
    fields = {
        "http.request.method": request.method.decode("ascii", "replace"),
        "http.request.uri": request.uri.decode("ascii", "backslashreplace"),
        "http.request.remoteaddr": client_address(request),
        "http.request.useragent": header(request, "user-agent") or "",
        "http.response.status": status,
        "err.code": error.code.name.lower(),
        "err.message": error.message or error.code.message,
    }
    if error.detail is not None:
        fields["err.detail"] = str(error.detail)
    if route is not None and route.name:
        fields["vars.name"] = route.name
        if route.endpoint.variable:
            fields[f"vars.{_DISTRIBUTION_VARIABLES[route.endpoint.variable]}"] = route.variable
    log.emit(level, "response completed with error", **fields)


#: What Distribution calls the variables of a path.
_DISTRIBUTION_VARIABLES = {"reference": "reference", "digest": "digest", "upload": "uuid"}


_PUSH_METHODS = frozenset({"POST", "PUT", "PATCH"})
_COMMON_HEADERS = {"Docker-Distribution-Api-Version": ("registry/2.0",)}


async def get_base(context: RequestContext) -> Response:  # noqa: ARG001
    """Say that this is a registry (end-1)."""
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


@implementer(IStreamingResource)
class RegistryResource(Resource):
    """The API, to be mounted as ``v2`` wherever a program likes."""

    isLeaf = True

    def __init__(
        self,
        registry: Registry,
        access: IAccessController,
        clock: IReactorTime,
        settings: APISettings | None = None,
        metrics: IMetricsObserver | None = None,
    ) -> None:
        """Serve ``registry``.

        :param access: asked before each request, and before its body is taken.
        :param clock: times requests.
        :param metrics: hears of every request, if somebody measures.
        """
        super().__init__()
        self._registry = registry
        self._access = access
        self._clock = clock
        self._settings = settings or APISettings()
        self._metrics = metrics
        self._methods = {
            endpoint.handler: self._allowed_methods(endpoint) for endpoint in routes.ALL_ENDPOINTS
        }
        process = secrets.token_hex(6)
        self._request_ids = (f"{process}-{number}" for number in count())
        self._common = CommonHeaders({**_COMMON_HEADERS, **self._settings.headers})
        self._storage_full = False

    def set_storage_state(self, warning: str, *, full: bool) -> None:
        """Warn in every answer from now on, and refuse pushes or take them.

        :param warning: a sentence for people, sent as the distribution specification ("Warnings")
            has it; empty for none.
        :param full: whether POST, PUT and PATCH are answered 507. An upload stays as it is.
        """
        more = {"Warning": (f'299 - "{warning}"',)} if warning else {}
        self._common = CommonHeaders({**_COMMON_HEADERS, **self._settings.headers, **more})
        self._storage_full = full

    def render(self, request: Request) -> int:
        """Begin to answer; what has to wait goes on in a coroutine."""
        try:
            work = run_until_wait(self._respond(request))
        except Exception:  # noqa: BLE001 - the border
            self._on_response_failed(Failure(), request)
            return NOT_DONE_YET
        if work is not None:
            # The request tells of a client that leaves by failing this Deferred.
            request.notifyFinish().addErrback(lambda _: work.cancel())
            work.addErrback(self._on_response_failed, request)
        return NOT_DONE_YET

    async def _respond(self, request: Request) -> None:
        route = routes.find_route(tuple(request.postpath or ()))
        if self._metrics is None:
            await send(await self._response_for(request, route), request, self._common)
            return
        began = self._clock.seconds()
        handler = "unknown" if route is None else route.endpoint.handler
        self._metrics.request_started(handler)
        status = 499
        try:
            response = await self._response_for(request, route)
            status = response.status
            await send(response, request, self._common)
        finally:
            self._metrics.request_finished(
                FinishedRequest(
                    handler,
                    request.method.decode("ascii", "replace"),
                    status,
                    self._clock.seconds() - began,
                    request.sentLength,
                    _declared_length(get_header_fields(request)),
                )
            )

    async def _response_for(self, request: Request, route: routes.RouteMatch | None) -> Response:
        """The answer of the handler, or the one that stands for what it raised."""
        try:
            return await self._call_handler(request, route)
        except RegistryError as error:
            refusal = error
        except CancelledError:
            raise
        except BodyAborted as error:
            refusal = RegistryError(
                ErrorCode.SIZE_INVALID, message="the body did not arrive whole", detail=str(error)
            )
        except Exception:  # noqa: BLE001 - the border: whatever it was, the client gets an answer
            log.failure("{method} {uri} failed", method=request.method, uri=request.uri)
            refusal = RegistryError(ErrorCode.UNKNOWN)
        log_error_response(request, route, refusal)
        return Response.json(refusal.as_json(), refusal.http_status, refusal.headers)

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
            raise RegistryError(
                ErrorCode.UNSUPPORTED,
                detail="switched off here" if method in route.endpoint.methods else None,
                headers=(("Allow", _allow_value(methods)),),
            )
        target = request.uri
        query = Query.parse(target.partition(b"?")[2]) if b"?" in target else EMPTY_QUERY
        source = None
        if route.endpoint.handler == "blob_upload":
            source = query.first("from") or None
        if source is not None:
            validate_name(source)
        header_fields = get_header_fields(request)
        caller = get_caller(request, header_fields)
        grant = await self._authorize(caller, route, method, source)
        request.user = grant.user.encode()  # for the access log
        if self._storage_full and method in _PUSH_METHODS:
            raise insufficient_storage()
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
            self._request_ids,
        )
        handler = HANDLERS[route.endpoint.handler, "GET" if method == "HEAD" else method]
        return await handler(context)

    async def _authorize(
        self, caller: Caller, route: routes.RouteMatch, method: str, source: str | None
    ) -> IGrant:
        """What the caller may do, of what the request needs.

        Whoever may push, and not pull from the source of a mount, begins an upload instead, and
        learns nothing of the source; but a token that only lacks it is asked to be wider.
        """
        needed = route.required_access(method)
        if source is None:
            return await self._access.authorize(caller, needed)
        try:
            return await self._access.authorize(caller, route.required_access(method, source))
        except RegistryError as refusal:
            try:
                grant = await self._access.authorize(caller, needed)
            except RegistryError:
                raise refusal from None
            if refusal.code is ErrorCode.UNAUTHORIZED and grant.user:
                raise
            return grant

    def _allowed_methods(self, endpoint: routes.Endpoint) -> tuple[str, ...]:
        """The methods of an endpoint that the operator has not switched off."""
        settings = self._settings
        return tuple(
            method
            for method, actions in endpoint.actions.items()
            if not (settings.read_only and method in routes.WRITE_METHODS)
            and (settings.delete or "delete" not in actions)
        )

    def _respond_to_options(self, request: Request, methods: Sequence[str]) -> Response:
        """Answer a browser that asks beforehand (Fetch standard, CORS preflight).

        What the operator put into ``http.headers`` goes out as on every answer; the methods are
        added if an origin is allowed and nothing was said of them.
        """
        headers = [("Allow", _allow_value(methods))]
        names = {name.lower() for name in self._settings.headers}
        if (
            header(request, "access-control-request-method")
            and "access-control-allow-origin" in names
            and "access-control-allow-methods" not in names
        ):
            headers.append(("Access-Control-Allow-Methods", _allow_value(methods)))
        return Response(204, headers)

    def _on_response_failed(self, failure: Failure, request: Request) -> None:
        """The answer could not be sent to its end."""
        if not failure.check(CancelledError):
            log.warn(
                "{method} {uri}: the answer broke off: {reason}",
                method=request.method,
                uri=request.uri,
                reason=failure.getErrorMessage(),
            )
        if request.channel is not None:
            # Whoever gets less than was announced must not take it for the whole.
            request.loseConnection()


def _declared_length(header_fields: Mapping[bytes, bytes]) -> int | None:
    """How long the body of a request is, as far as its head tells."""
    length = header_fields.get(b"content-length")
    if length is None:
        return None if b"transfer-encoding" in header_fields else 0
    return int(length) if length.isdigit() else None


def _allow_value(methods: Sequence[str]) -> str:
    return ", ".join((*methods, "OPTIONS"))
