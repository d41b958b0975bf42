"""``/v2/<name>/manifests/<reference>``: end-3, end-7 and end-9."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.api.answers import Answer, ready_fields
from twisted_registry.api.conditions import accepted_by, matches, precondition
from twisted_registry.digest import Digest
from twisted_registry.errors import ErrorCode, RegistryError
from twisted_registry.manifest import KINDS, Kind, is_media_type
from twisted_registry.reference import TagInvalid, check_tag
from twisted_registry.repository.streaming import ContentTooLarge, collect

if TYPE_CHECKING:
    from twisted_registry.api.exchange import Exchange
    from twisted_registry.repository.manifests import StoredManifest


async def get(exchange: Exchange) -> Answer:
    """Send a manifest byte for byte.

    :raises RegistryError: MANIFEST_UNKNOWN.
    """
    reference = exchange.reference()
    asked = exchange.method == "HEAD"
    stored = await exchange.repository.manifests.get(reference, asked=asked)
    if isinstance(reference, str) and KINDS.get(stored.media_type) is Kind.INDEX:
        stored = await _for_old_clients(exchange, stored)
    known = exchange.headers("if-none-match")
    if known and matches(known, str(stored.digest)):
        return Answer(304, _fields(stored.digest))
    whole: Answer | None = stored.memo.get("answer")
    if whole is None:
        headers = (("Content-Type", stored.media_type), *_fields(stored.digest))
        whole = Answer(200, headers, stored.content, ready=ready_fields(headers))
        stored.memo["answer"] = whole
    return whole


def _fields(digest: Digest) -> tuple[tuple[str, str], ...]:
    return (("Docker-Content-Digest", str(digest)), ("ETag", f'"{digest}"'))


async def put(exchange: Exchange) -> Answer:
    """Take a manifest, by tag or by digest, with further tags as parameters.

    :raises RegistryError: TAG_INVALID, SIZE_INVALID with 413, and what
        :meth:`~twisted_registry.repository.manifests.Manifests.put` raises.
    """
    reference = exchange.reference()
    media_type = _content_type(exchange)
    tags = _tags(exchange)
    condition = precondition(exchange.headers("if-match"), exchange.headers("if-none-match"))
    content = await _content(exchange)
    if isinstance(reference, str):
        digest = Digest.of(content)
        named = [reference, *(tag for tag in tags if tag != reference)]
    else:
        digest, named = reference, tags
    manifest = await exchange.repository.manifests.put(
        digest, content, media_type, named, condition
    )
    headers = [
        ("Location", exchange.url(exchange.name, "manifests", str(digest))),
        ("Docker-Content-Digest", str(digest)),
        *(("OCI-Tag", tag) for tag in tags),
    ]
    if manifest.subject is not None:
        headers.append(("OCI-Subject", str(manifest.subject.digest)))
    return Answer(201, headers)


async def delete(exchange: Exchange) -> Answer:
    """Remove a tag, or a manifest with all tags that name it.

    :raises RegistryError: MANIFEST_UNKNOWN.
    """
    reference = exchange.reference()
    repository = exchange.repository
    if isinstance(reference, str):
        await repository.tags.delete(reference)
    else:
        await repository.manifests.delete(reference)
    return Answer(202)


async def _for_old_clients(exchange: Exchange, stored: StoredManifest) -> StoredManifest:
    """An image in place of an index, for a client that takes images only.

    Clients from before there were indexes get the image for linux/amd64, as from Distribution.
    An index that the client does not name is otherwise no reason to say that it is not there.
    """
    accepted = accepted_by(tuple(exchange.headers("accept")))
    if stored.media_type in accepted:
        return stored
    repository = exchange.repository
    index = await repository.manifests.parsed(stored.digest)
    for child in index[1].manifests if index is not None else ():
        platform = child.platform or {}
        if (platform.get("os"), platform.get("architecture")) != ("linux", "amd64"):
            continue
        if child.media_type in accepted:
            image = await repository.manifests.parsed(child.digest)
            if image is not None:
                return image[0]
    return stored


def _content_type(exchange: Exchange) -> str | None:
    header = exchange.header("content-type")
    if header is None:
        return None
    media_type = header.partition(";")[0].strip()
    if not is_media_type(media_type):
        raise RegistryError(ErrorCode.MANIFEST_INVALID, detail={"content-type": header[:200]})
    return media_type


def _tags(exchange: Exchange) -> list[str]:
    """The ``tag`` parameters, each once (end-7b)."""
    tags = list(dict.fromkeys(exchange.query.all("tag")))
    if len(tags) > exchange.settings.tags_per_push:
        raise RegistryError(
            ErrorCode.TAG_INVALID,
            message=f"more than {exchange.settings.tags_per_push} tags in one push",
            status=414,
        )
    for tag in tags:
        try:
            check_tag(tag)
        except TagInvalid as error:
            raise RegistryError(
                ErrorCode.TAG_INVALID, detail={"tag": tag[:200], "reason": str(error)}
            ) from error
    return tags


async def _content(exchange: Exchange) -> bytes:
    limit = exchange.registry.policy.manifest_limit
    try:
        return await collect(exchange.body, limit)
    except ContentTooLarge:
        raise RegistryError(
            ErrorCode.SIZE_INVALID, message=f"a manifest has at most {limit} bytes", status=413
        ) from None
