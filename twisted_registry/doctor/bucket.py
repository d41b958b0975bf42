"""Check of the rights that a registry needs in a bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_registry.doctor.findings import Finding
from twisted_registry.storage.s3.errors import (
    BadCredentials,
    ClockSkewed,
    NoSuchBucket,
    S3Error,
    WrongRegion,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from twisted_registry.storage.s3.interfaces import IS3Client

#: What to do about errors that are no missing right, and no store that is down.
_ADVICE: tuple[tuple[type[S3Error], str], ...] = (
    (NoSuchBucket, "create the bucket, or correct {key}.bucket"),
    (WrongRegion, "correct {key}.region"),
    (ClockSkewed, "set the clock: timedatectl set-ntp true"),
    (BadCredentials, "correct {key}.accesskey and {key}.secretkey"),
)
_CONTENT = b"Stored and deleted again by twisted-registry doctor.\n"


async def check_bucket_rights(
    key: str, client: IS3Client, prefix: str, *, is_written: bool = True
) -> list[Finding]:
    """List, store, read and delete objects below a prefix; also in parts.

    What is stored is deleted again, if that is permitted.

    :param key: the section of the configuration.
    :param prefix: of the keys of the objects, without a slash at its end.
    :param is_written: whether the registry stores anything.
    """
    rights = _Rights(key, f"{client.bucket}/{prefix}/*")
    if not await rights.is_granted(
        "list", "s3:ListBucket", lambda: client.list_objects(prefix, limit=1)
    ):
        return rights.found
    if not is_written:
        return rights.found
    whole, parts = f"{prefix}/whole", f"{prefix}/parts"
    if await rights.is_granted("store", "s3:PutObject", lambda: client.put_object(whole, _CONTENT)):
        await rights.is_granted(
            "read", "s3:GetObject", lambda: client.read_object(whole, len(_CONTENT))
        )
        await rights.is_granted("delete", "s3:DeleteObject", lambda: client.delete_object(whole))
        await _try_parts(rights, client, parts)
    await rights.is_granted(
        "list the uploads of",
        "s3:ListBucketMultipartUploads",
        lambda: client.list_multipart_uploads(prefix),
        is_warning=True,
    )
    return rights.found


async def _try_parts(rights: _Rights, client: IS3Client, object_key: str) -> None:
    """Store an object in one part, and delete it."""

    async def complete() -> None:
        upload_id = await client.create_multipart_upload(object_key)
        try:
            part = await client.upload_part(object_key, upload_id, 1, _CONTENT)
            await client.complete_multipart_upload(object_key, upload_id, [part])
        except S3Error:
            await client.abort_multipart_upload(object_key, upload_id)
            raise

    async def abort() -> None:
        upload_id = await client.create_multipart_upload(object_key)
        await client.abort_multipart_upload(object_key, upload_id)

    if await rights.is_granted("store in parts", "s3:PutObject", complete):
        await rights.is_granted(
            "delete", "s3:DeleteObject", lambda: client.delete_object(object_key)
        )
        await rights.is_granted("abort uploads of", "s3:AbortMultipartUpload", abort)


class _Rights:
    """Collects what is not granted.

    :ivar found: a finding for each right that is missing.
    """

    def __init__(self, key: str, resource: str) -> None:
        self._key = key
        self._resource = resource
        self.found: list[Finding] = []

    async def is_granted(
        self,
        verb: str,
        right: str,
        request: Callable[[], Awaitable[Any]],
        *,
        is_warning: bool = False,
    ) -> bool:
        """Send a request; return whether it succeeded."""
        try:
            await request()
        except S3Error as error:
            advice = f"grant {right} on {self._resource}"
            if not 400 <= error.status < 500:
                advice = "start the store, or correct its address"
            for kind, text in _ADVICE:
                if isinstance(error, kind):
                    advice = text.format(key=self._key)
            problem = f"the registry cannot {verb} objects"
            self.found.append(Finding(self._key, problem, str(error), advice, is_warning))
            return False
        return True
