"""``/v2/<name>/blobs/<digest>``: end-2 and end-10."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from twisted_registry.api.answers import Answer, ready_fields
from twisted_registry.api.conditions import entity_tags, matches
from twisted_registry.api.ranges import RangeUnsatisfiable, parse_range
from twisted_registry.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from twisted_registry.api.exchange import Exchange
    from twisted_registry.api.ranges import ByteRange
    from twisted_registry.digest import Digest

#: Fields of a request that want something else than the whole.
_SPECIAL = frozenset({b"if-none-match", b"range", b"if-range"})
#: How many of :func:`_fields` belong to answers that do not send it as well.
_OF_ENTITY = 3


async def get(exchange: Exchange) -> Answer:
    """Send a blob or a part of it; a redirect if the store has a URL for it.

    :raises RegistryError: BLOB_UNKNOWN, RANGE_INVALID.
    """
    digest = exchange.digest()
    blobs = exchange.repository.blobs
    fields, ready = _fields(digest)
    redirects = exchange.settings.redirect and blobs.has_urls
    if exchange.method == "GET" and not redirects and _SPECIAL.isdisjoint(exchange.sent):
        return Answer(200, fields, await blobs.whole(digest), ready=ready)
    # Who asks by HEAD may leave out a push.
    size = await (blobs.size if exchange.method == "HEAD" else blobs.pullable)(digest)
    if matches(exchange.headers("if-none-match"), str(digest)):
        return Answer(304, fields[:_OF_ENTITY])
    if redirects:
        url = await blobs.url(digest, exchange.method, exchange.caller.address)
        if url is not None:
            return Answer(307, [*fields[:_OF_ENTITY], ("Location", url)])
    wanted = _wanted(exchange, digest, size)
    if wanted is None:
        status, offset, length = 200, 0, size
    else:
        status, offset, length = 206, wanted.offset, wanted.length
        fields = (*fields, ("Content-Range", wanted.content_range(size)))
    if exchange.method == "HEAD":
        return Answer(status, fields, length=length)
    if wanted is None:
        return Answer(status, fields, await blobs.whole(digest), ready=ready)
    return Answer(status, fields, await blobs.open(digest, offset, length))


@lru_cache(maxsize=4096)
def _fields(digest: Digest) -> tuple[tuple[tuple[str, str], ...], bytes]:
    """What is said of a blob: the first few always, all where its bytes may follow."""
    fields = (
        ("Docker-Content-Digest", str(digest)),
        ("ETag", f'"{digest}"'),
        ("Cache-Control", "max-age=31536000"),
        ("Accept-Ranges", "bytes"),
        ("Content-Type", "application/octet-stream"),
    )
    return fields, ready_fields(fields)


async def delete(exchange: Exchange) -> Answer:
    """Let the repository no longer hold a blob.

    :raises RegistryError: BLOB_UNKNOWN.
    """
    digest = exchange.digest()
    await exchange.repository.blobs.delete(digest)
    return Answer(202, [("Docker-Content-Digest", str(digest))])


def _wanted(exchange: Exchange, digest: Digest, size: int) -> ByteRange | None:
    condition = exchange.header("if-range")
    if condition is not None and str(digest) not in entity_tags([condition]):
        return None
    try:
        return parse_range(exchange.header("range"), size)
    except RangeUnsatisfiable:
        raise RegistryError(
            ErrorCode.RANGE_INVALID,
            detail={"size": size},
            headers=(("Content-Range", f"bytes */{size}"), ("Accept-Ranges", "bytes")),
        ) from None
