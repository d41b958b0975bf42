"""``/v2/<name>/tags/list``: end-8."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from twisted_registry.api.response import JSON, Response
from twisted_registry.oci.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from twisted_registry.api.context import RequestContext
    from twisted_registry.repository.registry import Repository

#: A longer list is sent in pieces.
_MAX_UNSTREAMED_TAGS = 5000


async def get(context: RequestContext) -> Response:
    """List tags: all of them, or a page of ``n`` after ``last``.

    :raises RegistryError: NAME_UNKNOWN, PAGINATION_NUMBER_INVALID.
    """
    number, last = context.query.number("n"), context.query.first("last") or ""
    if number is None:
        return await _list_all(context, last)
    limit = min(number, context.settings.tags_limit)
    # Asking for nothing gets nothing, and no link to more of it.
    names, more = await context.repository.tags.page(last, limit) if limit else ([], False)
    await _require_repository(context, names)
    headers = [("Link", next_link(context, names[-1], number))] if more else []
    return Response.json({"name": context.name, "tags": names}, headers=headers)


def next_link(context: RequestContext, last: str, number: int) -> str:
    """The Link header of a page (RFC 8288): where the list goes on."""
    path = [*context.name.split("/"), "tags", "list"] if context.name else ["_catalog"]
    url = context.url(*path, query=[("last", last), ("n", str(number))])
    return f'<{url}>; rel="next"'


async def _require_repository(context: RequestContext, tags: Sequence[str]) -> None:
    """Raise NAME_UNKNOWN if there is no such repository: what has a tag is one."""
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
    """The document in pieces, so that no list is too long to be held."""
    yield b'{"name":' + json.dumps(repository.name).encode() + b',"tags":[' + _encode_items(names)
    async for more in repository.tags.pages(names[-1]):
        yield b"," + _encode_items(more)
    yield b"]}"


def _encode_items(names: list[str]) -> bytes:
    return json.dumps(names, separators=(",", ":"))[1:-1].encode()
