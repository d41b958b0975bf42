"""``/v2/<name>/blobs/<digest>``: end-2 and end-10 of the distribution specification."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from twisted_registry.api.preconditions import (
    RangeUnsatisfiable,
    etag_matches,
    parse_entity_tags,
    parse_range,
)
from twisted_registry.api.response import EncodedHeaders, Response
from twisted_registry.oci.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_registry.api.context import RequestContext
    from twisted_registry.api.preconditions import ByteRange
    from twisted_registry.oci.digest import Digest

#: Request headers that may ask for something else than the whole blob.
_CONDITIONAL_HEADERS = frozenset({b"if-none-match", b"range", b"if-range"})

#: Blobs whose headers are cached.
_MAX_CACHED_HEADERS = 1024


async def get(context: RequestContext) -> Response:
    """Send a blob or a part of it, or redirect to the store if it has a URL for the blob.

    :raises RegistryError: BLOB_UNKNOWN, RANGE_INVALID.
    """
    digest = context.digest()
    blobs = context.repository.blobs
    redirects = context.settings.redirect and blobs.has_urls
    if (
        context.method == "GET"
        and not redirects
        and _CONDITIONAL_HEADERS.isdisjoint(context.header_fields)
    ):
        return Response(200, _content_headers(digest), await blobs.open_whole(digest))
    # A client that sends HEAD may skip a push of a blob that is present.
    size = await blobs.size(digest, for_pull=context.method != "HEAD")
    known_tags = context.header_values("if-none-match")
    if known_tags and etag_matches(known_tags, str(digest)):
        return Response(304, _digest_headers(digest))
    if redirects:
        url = await blobs.url(digest, context.method, context.caller.address, size=size)
        if url is not None:
            return Response(307, _redirect_headers(digest, url))
    headers: Sequence[tuple[str, str]] = _content_headers(digest)
    byte_range = _requested_range(context, digest, size)
    if byte_range is None:
        status, offset, length = 200, 0, size
    else:
        status, offset, length = 206, byte_range.offset, byte_range.length
        headers = (*headers, ("Content-Range", byte_range.content_range(size)))
    if context.method == "HEAD":
        return Response(status, headers, length=length)
    if byte_range is None:
        return Response(status, headers, await blobs.open_whole(digest))
    return Response(status, headers, await blobs.open(digest, offset, length))


async def delete(context: RequestContext) -> Response:
    """Remove a blob from the repository.

    :raises RegistryError: BLOB_UNKNOWN.
    """
    digest = context.digest()
    await context.repository.blobs.delete(digest)
    return Response(202, [("Docker-Content-Digest", str(digest))])


def _digest_headers(digest: Digest) -> tuple[tuple[str, str], ...]:
    """Return the headers of every response about a blob but redirects."""
    text = str(digest)
    return (
        ("Docker-Content-Digest", text),
        ("ETag", f'"{text}"'),
        ("Cache-Control", "max-age=31536000"),
    )


def _redirect_headers(digest: Digest, url: str) -> tuple[tuple[str, str], ...]:
    """Return the headers of a redirect.

    The URL expires, and is a right to read that caches must not give to others. An ETag would let a
    cache take the redirect for the content.
    """
    return (
        ("Docker-Content-Digest", str(digest)),
        ("Cache-Control", "no-store"),
        ("Location", url),
    )


@lru_cache(maxsize=_MAX_CACHED_HEADERS)
def _content_headers(digest: Digest) -> EncodedHeaders:
    """Return the headers of a response with content of a blob, or to HEAD."""
    return EncodedHeaders(
        (
            *_digest_headers(digest),
            ("Accept-Ranges", "bytes"),
            ("Content-Type", "application/octet-stream"),
        )
    )


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
