"""Content of images: bytes in memory, or a part of a file that is read when it is needed.

Content that is written here stays in memory up to :data:`SPOOL_BYTES`. More goes to a temporary
file without a name, which disappears with the last object that refers to it.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from attrs import Factory, evolve, field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Bytes of written content that are kept in memory.
SPOOL_BYTES = 1024 * 1024
#: Bytes that are read or written at a time.
PIECE_BYTES = 256 * 1024


class TemporaryContent:
    """The descriptor of a temporary file; closed when this object is collected."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)


@frozen
class FileSection:
    """A part of a file.

    :ivar file: the path of a file that stays as it is, or a temporary file.
    :ivar offset: of the first byte.
    """

    file: Path | TemporaryContent
    offset: int = 0


@frozen
class Blob:
    """Content with its digest. It is not held in memory if it comes from a file.

    :ivar digest: ``sha256:`` and 64 hexadecimal digits.
    :ivar size: in bytes.
    :ivar media_type: the media type in descriptors.
    :ivar annotations: the annotations of its descriptor.
    :ivar diff_id: for a layer that was built or read here, the digest of the uncompressed archive;
        None if it is not known.
    """

    digest: str
    size: int
    media_type: str = "application/octet-stream"
    annotations: Mapping[str, str] = Factory(dict)
    diff_id: str | None = None
    _source: bytes | FileSection = field(default=b"", repr=False, eq=False)

    @classmethod
    def from_bytes(cls, content: bytes, media_type: str = "application/octet-stream") -> Self:
        """Return a blob of bytes in memory."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        return cls(digest, len(content), media_type, source=content)

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], media_type: str = "application/octet-stream"
    ) -> Self:
        """Return a blob of a file, which is read once for its digest.

        The file must stay unchanged as long as the blob is used.

        :raises OSError: if it cannot be read.
        """
        found = Path(path).resolve()
        return cls("", found.stat().st_size, media_type, source=FileSection(found)).hashed()

    def hashed(self) -> Self:
        """Return the same content with its digest; it is read once.

        :raises OSError: if it cannot be read.
        """
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return evolve(self, digest=f"sha256:{digest.hexdigest()}")

    def section(self, offset: int, size: int) -> Blob:
        """Return a part of the content, without its digest."""
        source = self._source
        if isinstance(source, bytes):
            return Blob("", size, source=source[offset : offset + size])
        return Blob("", size, source=FileSection(source.file, source.offset + offset))

    @property
    def descriptor(self) -> dict[str, Any]:
        """The descriptor (OCI image specification, descriptor.md)."""
        found: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        return found

    def open(self) -> io.BufferedIOBase:
        """Open the content for reading. The caller closes it.

        :raises OSError: if the file is gone.
        """
        source = self._source
        if isinstance(source, bytes):
            return io.BytesIO(source)
        if isinstance(source.file, Path):
            descriptor, owner = os.open(source.file, os.O_RDONLY | os.O_CLOEXEC), None
        else:
            descriptor, owner = source.file.descriptor, source.file
        return io.BufferedReader(
            _SectionReader(descriptor, source.offset, self.size, owner), PIECE_BYTES
        )

    def pieces(self) -> Iterator[bytes]:
        """Yield the content, at most 256 KiB at a time."""
        with self.open() as file:
            while piece := file.read(PIECE_BYTES):
                yield piece

    def read(self) -> bytes:
        """Return the whole content."""
        return b"".join(self.pieces())


class _SectionReader(io.RawIOBase):
    """Reads a section of a file at a position of its own.

    :ivar owner: the object that closes the descriptor; None if this reader does.
    """

    def __init__(self, descriptor: int, offset: int, size: int, owner: object) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._offset = offset
        self._size = size
        self._owner = owner
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: max(0, self._size - self._position)]
        if not view:
            return 0
        length = os.preadv(self._descriptor, [view], self._offset + self._position)
        if not length:
            raise EOFError(f"the file ends {self._size - self._position} bytes too early")
        self._position += length
        return length

    def close(self) -> None:
        if not self.closed and self._owner is None:
            os.close(self._descriptor)
        self._owner = None
        super().close()


class Spool:
    """Takes bytes, and becomes a blob.

    :ivar size: the bytes so far.
    """

    def __init__(self) -> None:
        self.size = 0
        self._hash = hashlib.sha256()
        self._memory: bytearray | None = bytearray()
        self._file: TemporaryContent | None = None

    def write(self, data: bytes) -> int:
        """Append bytes; return their number, as files do.

        :raises OSError: if the temporary file cannot be written.
        """
        self._hash.update(data)
        self.size += len(data)
        if self._memory is not None:
            self._memory += data
            if self.size <= SPOOL_BYTES:
                return len(data)
            with tempfile.TemporaryFile(buffering=0) as file:
                self._file = TemporaryContent(os.dup(file.fileno()))
            data, self._memory = bytes(self._memory), None
        assert self._file is not None
        view = memoryview(data)
        while view:
            view = view[os.write(self._file.descriptor, view) :]
        return len(data)

    def blob(
        self, media_type: str = "application/octet-stream", diff_id: str | None = None
    ) -> Blob:
        """Return the content. Nothing may be written afterwards."""
        digest = f"sha256:{self._hash.hexdigest()}"
        source: bytes | FileSection = bytes(self._memory or b"")
        if self._file is not None:
            source = FileSection(self._file)
        return Blob(digest, self.size, media_type, {}, diff_id, source)
