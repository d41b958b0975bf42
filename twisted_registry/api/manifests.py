"""``/v2/<name>/manifests/<reference>``: end-3, end-7 and end-9 of the specification."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from twisted_registry.api.preconditions import AcceptedTypes, etag_matches, parse_precondition
from twisted_registry.api.response import EncodedHeaders, Response
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.manifest import (
    KIND_BY_MEDIA_TYPE,
    ManifestInvalid,
    ManifestKind,
    parse_document_type,
    parse_manifest,
)
from twisted_registry.oci.media_types import is_media_type, safe_media_type
from twisted_registry.oci.names import TagInvalid, check_tag
from twisted_registry.repository.streaming import ContentTooLarge, read_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from twisted_registry.api.context import RequestContext
    from twisted_registry.oci.digest import Digest
    from twisted_registry.oci.manifest import Descriptor
    from twisted_registry.repository.cache import StoredManifest

#: Images of an index that are tried for a client that does not accept indexes.
_MAX_LEGACY_IMAGES = 16
#: Manifests whose headers are cached.
_MAX_CACHED_HEADERS = 1024


async def get(context: RequestContext) -> Response:
    """Send a manifest, byte for byte as it was pushed.

    :raises RegistryError: MANIFEST_UNKNOWN, also for a reference that is neither a tag nor a digest
        (the conformance tests of version 1.1).
    """
    reference = context.route.parsed
    if reference is None:
        raise RegistryError(
            ErrorCode.MANIFEST_UNKNOWN, detail={"reference": context.route.variable[:200]}
        )
    is_query = context.method == "HEAD"
    stored = await context.repository.manifests.get(reference, is_query=is_query)
    if (
        isinstance(reference, str)
        and KIND_BY_MEDIA_TYPE.get(stored.media_type) is ManifestKind.INDEX
    ):
        stored = await _image_for_legacy_client(context, stored)
    known_tags = context.header_values("if-none-match")
    if known_tags and etag_matches(known_tags, str(stored.digest)):
        return Response(304, _digest_headers(stored.digest))
    headers = _content_headers(stored.digest, stored.media_type)
    return Response(200, headers, stored.content)


async def put(context: RequestContext) -> Response:
    """Store a manifest by tag or by digest; ``tag`` parameters add further tags (end-7b).

    :raises RegistryError: TAG_INVALID, SIZE_INVALID with status 413, and the errors of
        :meth:`~twisted_registry.repository.manifests.Manifests.put`.
    """
    reference = context.reference()
    media_type = _content_type(context)
    tags = _tag_parameters(context)
    precondition = parse_precondition(
        context.header_values("if-match"), context.header_values("if-none-match")
    )
    content = await _read_content(context)
    if isinstance(reference, str):
        digest = await context.repository.manifests.digest_of(content)
        tags_to_set = [reference, *(tag for tag in tags if tag != reference)]
    else:
        digest, tags_to_set = reference, tags
    manifests = context.repository.manifests
    async with _quota_for(context, digest, len(content)):
        manifest = await manifests.put(digest, content, media_type, tags_to_set, precondition)
    headers = [
        ("Location", context.url(context.name, "manifests", str(digest))),
        ("Docker-Content-Digest", str(digest)),
        *(("OCI-Tag", tag) for tag in tags),
    ]
    if manifest.subject is not None:
        headers.append(("OCI-Subject", str(manifest.subject.digest)))
    return Response(201, headers)


async def delete(context: RequestContext) -> Response:
    """Remove a tag, or a manifest with all of its tags.

    :raises RegistryError: MANIFEST_UNKNOWN.
    """
    reference = context.reference()
    repository = context.repository
    if isinstance(reference, str):
        await repository.tags.delete(reference)
    else:
        await repository.manifests.delete(reference)
    return Response(202)


@asynccontextmanager
async def _quota_for(context: RequestContext, digest: Digest, length: int) -> AsyncIterator[None]:
    """Account for a manifest that is stored inside the block.

    :raises LimitExceeded: DENIED if it exceeds a quota.
    """
    account = context.account
    # A manifest that is there already gets another tag.
    if account is None or await context.repository.manifests.is_linked(digest):
        yield
        return
    reservation = await account.reserve(length)
    stored = length
    try:
        await account.record_content(digest)
        yield
    except RegistryError:
        stored = 0
        raise
    finally:
        # After any other error, such as a disconnect, it may be stored.
        reservation.settle(stored)
    await account.publish()


def _digest_headers(digest: Digest) -> tuple[tuple[str, str], ...]:
    text = str(digest)
    return ("Docker-Content-Digest", text), ("ETag", f'"{text}"')


@lru_cache(maxsize=_MAX_CACHED_HEADERS)
def _content_headers(digest: Digest, media_type: str) -> EncodedHeaders:
    return EncodedHeaders((("Content-Type", safe_media_type(media_type)), *_digest_headers(digest)))


async def _image_for_legacy_client(
    context: RequestContext, stored: StoredManifest
) -> StoredManifest:
    """Return the image for linux/amd64 of an index, for a client that does not accept indexes.

    Distribution does the same for clients that are older than image indexes. If the client accepts
    no such image either, the index itself is returned, rather than a 404.
    """
    accepted = AcceptedTypes.parse(context.header_values("accept"))
    if stored.media_type in accepted:
        return stored
    manifests = context.repository.manifests
    index = await manifests.find_in(stored.digest, _find_linux_images)
    for child in index[1] if index is not None else ():
        if child.media_type in accepted:
            image = await manifests.find_in(child.digest, parse_document_type)
            if image is not None:
                return image[0]
    return stored


def _find_linux_images(content: bytes) -> tuple[Descriptor, ...]:
    """Return the first images for linux/amd64 of an index."""
    try:
        index = parse_manifest(content, None)
    except ManifestInvalid:
        return ()
    images = (
        child
        for child in index.manifests
        if child.platform is not None
        and child.platform.get("os") == "linux"
        and child.platform.get("architecture") == "amd64"
    )
    return tuple(islice(images, _MAX_LEGACY_IMAGES))


def _content_type(context: RequestContext) -> str | None:
    header = context.header("content-type")
    if header is None:
        return None
    media_type = header.partition(";")[0].strip()
    if not is_media_type(media_type):
        raise RegistryError(ErrorCode.MANIFEST_INVALID, detail={"content-type": header[:200]})
    return media_type


def _tag_parameters(context: RequestContext) -> list[str]:
    """Return the ``tag`` parameters without duplicates (end-7b)."""
    tags = list(dict.fromkeys(context.query.all("tag")))
    if len(tags) > context.settings.tags_per_push:
        raise RegistryError(
            ErrorCode.TAG_INVALID,
            message=f"more than {context.settings.tags_per_push} tags in one push",
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


async def _read_content(context: RequestContext) -> bytes:
    limit = context.registry.policy.max_manifest_bytes
    try:
        return await read_body(context.body, limit)
    except ContentTooLarge:
        raise RegistryError(
            ErrorCode.SIZE_INVALID,
            message=f"a manifest has at most {limit} bytes",
            status=413,
            limit="manifestbytes",
        ) from None
