"""``/v2/<name>/referrers/<digest>``: end-12 of the distribution specification."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.api.response import Response
from twisted_registry.oci.manifest import OCI_INDEX
from twisted_registry.repository.policy import MAX_MANIFEST_BYTES

if TYPE_CHECKING:
    from twisted_registry.api.context import RequestContext

#: The parts of the image index before and after the descriptors.
_INDEX_HEAD = b'{"schemaVersion":2,"mediaType":"%b","manifests":[' % OCI_INDEX.encode()
_INDEX_TAIL = b"]}"
#: Bytes of the descriptors of one page. Clients read a page as they read a manifest.
_MAX_LIST_BYTES = MAX_MANIFEST_BYTES - len(_INDEX_HEAD) - len(_INDEX_TAIL)


async def get(context: RequestContext) -> Response:
    """List the manifests with a given subject, as an image index.

    A page has at most :data:`MAX_MANIFEST_BYTES` (4 MiB) and 1,000 descriptors, and a Link to the
    next page if there may be more. With a filter it may have fewer, or none. A subject without
    referrers, or that does not exist, has an empty list.

    :raises RegistryError: DIGEST_INVALID.
    """
    subject = context.digest()
    artifact_type = context.query.first("artifactType") or None
    page = await context.repository.referrers.page(
        subject, context.query.first("last") or "", artifact_type, max_bytes=_MAX_LIST_BYTES
    )
    headers = [("Content-Type", OCI_INDEX)]
    if artifact_type is not None:
        headers.append(("OCI-Filters-Applied", "artifactType"))
    if page.last is not None:
        query = [("last", page.last)]
        if artifact_type is not None:
            query.append(("artifactType", artifact_type))
        path = (context.name, "referrers", str(subject))
        headers.append(context.next_page_link(*path, query=query))
    return Response(200, headers, _INDEX_HEAD + b",".join(page.descriptors) + _INDEX_TAIL)
