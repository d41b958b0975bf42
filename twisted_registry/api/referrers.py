"""``/v2/<name>/referrers/<digest>``: end-12."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from twisted_registry.api.response import Response
from twisted_registry.oci.manifest import OCI_INDEX
from twisted_registry.repository.policy import MAX_MANIFEST_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_registry.api.context import RequestContext

#: What surrounds the descriptors.
_INDEX_HEAD = b'{"schemaVersion":2,"mediaType":"%b","manifests":[' % OCI_INDEX.encode()
_INDEX_TAIL = b"]}"


async def get(context: RequestContext) -> Response:
    """List the manifests that name a digest as their subject, as an image index.

    The answer is a page of at most 4 MiB, with a Link to the next; never 404.

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
        held = await repository.manifests.get_parsed(digest)
        # A link outlives a manifest that somebody else removed.
        if held is None or held[1].subject is None or held[1].subject.digest != subject:
            continue
        descriptor = held[1].referrer_descriptor(digest, len(held[0].content))
        if artifact_type is not None and descriptor.get("artifactType") != artifact_type:
            continue
        piece = _encode_descriptor(descriptor)
        size += len(piece) + 1
        if found and size > MAX_MANIFEST_BYTES:
            query = [("last", last)]
            if artifact_type is not None:
                query.append(("artifactType", artifact_type))
            url = context.url(context.name, "referrers", str(subject), query=query)
            headers.append(("Link", f'<{url}>; rel="next"'))
            break
        found.append(piece)
        last = str(digest)
    return Response(200, headers, _INDEX_HEAD + b",".join(found) + _INDEX_TAIL)


def _encode_descriptor(descriptor: Mapping[str, object]) -> bytes:
    """A descriptor as JSON, no longer than it was in its manifest."""
    try:
        return json.dumps(descriptor, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair, which nothing but an escape can say.
        return json.dumps(descriptor, separators=(",", ":")).encode()
