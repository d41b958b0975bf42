"""Log lines of requests that were refused, with the field names that Distribution's logs have.

What is not there is asked for all the time (a push looks for every layer first), and so is a
login; these go to the debug level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger, LogLevel

from twisted_registry.api.headers import header
from twisted_registry.api.urls import client_address

if TYPE_CHECKING:
    from twisted.web.server import Request

    from twisted_registry.api.routes import RouteMatch
    from twisted_registry.errors import RegistryError

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
