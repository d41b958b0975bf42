"""``/v2/<name>/blobs/uploads/``: end-4 to end-6, end-11, end-13 and end-14 of the specification.

The URL of an upload contains its state in the parameter ``_state``: base64url(HMAC-SHA256 ||
JSON), the form of Distribution, so that uploads that Distribution has started with the same secret
can continue. The state detects a client that continues from an outdated URL; the stored bytes
decide. With access control it also proves that the client was given the URL.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING

from attrs import frozen

from twisted_registry.api.preconditions import ContentRangeInvalid, parse_content_range
from twisted_registry.api.response import Response
from twisted_registry.api.upload_limits import (
    discard_upload,
    limited_upload,
    mount_blob,
    start_upload,
)
from twisted_registry.auth.access import OpenGrant
from twisted_registry.auth.interfaces import CATALOG, Access
from twisted_registry.oci.digest import ALGORITHMS, CANONICAL
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository.uploads import UploadOutOfOrder

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from twisted_registry.api.context import RequestContext
    from twisted_registry.api.preconditions import ByteRange
    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.uploads import Upload

_MAC_BYTES = hashlib.sha256().digest_size
_ALGORITHM_PARAMETER = "digest-algorithm"


class StateInvalid(ValueError):
    """The state is malformed, made for another upload, or not signed with the secret."""


@frozen
class UploadState:
    """The state of an upload when its URL was made.

    :ivar id: the id of the upload.
    :ivar offset: the number of stored bytes.
    :ivar owner: the user who started it; None if any caller may continue it. Distribution's state
        has no owner.
    """

    name: str
    id: str
    offset: int
    owner: str | None = None

    def pack(self, secret: bytes) -> str:
        """Encode and sign the state."""
        values: dict[str, object] = {
            "Name": self.name,
            "UUID": self.id,
            "Offset": self.offset,
            "StartedAt": "0001-01-01T00:00:00Z",
        }
        if self.owner is not None:
            values["Owner"] = self.owner
        document = json.dumps(values, separators=(",", ":")).encode()
        mac = hmac.new(secret, document, hashlib.sha256).digest()
        return urlsafe_b64encode(mac + document).decode("ascii")

    @classmethod
    def unpack(cls, text: str, secret: bytes, name: str, upload_id: str) -> UploadState:
        """Decode the state of an upload.

        :raises StateInvalid: if it was made for another upload, or is not signed with ``secret``.
        """
        try:
            raw = urlsafe_b64decode(text.encode("ascii"))
            mac, document = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
            if not hmac.compare_digest(mac, hmac.new(secret, document, hashlib.sha256).digest()):
                raise StateInvalid("not signed by this registry")
            values = json.loads(document)
            state = cls(values["Name"], values["UUID"], values["Offset"], values.get("Owner"))
        except (
            binascii.Error,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:
            raise StateInvalid(str(error)) from error
        if type(state.offset) is not int:
            raise StateInvalid("the offset is not a number")
        if (state.name, state.id) != (name, upload_id):
            raise StateInvalid("made for another upload")
        return state


async def post(context: RequestContext) -> Response:
    """Start an upload, store a whole blob, or mount one (end-4, end-11).

    If a mount is not possible, an upload is started.

    :raises RegistryError: DIGEST_INVALID, SIZE_INVALID.
    """
    algorithm = _digest_algorithm(context)
    mount, digest = context.query.digest("mount"), context.query.digest("digest")
    repository = context.repository
    if mount is not None and await _try_mount(context, mount):
        return _created_response(context, mount)
    # As in Distribution, a digest without a body is ignored, except that of empty content.
    if digest is not None and mount is None and (context.body.length or digest.is_of_empty_content):
        upload = repository.uploads.single_request()
        async with limited_upload(context, upload, digest) as body:
            await upload.finish(digest, body)
        return _created_response(context, digest)
    upload = await start_upload(context)
    headers = await _progress_headers(context, upload, algorithm)
    if context.registry.min_chunk_bytes:
        headers.append(("OCI-Chunk-Min-Length", str(context.registry.min_chunk_bytes)))
    return Response(202, headers)


async def get(context: RequestContext) -> Response:
    """Return the number of stored bytes of an upload (end-13).

    :raises RegistryError: BLOB_UPLOAD_UNKNOWN.
    """
    upload = await _find_upload(context)
    return Response(204, await _progress_headers(context, upload, _digest_algorithm(context)))


async def patch(context: RequestContext) -> Response:
    """Append a chunk, or a stream of unknown length (end-5).

    :raises RegistryError: BLOB_UPLOAD_UNKNOWN, RANGE_INVALID, SIZE_INVALID, and those of limits.
    """
    algorithm = _digest_algorithm(context)
    upload, start, chunk = await _resume_upload(context)
    size_before = upload.size

    async def append() -> None:
        async with limited_upload(context, upload) as body:
            await upload.append(body, start=start, algorithm=algorithm)

    await _run_in_order(context, upload, append())
    await _check_length(context, upload, chunk, upload.size - size_before)
    return Response(202, await _progress_headers(context, upload, algorithm))


async def put(context: RequestContext) -> Response:
    """Finish an upload, with or without a last chunk (end-6).

    :raises RegistryError: DIGEST_INVALID, BLOB_UPLOAD_UNKNOWN, RANGE_INVALID, SIZE_INVALID.
    """
    digest = context.query.digest("digest")
    if digest is None:
        await _find_upload(context)
        raise RegistryError(ErrorCode.DIGEST_INVALID, detail="missing parameter digest")
    upload, start, _ = await _resume_upload(context)

    async def finish() -> None:
        async with limited_upload(context, upload, digest) as body:
            last = None if context.body.length == 0 else body
            await upload.finish(digest, last, start=start)

    await _run_in_order(context, upload, finish())
    return _created_response(context, digest)


async def delete(context: RequestContext) -> Response:
    """Cancel an upload (end-14).

    :raises RegistryError: BLOB_UPLOAD_UNKNOWN.
    """
    await discard_upload(context, await _find_upload(context))
    return Response(204)


async def _try_mount(context: RequestContext, digest: Digest) -> bool:
    source, grant = context.query.first("from") or None, context.grant
    if source is None:
        # The blob may be in any repository, so the caller needs access to all of them.
        permitted = grant.visible_repositories is None and grant.permits(CATALOG)
    else:
        permitted = grant.permits(Access("repository", source, "pull"))
    if not permitted:
        return False
    return await mount_blob(context, digest, source)


async def _find_upload(context: RequestContext) -> Upload:
    try:
        state = await _read_state(context)
    except RegistryError:
        state = None
    _check_owner(context, state)
    return await context.repository.uploads.find(context.route.variable)


def _check_owner(context: RequestContext, state: UploadState | None) -> None:
    """Raise BLOB_UPLOAD_UNKNOWN if another user started the upload, or may have.

    With access control every caller needs the whole URL with its state, as in Distribution: IDs
    of uploads are in logs. Where everybody may do everything, the state can be left out. An upload
    without owner (started by Distribution or by an anonymous caller) is open to anyone with its
    URL.
    """
    user = context.grant.user
    if state is None:
        is_refused = bool(user) or not isinstance(context.grant, OpenGrant)
    else:
        is_refused = state.owner not in {None, user}
    if is_refused:
        raise RegistryError(
            ErrorCode.BLOB_UPLOAD_UNKNOWN, detail={"upload": context.route.variable}
        )


def _digest_algorithm(context: RequestContext) -> str:
    algorithm = context.query.first(_ALGORITHM_PARAMETER) or CANONICAL
    if algorithm not in ALGORITHMS:
        raise RegistryError(
            ErrorCode.DIGEST_INVALID,
            detail={_ALGORITHM_PARAMETER: algorithm[:64], "known": [*ALGORITHMS]},
        )
    return algorithm


async def _read_state(context: RequestContext) -> UploadState | None:
    text = context.query.first("_state")
    if text is None:
        return None
    secret = await context.registry.upload_secret.load()
    try:
        return UploadState.unpack(text, secret, context.name, context.route.variable)
    except StateInvalid as error:
        raise RegistryError(ErrorCode.BLOB_UPLOAD_INVALID, detail=str(error)) from error


async def _declared_range(context: RequestContext, upload: Upload) -> ByteRange | None:
    header = context.header("content-range")
    if header is None:
        return None
    try:
        chunk = parse_content_range(header)
    except ContentRangeInvalid as error:
        raise await _out_of_order_error(context, upload, str(error)) from error
    if isinstance(context.body.length, int):
        await _check_length(context, upload, chunk, context.body.length)
    return chunk


async def _resume_upload(context: RequestContext) -> tuple[Upload, int, ByteRange | None]:
    """Return the upload, the offset where the client continues, and the declared range.

    The offset is that of Content-Range, else that of the state in the URL; without either, it is
    the end of the stored bytes.
    """
    try:
        state = await _read_state(context)
    except RegistryError:
        await _find_upload(context)
        raise
    _check_owner(context, state)
    if state is not None and context.header("content-range") is None:
        # The usual case needs no read of the store: the offset is checked when bytes are written.
        upload = context.repository.uploads.resume(context.route.variable, state.offset)
        return upload, state.offset, None
    upload = await _find_upload(context)
    chunk = await _declared_range(context, upload)
    return upload, upload.size if chunk is None else chunk.offset, chunk


async def _run_in_order(context: RequestContext, upload: Upload, work: Awaitable[object]) -> None:
    try:
        await work
    except UploadOutOfOrder as error:
        upload.size = error.size
        raise await _out_of_order_error(context, upload, error.detail) from error


async def _check_length(
    context: RequestContext, upload: Upload, chunk: ByteRange | None, length: int
) -> None:
    if chunk is not None and chunk.length != length:
        raise RegistryError(
            ErrorCode.SIZE_INVALID,
            detail={"content-range": chunk.length, "received": length},
            headers=tuple(await _progress_headers(context, upload, CANONICAL)),
        )


async def _out_of_order_error(
    context: RequestContext, upload: Upload, detail: object
) -> RegistryError:
    """Return a 416 with the stored size, and the URL where the client can continue."""
    return RegistryError(
        ErrorCode.RANGE_INVALID,
        detail=detail,
        headers=tuple(await _progress_headers(context, upload, _digest_algorithm(context))),
    )


async def _progress_headers(
    context: RequestContext, upload: Upload, algorithm: str
) -> list[tuple[str, str]]:
    secret = await context.registry.upload_secret.load()
    owner = context.grant.user or None
    state = UploadState(context.name, upload.id, upload.size, owner).pack(secret)
    query = [("_state", state)]
    if algorithm != CANONICAL:
        query.insert(0, (_ALGORITHM_PARAMETER, algorithm))
    url = context.url(context.name, "blobs", "uploads", upload.id, query=query)
    return [
        ("Location", url),
        # An empty upload is 0-0 as well: the form has no empty range.
        ("Range", f"0-{max(upload.size - 1, 0)}"),
        ("Docker-Upload-UUID", upload.id),
    ]


def _created_response(context: RequestContext, digest: Digest) -> Response:
    return Response(
        201,
        [
            ("Location", context.url(context.name, "blobs", str(digest))),
            ("Docker-Content-Digest", str(digest)),
        ],
    )
