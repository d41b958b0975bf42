"""The log lines of requests, with the messages and fields of Distribution.

``auth.user.name`` is in the lines of all requests with a login; Distribution has it where a request
fails. The target in ``http.request.uri`` is without secrets.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from attrs import define
from twisted.logger import Logger, LogLevel

from twisted_registry.api.context import get_caller, get_header_fields
from twisted_registry.http.redaction import redact_target
from twisted_registry.http.request_id import REQUEST_ID_FIELD, get_request_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.web.server import Request

    from twisted_registry.api.response import Response
    from twisted_registry.api.routes import RouteMatch

log = Logger()

#: The status in logs of a request whose client has left before the response began, as in nginx.
DISCONNECTED: Final = 499
_FIRST_ERROR: Final = 400
_FIRST_SERVER_ERROR: Final = 500
#: Part of normal operation: a push asks for every layer first, and a login begins with a 401.
_EXPECTED_STATUSES: Final = frozenset({401, 404})
#: Names of path variables in Distribution's logs.
_VARIABLES: Final = {"reference": "reference", "digest": "digest", "upload": "uuid"}
#: Request headers that are fields of a line, if a request has them.
_HEADERS: Final = (
    (b"content-type", "http.request.contenttype"),
    (b"host", "http.request.host"),
    (b"referer", "http.request.referer"),
)
_MICROSECOND: Final = 1e-6
_MILLISECOND: Final = 1e-3


@define(eq=False)
class RequestLog:
    """Logs requests when they end.

    Responses of the server's errors are logged at the level error, others below.

    :ivar all_requests: whether to log all requests at the level info. Otherwise those that succeed
        are not logged, and 401 and 404 are logged at the level debug.
    """

    all_requests: bool = False

    def request_ended(
        self,
        request: Request,
        route: RouteMatch | None,
        response: Response | None,
        seconds: float,
        *,
        complete: bool,
    ) -> None:
        """Log a request that has ended.

        :param response: what was sent; None if the request ended before it had one.
        :param seconds: the time that the request took.
        :param complete: whether the whole response was sent.
        """
        status = status_of_unanswered(request) if response is None else response.status
        if not self.all_requests and (response is None or response.error is None):
            return
        fields = _request_fields(request, route)
        fields["http.response.duration"] = format_seconds(seconds)
        fields["http.response.status"] = status
        fields["http.response.written"] = request.sentLength
        message = "response completed" if complete else "client disconnected"
        if response is not None:
            fields.update(_response_fields(response))
        elif status != DISCONNECTED:
            fields["err.message"] = HTTPStatus(status).phrase.lower()
        if "err.message" in fields:
            message = "response completed with error"
        log.emit(self._level(status), message, **fields)

    def _level(self, status: int) -> Any:
        if status >= _FIRST_SERVER_ERROR:
            return LogLevel.error
        if status in _EXPECTED_STATUSES and not self.all_requests:
            return LogLevel.debug
        return LogLevel.info


def status_of_unanswered(request: Request) -> int:
    """Return the status of a request that ended before the API had a response.

    :returns: that with which the HTTP engine has refused it, because its body was not valid or too
        slow; otherwise :data:`DISCONNECTED`.
    """
    code = int(request.code)
    return code if code >= _FIRST_ERROR else DISCONNECTED


def _request_fields(request: Request, route: RouteMatch | None) -> dict[str, object]:
    header_fields = get_header_fields(request)
    fields: dict[str, object] = {
        REQUEST_ID_FIELD: get_request_id(request),
        "http.request.method": request.method.decode("ascii", "replace"),
        "http.request.uri": redact_target(request.uri).decode("ascii", "backslashreplace"),
        "http.request.useragent": _decode(header_fields.get(b"user-agent", b"")),
        **get_caller(request, header_fields).log_fields,
    }
    for name, field in _HEADERS:
        if name in header_fields:
            fields[field] = _decode(header_fields[name])
    user = getattr(request, "user", b"")
    if user:
        fields["auth.user.name"] = user.decode("utf-8", "replace")
    if route is not None and route.name:
        fields["vars.name"] = route.name
        if route.endpoint.variable:
            fields[f"vars.{_VARIABLES[route.endpoint.variable]}"] = route.variable
    return fields


def _decode(value: bytes) -> str:
    # A referer is a URL, and a host of another kind is as well.
    return redact_target(value).decode("utf-8", "replace")


def _response_fields(response: Response) -> Mapping[str, object]:
    fields: dict[str, object] = {}
    for name, value in response.headers:
        if name == "Content-Type":
            fields["http.response.contenttype"] = value
    error = response.error
    if error is not None:
        fields["err.code"] = error.code.name.lower().replace("_", " ")
        fields["err.message"] = error.message or error.code.message
        if error.detail is not None:
            fields["err.detail"] = error.detail
    return fields


def format_seconds(seconds: float) -> str:
    """Return a time as Go prints a ``time.Duration``: ``1.5s``, ``8.33ms``, ``1m2s``."""
    if seconds < _MICROSECOND:
        return "0s"
    if seconds < _MILLISECOND:
        return f"{seconds * 1e6:.3f}".rstrip("0").rstrip(".") + "µs"
    if seconds < 1:
        return f"{seconds * 1e3:.6f}".rstrip("0").rstrip(".") + "ms"
    minutes, rest = divmod(seconds, 60)
    text = f"{rest:.9f}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
