"""How objects are to be kept: the headers of every request that makes one."""

from __future__ import annotations

from attrs import frozen


@frozen
class ObjectOptions:
    """What the store is told about new objects. What is empty is left to the bucket.

    :ivar encrypt: whether the store shall encrypt, by AES256 or by a key of its KMS.
    :ivar key_id: of the key in the KMS; without effect unless ``encrypt``.
    :ivar storage_class: such as ``STANDARD_IA``.
    :ivar acl: such as ``private``.
    """

    encrypt: bool = False
    key_id: str = ""
    storage_class: str = ""
    acl: str = ""

    def headers(self) -> dict[str, str]:
        """The headers of PutObject, CopyObject and CreateMultipartUpload."""
        headers = {
            "content-type": "application/octet-stream",
            "x-amz-storage-class": self.storage_class,
            "x-amz-acl": self.acl,
        }
        if self.encrypt:
            headers["x-amz-server-side-encryption"] = "aws:kms" if self.key_id else "AES256"
            headers["x-amz-server-side-encryption-aws-kms-key-id"] = self.key_id
        return {name: value for name, value in headers.items() if value}
