"""``/v2/<name>/tags/list``: end-8 of the distribution specification."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from twisted_registry.api.response import JSON, Response, encode_json
from twisted_registry.oci.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from twisted_registry.api.context import RequestContext
    from twisted_registry.repository.registry import Repository

#: A longer list is sent in pieces.
_MAX_UNSTREAMED_TAGS = 5000


async def get(context: RequestContext) -> Response:
    """List all tags, or a page of ``n`` tags after ``last``.

    :raises RegistryError: NAME_UNKNOWN, PAGINATION_NUMBER_INVALID.
    """
    number, last = context.query.number("n"), context.query.first("last") or ""
    if number is None:
        return await _list_all(context, last)
    limit = min(number, context.settings.tags_limit)
    # n=0 returns no tags, and no link to the next page.
    names, more = await context.repository.tags.page(last, limit) if limit else ([], False)
    await _require_repository(context, names)
    headers = []
    if more:
        path = (*context.name.split("/"), "tags", "list")
        query = [("last", names[-1]), ("n", str(number))]
        headers.append(context.next_page_link(*path, query=query))
    return Response.json({"name": context.name, "tags": names}, headers=headers)


async def _require_repository(context: RequestContext, tags: Sequence[str]) -> None:
    """Raise NAME_UNKNOWN if the repository does not exist; one with tags does."""
    if not tags and not await context.repository.exists():
        raise RegistryError(ErrorCode.NAME_UNKNOWN, detail={"name": context.name})


async def _list_all(context: RequestContext, last: str) -> Response:
    repository = context.repository
    names, more = await repository.tags.page(last, _MAX_UNSTREAMED_TAGS)
    if not more:
        await _require_repository(context, names)
        return Response.json({"name": context.name, "tags": names})
    return Response(200, [("Content-Type", JSON)], _stream_tags(repository, names))


async def _stream_tags(repository: Repository, names: list[str]) -> AsyncIterator[bytes]:
    """Yield the JSON document in pieces, so that the list is never in memory as a whole."""
    yield b'{"name":' + json.dumps(repository.name).encode() + b',"tags":[' + _encode_items(names)
    async for more in repository.tags.pages(names[-1]):
        yield b"," + _encode_items(more)
    yield b"]}"


def _encode_items(names: list[str]) -> bytes:
    """Encode a JSON list without its brackets."""
    return encode_json(names)[1:-1]
