"""Layers: tar archives, built from files or recognized by their first bytes.

A layer that is built here has no times, owners or order of its own: equal files make an equal
digest. By default it is a gzip file of stored blocks, which no version of zlib changes.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import evolve, frozen

from twisted_registry.testing.blobs import PIECE_BYTES, Blob, Spool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OCI_TAR = "application/vnd.oci.image.layer.v1.tar"
OCI_TAR_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_TAR_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"

GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
#: Bytes of one stored block (RFC 1951 section 3.2.4).
_MAX_STORED_BYTES = 0xFFFF


@frozen
class File:
    """A file of a layer.

    :ivar content: text (stored as UTF-8), bytes, or the path of a file to copy piece by piece.
    :ivar mode: permissions.
    :ivar uid: the number of the owner.
    :ivar gid: the number of the group.
    """

    content: str | bytes | Path = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


@frozen
class Symlink:
    """A symbolic link of a layer."""

    target: str


@frozen
class Folder:
    """A folder of a layer.

    :ivar mode: permissions.
    :ivar uid: the number of the owner.
    :ivar gid: the number of the group.
    """

    mode: int = 0o755
    uid: int = 0
    gid: int = 0


#: What a path of a layer is: a file, by its content or by more, a link, or a folder; None is a
#: folder of root.
Entry: TypeAlias = "str | bytes | Path | File | Symlink | Folder | None"
#: What a layer is made of: the entries by path, the bytes or the file of a finished layer, a blob.
LayerSource: TypeAlias = "Mapping[str, Entry] | bytes | Path | Blob"


def make_layer(source: LayerSource, *, compress: bool = False) -> Blob:
    """Return a layer.

    :param source: entries by path make a new archive; anything else is a finished layer, whose
        media type is found by its first bytes.
    :param compress: whether a new archive is compressed with zlib. The digest then depends on the
        version of zlib.
    :raises ValueError: for a path outside of the archive.
    :raises TypeError: for content of another type.
    :raises OSError: if a file cannot be read.
    """
    if isinstance(source, Blob):
        return source
    if isinstance(source, bytes):
        return recognize(Blob.from_bytes(source))
    if isinstance(source, Path):
        return recognize(Blob.from_file(source))
    if not hasattr(source, "items"):
        raise TypeError(
            "a layer is a mapping of files, bytes, a pathlib.Path or a Blob, not"
            f" {type(source).__name__}"
        )
    return _build(source, compress=compress)


def recognize(layer: Blob) -> Blob:
    """Return a finished layer with the media type that its first bytes show."""
    with layer.open() as file:
        start = file.read(4)
    media_type = OCI_TAR
    if start.startswith(GZIP_MAGIC):
        media_type = OCI_TAR_GZIP
    elif start.startswith(_ZSTD_MAGIC):
        media_type = OCI_TAR_ZSTD
    return evolve(layer, media_type=media_type)


def diff_id_of(layer: Blob) -> str | None:
    """Return the digest of the uncompressed archive; None if it cannot be uncompressed here."""
    if layer.diff_id is not None:
        return layer.diff_id
    if layer.media_type.endswith("+zstd"):
        return None
    if not layer.media_type.endswith("gzip"):
        return layer.digest
    digest = hashlib.sha256()
    for piece in decompressed(layer.pieces()):
        digest.update(piece)
    return f"sha256:{digest.hexdigest()}"


def decompressed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the content of a gzip file of one or more members (RFC 1952).

    :raises zlib.error: if it is damaged.
    :raises EOFError: if it ends too early.
    """
    member = zlib.decompressobj(31)
    for piece in pieces:
        data = piece
        while data:
            if member.eof:
                member = zlib.decompressobj(31)
            found = member.decompress(data, PIECE_BYTES)
            if found:
                yield found
            data = member.unconsumed_tail or member.unused_data
    if not member.eof:
        raise EOFError("the gzip file ends too early")


def _build(entries: Mapping[str, Entry], *, compress: bool) -> Blob:
    spool = Spool()
    packer = _ZlibGzip(spool) if compress else _StoredGzip(spool)
    hashing: Any = _HashingWriter(packer)
    with tarfile.open(fileobj=hashing, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for path, entry in sorted(_with_folders(entries).items()):
            _add(archive, path, entry)
    packer.close()
    return spool.blob(OCI_TAR_GZIP, hashing.digest)


def _with_folders(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return the entries by relative path, with the folders above them."""
    found: dict[str, Entry] = {}
    for name, entry in entries.items():
        path = PurePosixPath(name.lstrip("/"))
        if ".." in path.parts or not path.parts:
            raise ValueError(f"{name!r} is not a path inside of a layer")
        for parent in path.parents:
            if parent.parts:
                found.setdefault(str(parent))
        if not isinstance(entry, str | bytes | Path | File | Symlink | Folder | None):
            raise TypeError(
                f"{name!r}: expected str, bytes, pathlib.Path, File, Symlink, Folder or None for a"
                f" folder, not {type(entry).__name__}"
            )
        found[str(path)] = entry
    return found


def _add(archive: tarfile.TarFile, path: str, entry: Entry) -> None:
    member = tarfile.TarInfo(path)
    if entry is None or isinstance(entry, Folder):
        folder = entry or Folder()
        member.type = tarfile.DIRTYPE
        member.mode, member.uid, member.gid = folder.mode, folder.uid, folder.gid
        archive.addfile(member)
        return
    if isinstance(entry, Symlink):
        member.type, member.mode, member.linkname = tarfile.SYMTYPE, 0o777, entry.target
        archive.addfile(member)
        return
    file = entry if isinstance(entry, File) else File(entry)
    member.mode, member.uid, member.gid = file.mode, file.uid, file.gid
    if isinstance(file.content, Path):
        with file.content.open("rb") as source:
            status = os.fstat(source.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{file.content} is not a regular file")
            member.size = status.st_size
            archive.addfile(member, source)
        return
    content = file.content.encode() if isinstance(file.content, str) else file.content
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


class _HashingWriter:
    """Hashes what it passes on."""

    def __init__(self, target: _StoredGzip | _ZlibGzip) -> None:
        self._target = target
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self._target.write(data)
        return len(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


class _ZlibGzip:
    """A gzip file of compressed blocks."""

    def __init__(self, target: Spool) -> None:
        self._target = target
        self._packer = zlib.compressobj(9, zlib.DEFLATED, 31)

    def write(self, data: bytes) -> None:
        self._target.write(self._packer.compress(data))

    def close(self) -> None:
        self._target.write(self._packer.flush())


class _StoredGzip:
    """A gzip file of stored blocks (RFC 1952, RFC 1951 section 3.2.4)."""

    def __init__(self, target: Spool) -> None:
        self._target = target
        self._waiting = bytearray()
        self._checksum = self._size = 0
        target.write(_GZIP_HEADER)

    def write(self, data: bytes) -> None:
        self._checksum = zlib.crc32(data, self._checksum)
        self._size += len(data)
        self._waiting += data
        while len(self._waiting) > _MAX_STORED_BYTES:
            self._write_block(_MAX_STORED_BYTES, last=False)

    def close(self) -> None:
        self._write_block(len(self._waiting), last=True)
        self._target.write(
            self._checksum.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")
        )

    def _write_block(self, size: int, *, last: bool) -> None:
        content = bytes(self._waiting[:size])
        del self._waiting[:size]
        lengths = size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little")
        self._target.write((b"\1" if last else b"\0") + lengths + content)
