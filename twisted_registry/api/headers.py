"""Reading request headers: whatever bytes a client sends are text in some way, never an error.

``Request.getHeader`` raises on a value that is not UTF-8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.api.interfaces import IStreamingRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.web.server import Request


def get_header_fields(request: Request) -> Mapping[bytes, bytes]:
    """The last value of each header, by its name in lower case."""
    if IStreamingRequest.providedBy(request):
        fields: Mapping[bytes, bytes] = request.headerFields
    else:
        fields = request.getAllHeaders()
    return fields


def get_header_values(request: Request, name: str) -> list[str]:
    """All values of a header, in order."""
    wanted = name.encode("ascii")
    values: Sequence[bytes] = (
        request.getHeaderValues(wanted)
        if IStreamingRequest.providedBy(request)
        else request.requestHeaders.getRawHeaders(wanted, ())
    )
    return [value.decode("utf-8", "replace") for value in values]


def header(request: Request, name: str) -> str | None:
    """The last value of a header, or None if it was not sent."""
    return decode_header(get_header_fields(request).get(name.encode("ascii")))


def decode_header(value: bytes | None) -> str | None:
    """A value that may not be there."""
    return None if value is None else value.decode("utf-8", "replace")
