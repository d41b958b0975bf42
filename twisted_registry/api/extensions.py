"""Extensions of the distribution specification, and their discovery.

``/v2/_oci/ext/discover`` lists them, as ``extensions/_oci.md`` of the specification defines.
There is one: ``DELETE /v2/_repository/<name>`` removes a whole repository.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.api.response import Response
from twisted_registry.oci.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from twisted_registry.api.context import RequestContext

_REPOSITORY_EXTENSION = {
    "name": "_repository",
    "description": "DELETE removes a repository with all that it holds",
    "endpoints": ["_repository/<name>"],
}


async def get(context: RequestContext) -> Response:
    """List the enabled extensions of the registry, or of a repository.

    :raises RegistryError: NAME_UNKNOWN.
    """
    if context.name:
        if not await context.repository.exists():
            raise RegistryError(ErrorCode.NAME_UNKNOWN, detail={"name": context.name})
        return Response.json({"extensions": []})
    settings = context.settings
    served = settings.delete and not settings.read_only
    return Response.json({"extensions": [_REPOSITORY_EXTENSION] if served else []})


async def delete(context: RequestContext) -> Response:
    """Remove a repository; repositories below its name remain.

    :raises RegistryError: NAME_UNKNOWN, DENIED if it has an immutable tag.
    """
    await context.repository.delete()
    return Response(202)
