"""``/v2/<name>/blobs/<digest>``: end-2 and end-10."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.api.answers import Answer
from twisted_registry.api.conditions import entity_tags, matches
from twisted_registry.api.ranges import RangeUnsatisfiable, parse_range
from twisted_registry.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from twisted_registry.api.exchange import Exchange
    from twisted_registry.api.ranges import ByteRange
    from twisted_registry.digest import Digest


async def get(exchange: Exchange) -> Answer:
    """Send a blob or a part of it; a redirect if the store has a URL for it.

    :raises RegistryError: BLOB_UNKNOWN, RANGE_INVALID.
    """
    digest = exchange.digest()
    blobs = exchange.repository.blobs
    size = await blobs.size(digest)
    headers = [
        ("Docker-Content-Digest", str(digest)),
        ("ETag", f'"{digest}"'),
        ("Cache-Control", "max-age=31536000"),
    ]
    if matches(exchange.headers("if-none-match"), str(digest)):
        return Answer(304, headers)
    if exchange.settings.redirect:
        url = await blobs.url(digest, exchange.method, exchange.caller.address)
        if url is not None:
            return Answer(307, [*headers, ("Location", url)])
    headers += [("Accept-Ranges", "bytes"), ("Content-Type", "application/octet-stream")]
    wanted = _wanted(exchange, digest, size)
    status = 200
    if wanted is not None:
        status = 206
        headers.append(("Content-Range", wanted.content_range(size)))
    length = size if wanted is None else wanted.length
    if exchange.method == "HEAD":
        return Answer(status, headers, length=length)
    offset = 0 if wanted is None else wanted.offset
    return Answer(status, headers, await blobs.open(digest, offset, length))


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
