"""``/v2/<name>/blobs/uploads/``: end-4 to end-6, end-11, end-13 and end-14."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.api.answers import Answer
from twisted_registry.api.ranges import ChunkRangeInvalid, parse_chunk_range
from twisted_registry.api.state import StateInvalid, UploadState
from twisted_registry.auth.interfaces import CATALOG, Access
from twisted_registry.digest import ALGORITHMS, CANONICAL
from twisted_registry.errors import ErrorCode, RegistryError
from twisted_registry.repository.uploads import UploadOutOfOrder

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from twisted_registry.api.exchange import Exchange
    from twisted_registry.api.ranges import ByteRange
    from twisted_registry.digest import Digest
    from twisted_registry.repository.uploads import Upload

_ALGORITHM = "digest-algorithm"


async def post(exchange: Exchange) -> Answer:
    """Begin an upload, take a whole blob, or mount one (end-4, end-11).

    A mount that is not possible begins an upload.
    """
    algorithm = _algorithm(exchange)
    mount, digest = exchange.query.digest("mount"), exchange.query.digest("digest")
    repository = exchange.repository
    if mount is not None and await _mounted(exchange, mount):
        return _created(exchange, mount)
    # A digest without bytes is what Distribution ignores, unless it is that of nothing.
    if digest is not None and mount is None and (exchange.body.length or digest.is_of_nothing):
        await repository.uploads.store(digest, exchange.body)
        return _created(exchange, digest)
    upload = await repository.uploads.start()
    headers = await _progress(exchange, upload, algorithm)
    if exchange.registry.minimum_chunk:
        headers.append(("OCI-Chunk-Min-Length", str(exchange.registry.minimum_chunk)))
    return Answer(202, headers)


async def get(exchange: Exchange) -> Answer:
    """Say how far an upload is (end-13).

    :raises RegistryError: BLOB_UPLOAD_UNKNOWN.
    """
    upload = await _find(exchange)
    return Answer(204, await _progress(exchange, upload, _algorithm(exchange)))


async def patch(exchange: Exchange) -> Answer:
    """Take a chunk, or a stream of unknown length (end-5).

    :raises RegistryError: BLOB_UPLOAD_UNKNOWN, RANGE_INVALID, SIZE_INVALID.
    """
    algorithm = _algorithm(exchange)
    upload, start, chunk = await _continued(exchange)
    before = upload.size
    await _in_order(
        exchange, upload, upload.append(exchange.body, start=start, algorithm=algorithm)
    )
    await _check_length(exchange, upload, chunk, upload.size - before)
    return Answer(202, await _progress(exchange, upload, algorithm))


async def put(exchange: Exchange) -> Answer:
    """Close an upload, with or without a last chunk (end-6).

    :raises RegistryError: DIGEST_INVALID, BLOB_UPLOAD_UNKNOWN, RANGE_INVALID, SIZE_INVALID.
    """
    digest = exchange.query.digest("digest")
    if digest is None:
        await _find(exchange)
        raise RegistryError(ErrorCode.DIGEST_INVALID, detail="the digest parameter is missing")
    upload, start, _ = await _continued(exchange)
    body = None if exchange.body.length == 0 else exchange.body
    await _in_order(exchange, upload, upload.finish(digest, body, start=start))
    return _created(exchange, digest)


async def delete(exchange: Exchange) -> Answer:
    """Give an upload up (end-14).

    :raises RegistryError: BLOB_UPLOAD_UNKNOWN.
    """
    upload = await _find(exchange)
    await upload.discard()
    return Answer(204)


async def _mounted(exchange: Exchange, digest: Digest) -> bool:
    source, grant = exchange.query.first("from") or None, exchange.grant
    if source is None:
        # The blob may come from anywhere: only for those who may see everything.
        permitted = grant.visible is None and grant.permits(CATALOG)
    else:
        permitted = grant.permits(Access("repository", source, "pull"))
    if not permitted:
        return False
    return await exchange.repository.blobs.mount(digest, source) is not None


async def _find(exchange: Exchange) -> Upload:
    try:
        state = await _state(exchange)
    except RegistryError:
        state = None
    _insist_on_owner(exchange, state)
    return await exchange.repository.uploads.find(exchange.match.variable)


def _insist_on_owner(exchange: Exchange, state: UploadState | None) -> None:
    """Raise BLOB_UPLOAD_UNKNOWN if somebody else began the upload, for all that is said of it.

    Whoever has a name needs the whole URL that they were given, as in Distribution; an upload
    that Distribution or a stranger began is for whoever has its URL.
    """
    user = exchange.grant.user
    unsaid = state is None and user
    if unsaid or (state is not None and state.owner not in {None, user}):
        raise RegistryError(
            ErrorCode.BLOB_UPLOAD_UNKNOWN, detail={"upload": exchange.match.variable}
        )


def _algorithm(exchange: Exchange) -> str:
    algorithm = exchange.query.first(_ALGORITHM) or CANONICAL
    if algorithm not in ALGORITHMS:
        raise RegistryError(
            ErrorCode.DIGEST_INVALID, detail={_ALGORITHM: algorithm[:64], "known": [*ALGORITHMS]}
        )
    return algorithm


async def _state(exchange: Exchange) -> UploadState | None:
    text = exchange.query.first("_state")
    if text is None:
        return None
    secret = await exchange.registry.upload_secret()
    try:
        return UploadState.unpack(text, secret, exchange.name, exchange.match.variable)
    except StateInvalid as error:
        raise RegistryError(ErrorCode.BLOB_UPLOAD_INVALID, detail=str(error)) from error


async def _chunk(exchange: Exchange, upload: Upload) -> ByteRange | None:
    header = exchange.header("content-range")
    if header is None:
        return None
    try:
        chunk = parse_chunk_range(header)
    except ChunkRangeInvalid as error:
        raise await _out_of_order(exchange, upload, str(error)) from error
    if isinstance(exchange.body.length, int):
        await _check_length(exchange, upload, chunk, exchange.body.length)
    return chunk


async def _continued(exchange: Exchange) -> tuple[Upload, int, ByteRange | None]:
    """The upload, where the client believes to be, and what it says of this chunk.

    A Content-Range says outright where; otherwise the URL that the client was given does, and a
    client without either appends to what is there.
    """
    try:
        state = await _state(exchange)
    except RegistryError:
        await _find(exchange)
        raise
    _insist_on_owner(exchange, state)
    if state is not None and exchange.header("content-range") is None:
        # The usual way. The store is not asked: it checks when the bytes are written.
        upload = exchange.repository.uploads.at(exchange.match.variable, state.offset)
        return upload, state.offset, None
    upload = await _find(exchange)
    chunk = await _chunk(exchange, upload)
    return upload, upload.size if chunk is None else chunk.offset, chunk


async def _in_order(exchange: Exchange, upload: Upload, work: Awaitable[int]) -> None:
    try:
        await work
    except UploadOutOfOrder as error:
        upload.size = error.size
        raise await _out_of_order(exchange, upload, error.detail) from error


async def _check_length(
    exchange: Exchange, upload: Upload, chunk: ByteRange | None, length: int
) -> None:
    if chunk is not None and chunk.length != length:
        raise RegistryError(
            ErrorCode.SIZE_INVALID,
            detail={"content-range": chunk.length, "received": length},
            headers=tuple(await _progress(exchange, upload, CANONICAL)),
        )


async def _out_of_order(exchange: Exchange, upload: Upload, detail: object) -> RegistryError:
    """416, with what a client needs to go on: where it is, and the URL of the next chunk."""
    return RegistryError(
        ErrorCode.RANGE_INVALID,
        detail=detail,
        headers=tuple(await _progress(exchange, upload, _algorithm(exchange))),
    )


async def _progress(exchange: Exchange, upload: Upload, algorithm: str) -> list[tuple[str, str]]:
    secret = await exchange.registry.upload_secret()
    owner = exchange.grant.user or None
    state = UploadState(exchange.name, upload.id, upload.size, owner).pack(secret)
    query = [("_state", state)]
    if algorithm != CANONICAL:
        query.insert(0, (_ALGORITHM, algorithm))
    url = exchange.url(exchange.name, "blobs", "uploads", upload.id, query=query)
    return [
        ("Location", url),
        # An empty upload is 0-0 too: the form knows no other way to say it.
        ("Range", f"0-{max(upload.size - 1, 0)}"),
        ("Docker-Upload-UUID", upload.id),
    ]


def _created(exchange: Exchange, digest: Digest) -> Answer:
    return Answer(
        201,
        [
            ("Location", exchange.url(exchange.name, "blobs", str(digest))),
            ("Docker-Content-Digest", str(digest)),
        ],
    )
