"""``/v2/<name>/referrers/<digest>``: end-12 of the distribution specification."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from twisted_registry.api.response import Response
from twisted_registry.oci.manifest import OCI_INDEX
from twisted_registry.repository.policy import MAX_MANIFEST_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_registry.api.context import RequestContext

#: The parts of the image index before and after the descriptors.
_INDEX_HEAD = b'{"schemaVersion":2,"mediaType":"%b","manifests":[' % OCI_INDEX.encode()
_INDEX_TAIL = b"]}"


async def get(context: RequestContext) -> Response:
    """List the manifests with a given subject, as an image index.

    A page has at most :data:`MAX_MANIFEST_BYTES` (4 MiB), and a Link to the next page. A subject
    without referrers, or that does not exist, has an empty list.

    :raises RegistryError: DIGEST_INVALID.
    """
    subject = context.digest()
    artifact_type = context.query.first("artifactType") or None
    last = context.query.first("last") or ""
    repository = context.repository
    found: list[bytes] = []
    size = len(_INDEX_HEAD) + len(_INDEX_TAIL)
    headers = [("Content-Type", OCI_INDEX)]
    if artifact_type is not None:
        headers.append(("OCI-Filters-Applied", "artifactType"))
    for digest in await repository.referrers.list_referrers(subject, last):
        found_manifest = await repository.manifests.get_parsed(digest)
        # The link may be older than the deletion of its manifest.
        if found_manifest is None:
            continue
        stored, manifest = found_manifest
        if manifest.subject is None or manifest.subject.digest != subject:
            continue
        descriptor = manifest.referrer_descriptor(digest, len(stored.content))
        if artifact_type is not None and descriptor.get("artifactType") != artifact_type:
            continue
        piece = _encode_descriptor(descriptor)
        size += len(piece) + 1
        if found and size > MAX_MANIFEST_BYTES:
            query = [("last", last)]
            if artifact_type is not None:
                query.append(("artifactType", artifact_type))
            path = (context.name, "referrers", str(subject))
            headers.append(context.next_page_link(*path, query=query))
            break
        found.append(piece)
        last = str(digest)
    return Response(200, headers, _INDEX_HEAD + b",".join(found) + _INDEX_TAIL)


def _encode_descriptor(descriptor: Mapping[str, object]) -> bytes:
    """Encode a descriptor as JSON, no longer than it was in its manifest."""
    try:
        return json.dumps(descriptor, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # A lone surrogate can only be written as an escape.
        return json.dumps(descriptor, separators=(",", ":")).encode()
