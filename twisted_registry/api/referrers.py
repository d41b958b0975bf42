"""``/v2/<name>/referrers/<digest>``: end-12."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from twisted_registry.api.answers import Answer
from twisted_registry.manifest import OCI_INDEX
from twisted_registry.repository.policy import MANIFEST_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_registry.api.exchange import Exchange

#: What surrounds the descriptors.
_HEAD = b'{"schemaVersion":2,"mediaType":"%b","manifests":[' % OCI_INDEX.encode()
_TAIL = b"]}"


async def get(exchange: Exchange) -> Answer:
    """List the manifests that name a digest as their subject, as an image index.

    The answer is a page of at most 4 MiB, with a Link to the next; never 404.

    :raises RegistryError: DIGEST_INVALID.
    """
    subject = exchange.digest()
    wanted = exchange.query.first("artifactType") or None
    last = exchange.query.first("last") or ""
    repository = exchange.repository
    found: list[bytes] = []
    size = len(_HEAD) + len(_TAIL)
    headers = [("Content-Type", OCI_INDEX)]
    if wanted is not None:
        headers.append(("OCI-Filters-Applied", "artifactType"))
    for digest in await repository.referrers.of(subject, last):
        held = await repository.manifests.parsed(digest)
        # A link outlives a manifest that somebody else removed.
        if held is None or held[1].subject is None or held[1].subject.digest != subject:
            continue
        descriptor = held[1].as_referrer(digest, len(held[0].content))
        if wanted is not None and descriptor.get("artifactType") != wanted:
            continue
        piece = _encoded(descriptor)
        size += len(piece) + 1
        if found and size > MANIFEST_LIMIT:
            query = [("last", last)]
            if wanted is not None:
                query.append(("artifactType", wanted))
            url = exchange.url(exchange.name, "referrers", str(subject), query=query)
            headers.append(("Link", f'<{url}>; rel="next"'))
            break
        found.append(piece)
        last = str(digest)
    return Answer(200, headers, _HEAD + b",".join(found) + _TAIL)


def _encoded(descriptor: Mapping[str, object]) -> bytes:
    """A descriptor as JSON, no longer than it was in its manifest."""
    try:
        return json.dumps(descriptor, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair, which nothing but an escape can say.
        return json.dumps(descriptor, separators=(",", ":")).encode()
