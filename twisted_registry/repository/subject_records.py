"""Records of subjects: what a list of referrers needs of a manifest, without the manifest.

A manifest with a subject gets a record beside the link of its revision, so it disappears with the
revision. So does a large manifest without one, which a search for subjects need not parse then.
A record contains two lines and a descriptor::

    <CRC-32 of all that follows, in hexadecimal>
    <manifest> <subject> <artifact type> <media type> <bytes> <CRC-32 of the descriptor>
    <the descriptor as JSON, if it has at most 64 KiB>

``<manifest>`` and ``<subject>`` are digests, ``<artifact type>`` is the SHA-256 of the type; ``-``
stands for none. ``<media type>`` is ``declared`` if the manifest declares its media type, or else
``stored``: then the descriptor is that of one repository. A longer descriptor has a separate file.

Records can be rebuilt from the manifests. One that is missing, torn, damaged, or that of another
manifest counts as missing, and is written again when a list needs it.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING
from zlib import crc32

from attrs import field, frozen

from twisted_registry.oci.digest import Digest, DigestInvalid

if TYPE_CHECKING:
    from twisted_registry.oci.manifest import Manifest

#: Bytes of a descriptor that is part of its record; a longer one is a separate file.
MAX_INLINE_BYTES = 64 * 1024
#: Bytes of a record that are read at most.
MAX_RECORD_BYTES = MAX_INLINE_BYTES + 1024

_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
_NONE, _DECLARED, _STORED = "-", "declared", "stored"


@frozen
class SubjectRecord:
    """The subject of a manifest, and its descriptor for the list of referrers.

    :ivar manifest: the digest of the manifest.
    :ivar subject: the digest that it names as its subject, or None.
    :ivar artifact_type: the SHA-256 of the artifact type of the descriptor, or empty.
    :ivar is_declared: whether the manifest declares its media type, so that its descriptor is the
        same in each repository.
    :ivar size: bytes of the descriptor.
    :ivar checksum: CRC-32 of the descriptor.
    :ivar descriptor: the descriptor as JSON; empty if it is a separate file.
    """

    manifest: Digest
    subject: Digest | None
    artifact_type: str
    is_declared: bool
    size: int
    checksum: int
    descriptor: bytes = field(repr=False)

    @property
    def is_inline(self) -> bool:
        """Whether :attr:`descriptor` is complete."""
        return len(self.descriptor) == self.size

    def has_artifact_type(self, artifact_type: str) -> bool:
        """Return whether the descriptor has an artifact type."""
        return self.artifact_type == _hash_type(artifact_type)

    def matches(self, descriptor: bytes) -> bool:
        """Return whether a separate file contains the descriptor."""
        return len(descriptor) == self.size and crc32(descriptor) == self.checksum

    def to_bytes(self) -> bytes:
        """Return the content of the record."""
        fields = (
            self.manifest,
            self.subject or _NONE,
            self.artifact_type or _NONE,
            _DECLARED if self.is_declared else _STORED,
            self.size,
            f"{self.checksum:08x}",
        )
        rest = f"{' '.join(map(str, fields))}\n".encode("ascii") + self.descriptor
        return f"{crc32(rest):08x}\n".encode("ascii") + rest

    @classmethod
    def from_bytes(cls, manifest: Digest, content: bytes) -> SubjectRecord | None:
        """Parse the record of a manifest; return None if it is damaged, or that of another one."""
        checksum, _, rest = content.partition(b"\n")
        head, _, descriptor = rest.partition(b"\n")
        try:
            if int(checksum, 16) != crc32(rest):
                return None
            named, subject, artifact_type, media_type, size, crc = head.decode("ascii").split(" ")
            if named != str(manifest):
                return None
            return cls(
                manifest,
                None if subject == _NONE else Digest.parse(subject),
                "" if artifact_type == _NONE else artifact_type,
                media_type == _DECLARED,
                int(size),
                int(crc, 16),
                descriptor,
            )
        except (ValueError, DigestInvalid):
            return None


def make_record(
    digest: Digest, manifest: Manifest, size: int, *, is_declared: bool
) -> tuple[SubjectRecord, bytes]:
    """Make the record of a manifest.

    :param size: of the manifest in bytes.
    :param is_declared: whether the manifest declares its media type.
    :returns: the record, and the descriptor as JSON; it is empty without a subject.
    """
    if manifest.subject is None:
        return SubjectRecord(digest, None, "", is_declared, 0, crc32(b""), b""), b""
    document = manifest.referrer_descriptor(digest, size)
    descriptor = _encode(document)
    artifact_type = document.get("artifactType")
    record = SubjectRecord(
        digest,
        manifest.subject.digest,
        _hash_type(str(artifact_type)) if artifact_type else "",
        is_declared,
        len(descriptor),
        crc32(descriptor),
        descriptor if len(descriptor) <= MAX_INLINE_BYTES else b"",
    )
    return record, descriptor


def _encode(document: dict[str, object]) -> bytes:
    """Encode a descriptor as JSON, no longer than it was in its manifest."""
    # In steps, so that other threads run meanwhile: annotations may be as large as a manifest.
    text = "".join(_ENCODER.iterencode(document))
    # A lone surrogate can only be written as an escape, and both have the same form.
    return text.encode("utf-8", "backslashreplace")


def _hash_type(artifact_type: str) -> str:
    # A type may have any length.
    return hashlib.sha256(artifact_type.encode("utf-8", "surrogatepass")).hexdigest()
