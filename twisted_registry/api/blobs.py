"""``/v2/<name>/blobs/<digest>``: end-2 and end-10."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from twisted_registry.api.preconditions import etag_matches, parse_entity_tags
from twisted_registry.api.ranges import RangeUnsatisfiable, parse_range
from twisted_registry.api.response import Response, encode_headers
from twisted_registry.oci.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from twisted_registry.api.context import RequestContext
    from twisted_registry.api.ranges import ByteRange
    from twisted_registry.oci.digest import Digest

#: Fields of a request that want something else than the whole.
_CONDITIONAL_HEADERS = frozenset({b"if-none-match", b"range", b"if-range"})
#: How many of :func:`_blob_headers` belong to answers that do not send it as well.
_BODILESS_HEADER_COUNT = 3


async def get(context: RequestContext) -> Response:
    """Send a blob or a part of it; a redirect if the store has a URL for it.

    :raises RegistryError: BLOB_UNKNOWN, RANGE_INVALID.
    """
    digest = context.digest()
    blobs = context.repository.blobs
    fields, ready = _blob_headers(digest)
    redirects = context.settings.redirect and blobs.has_urls
    if (
        context.method == "GET"
        and not redirects
        and _CONDITIONAL_HEADERS.isdisjoint(context.header_fields)
    ):
        return Response(200, fields, await blobs.open_whole(digest), ready=ready)
    # Who asks by HEAD may leave out a push.
    size = await (blobs.size if context.method == "HEAD" else blobs.size_for_pull)(digest)
    if etag_matches(context.headers("if-none-match"), str(digest)):
        return Response(304, fields[:_BODILESS_HEADER_COUNT])
    if redirects:
        url = await blobs.url(digest, context.method, context.caller.address)
        if url is not None:
            return Response(307, [*fields[:_BODILESS_HEADER_COUNT], ("Location", url)])
    byte_range = _requested_range(context, digest, size)
    if byte_range is None:
        status, offset, length = 200, 0, size
    else:
        status, offset, length = 206, byte_range.offset, byte_range.length
        fields = (*fields, ("Content-Range", byte_range.content_range(size)))
    if context.method == "HEAD":
        return Response(status, fields, length=length)
    if byte_range is None:
        return Response(status, fields, await blobs.open_whole(digest), ready=ready)
    return Response(status, fields, await blobs.open(digest, offset, length))


@lru_cache(maxsize=4096)
def _blob_headers(digest: Digest) -> tuple[tuple[tuple[str, str], ...], bytes]:
    """What is said of a blob: the first few always, all where its bytes may follow."""
    fields = (
        ("Docker-Content-Digest", str(digest)),
        ("ETag", f'"{digest}"'),
        ("Cache-Control", "max-age=31536000"),
        ("Accept-Ranges", "bytes"),
        ("Content-Type", "application/octet-stream"),
    )
    return fields, encode_headers(fields)


async def delete(context: RequestContext) -> Response:
    """Let the repository no longer hold a blob.

    :raises RegistryError: BLOB_UNKNOWN.
    """
    digest = context.digest()
    await context.repository.blobs.delete(digest)
    return Response(202, [("Docker-Content-Digest", str(digest))])


def _requested_range(context: RequestContext, digest: Digest, size: int) -> ByteRange | None:
    condition = context.header("if-range")
    if condition is not None and str(digest) not in parse_entity_tags([condition]):
        return None
    try:
        return parse_range(context.header("range"), size)
    except RangeUnsatisfiable:
        raise RegistryError(
            ErrorCode.RANGE_INVALID,
            detail={"size": size},
            headers=(("Content-Range", f"bytes */{size}"), ("Accept-Ranges", "bytes")),
        ) from None
