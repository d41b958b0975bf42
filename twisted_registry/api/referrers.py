"""``/v2/<name>/referrers/<digest>``: end-12."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from twisted_registry.api.answers import Answer
from twisted_registry.manifest import OCI_INDEX
from twisted_registry.repository.policy import MANIFEST_LIMIT

if TYPE_CHECKING:
    from twisted_registry.api.exchange import Exchange

#: Room for what surrounds the descriptors.
_ENVELOPE = 1024


async def get(exchange: Exchange) -> Answer:
    """List the manifests that name a digest as their subject, as an image index.

    The answer is a page of at most 4 MiB, with a Link to the next; never 404.

    :raises RegistryError: DIGEST_INVALID.
    """
    subject = exchange.digest()
    wanted = exchange.query.first("artifactType")
    last = exchange.query.first("last") or ""
    repository = exchange.repository
    found: list[dict[str, object]] = []
    size = _ENVELOPE
    headers = [] if wanted is None else [("OCI-Filters-Applied", "artifactType")]
    for digest in await repository.referrers.of(subject, last):
        held = await repository.manifests.parsed(digest)
        # A link outlives a manifest that somebody else removed.
        if held is None or held[1].subject is None or held[1].subject.digest != subject:
            continue
        descriptor = held[1].as_referrer(digest, len(held[0].content))
        if wanted is not None and descriptor.get("artifactType") != wanted:
            continue
        size += len(json.dumps(descriptor)) + 1
        if found and size > MANIFEST_LIMIT:
            query = [("last", str(found[-1]["digest"]))]
            if wanted is not None:
                query.append(("artifactType", wanted))
            url = exchange.url(exchange.name, "referrers", str(subject), query=query)
            headers.append(("Link", f'<{url}>; rel="next"'))
            break
        found.append(descriptor)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}
    return Answer.json(index, headers=headers, content_type=OCI_INDEX)
