"""A bucket in memory that checks parts and conditions as AWS does, with failure hooks."""

from __future__ import annotations

import hashlib
from itertools import count

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, execute, fail, succeed
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from twisted_registry.storage.s3.errors import (
    InvalidPart,
    InvalidResponse,
    NoSuchUpload,
    NotFound,
    PreconditionFailed,
    RangeUnsatisfiable,
    S3Error,
    Unsupported,
)
from twisted_registry.storage.s3.interfaces import (
    DeleteError,
    IObjectBody,
    IS3Client,
    MultipartUpload,
    ObjectInfo,
    ObjectListing,
    Part,
    UploadListing,
)

MIN_PART_BYTES = 5 * 1024 * 1024


@frozen
class Stored:
    content: bytes
    etag: str
    metadata: str = ""


@define
class Unfinished:
    key: str
    initiated: int
    parts: dict[int, tuple[str, bytes]] = field(factory=dict)
    times: dict[int, int] = field(factory=dict)


@implementer(IObjectBody, IPushProducer)
@define(eq=False)
class FakeBody:
    """A body in pieces, which fails ``breaks`` bytes before its end."""

    info: ObjectInfo
    content: bytes
    piece: int
    breaks: int = 0
    error: S3Error | None = None
    consumer: object = None
    done: Deferred | None = None
    paused: bool = False
    busy: bool = False
    sent: int = 0
    closed: bool = False

    @property
    def length(self):
        return len(self.content)

    def deliver(self, consumer):
        self.consumer = consumer
        self.done = Deferred(lambda _: self.free())
        consumer.registerProducer(self, True)
        self.run()
        return self.done

    def collect(self):
        return succeed(self.content)

    def close(self):
        self.closed = True

    def free(self):
        consumer, self.consumer = self.consumer, None
        if consumer is not None:
            consumer.unregisterProducer()

    def pauseProducing(self):
        self.paused = True

    def resumeProducing(self):
        self.paused = False
        self.run()

    def stopProducing(self):
        self.done.cancel()

    def run(self):
        if self.busy:
            return
        self.busy = True
        end = self.length - self.breaks
        while self.consumer is not None and not self.paused and self.sent < end:
            piece = self.content[self.sent : min(end, self.sent + self.piece)]
            self.sent += len(piece)
            self.consumer.write(piece)
        self.busy = False
        if self.consumer is not None and self.sent >= end:
            self.free()
            if self.breaks:
                self.done.errback(self.error)
            else:
                self.done.callback(None)


@implementer(IS3Client)
@define(eq=False)
class FakeBucket:
    """Operations that complete at once, unless a hook delays them or makes them fail.

    :ivar asked: names and keys of all operations.
    :ivar equal_parts: whether all parts of an object except the last must have the same size.
    :ivar breaks: for the next bodies: how many bytes before its end each fails.
    :ivar digests: the SHA-256 that came with each object, by key; empty if there was none.
    :ivar part_sizes: of the objects that were made of parts.
    :ivar break_error: how they fail.
    :ivar bodies: all bodies of ``get_object``.
    :ivar hooks: by operation: called with the key; returns None, an error, or a Deferred to wait
        for before the operation.
    """

    bucket: str = "bucket"
    conditional: str = "obeyed"
    equal_parts: bool = True
    page: int = 1000
    piece: int = 64 * 1024
    objects: dict[str, Stored] = field(factory=dict)
    uploads: dict[str, Unfinished] = field(factory=dict)
    asked: list[tuple[str, str]] = field(factory=list)
    hooks: dict[str, object] = field(factory=dict)
    breaks: list[int] = field(factory=list)
    break_error: S3Error = field(default=InvalidResponse("GetObject", "cut short", retryable=True))
    bodies: list[FakeBody] = field(factory=list)
    undeletable: set[str] = field(factory=set)
    ids: object = field(factory=lambda: count(1))
    now: int = 0
    closed: bool = False
    part_sizes: dict[str, list[int]] = field(factory=dict)
    digests: dict[str, str] = field(factory=dict)

    def do(self, name, key, function, *arguments):
        self.asked.append((name, key))
        hook = self.hooks.get(name)
        held = None if hook is None else hook(key)
        if isinstance(held, Exception):
            return fail(held)
        if held is None:
            return execute(function, *arguments)
        waiting = Deferred(lambda _: None)
        held.addCallback(
            lambda _: (
                None if waiting.called else execute(function, *arguments).chainDeferred(waiting)
            )
        )
        held.addErrback(lambda failure: None if waiting.called else waiting.errback(failure))
        return waiting

    def count(self, name):
        return sum(1 for asked, _ in self.asked if asked == name)

    def found(self, key):
        if key not in self.objects:
            raise NotFound("Get", "no such key", code="NoSuchKey", status=404)
        return self.objects[key]

    def info(self, key):
        stored = self.found(key)
        return ObjectInfo(key, len(stored.content), stored.etag, self.now, stored.metadata)

    def head_bucket(self):
        return self.do("head_bucket", "", lambda: None)

    def head_object(self, key):
        return self.do("head_object", key, self.info, key)

    def get_object(self, key, offset=0, length=None, etag=""):
        return self.do("get_object", key, self._get, key, offset, length, etag)

    def _get(self, key, offset, length, etag):
        assert length is None or length > 0
        stored = self.found(key)
        if etag and etag != stored.etag:
            raise PreconditionFailed("GetObject", "changed")
        if (offset or length is not None) and offset >= len(stored.content):
            raise RangeUnsatisfiable("GetObject", "behind the end")
        content = stored.content[offset:][:length]
        breaks = self.breaks.pop(0) if self.breaks else 0
        self.bodies.append(FakeBody(self.info(key), content, self.piece, breaks, self.break_error))
        return self.bodies[-1]

    def read_object(self, key, limit):
        return self.do("read_object", key, self._read, key, limit)

    def _read(self, key, limit):
        stored = self.found(key)
        if len(stored.content) > limit:
            raise S3Error("GetObject", "too large", code="EntityTooLarge")
        return self.info(key), stored.content

    def put_object(self, key, content, *, sha256="", if_none_match=False, metadata=""):
        return self.do("put_object", key, self._put, key, content, sha256, if_none_match, metadata)

    def _put(self, key, content, sha256, if_none_match, metadata):
        content = content if isinstance(content, bytes) else b"".join(content)
        assert sha256 in {"", hashlib.sha256(content).hexdigest()}
        self.digests[key] = sha256
        return self.store(key, content, if_none_match, metadata)

    def store(self, key, content, if_none_match=False, metadata=""):
        if if_none_match and self.conditional == "unknown":
            raise Unsupported("PutObject", "no conditions", code="NotImplemented", status=501)
        if if_none_match and self.conditional == "obeyed" and key in self.objects:
            raise PreconditionFailed("PutObject", "is there")
        content = content if isinstance(content, bytes) else b"".join(content)
        etag = hashlib.md5(content).hexdigest()
        self.objects[key] = Stored(content, etag, metadata)
        return etag

    def delete_object(self, key):
        return self.do("delete_object", key, lambda: self.objects.pop(key, None) and None)

    def delete_objects(self, keys):
        return self.do("delete_objects", ",".join(keys), self._delete, keys)

    def _delete(self, keys):
        for key in keys:
            if key not in self.undeletable:
                self.objects.pop(key, None)
        return [DeleteError(k, "AccessDenied", "no") for k in keys if k in self.undeletable]

    def copy_object(self, source, destination, *, size=0):
        return self.do("copy_object", source, self._copy, source, destination)

    def _copy(self, source, destination):
        stored = self.found(source)
        self.objects[destination] = stored
        return stored.etag

    def list_objects(self, prefix, *, delimiter="", after="", token="", limit=1000):
        return self.do("list_objects", prefix, self._list, prefix, delimiter, token or after, limit)

    def _list(self, prefix, delimiter, after, limit):
        assert 1 <= limit <= 1000
        assert len(prefix) + len(after) < 1000
        assert after.isprintable()
        limit = min(limit, self.page)
        objects, prefixes, last = [], [], ""
        for key in sorted(self.objects, key=lambda key: key.encode()):
            if not key.startswith(prefix) or key <= after:
                continue
            if prefixes and key.startswith(prefixes[-1]):
                last = key
                continue
            if len(objects) + len(prefixes) == limit:
                return ObjectListing(tuple(objects), tuple(prefixes), last)
            head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            if found:
                prefixes.append(prefix + head + delimiter)
            else:
                objects.append(evolve(self.info(key), metadata=""))
            last = key
        return ObjectListing(tuple(objects), tuple(prefixes), "")

    def create_multipart_upload(self, key):
        return self.do("create_multipart_upload", key, self._create, key)

    def _create(self, key):
        upload_id = f"upload-{next(self.ids)}"
        self.uploads[upload_id] = Unfinished(key, self.now)
        return upload_id

    def _unfinished(self, key, upload_id):
        upload = self.uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise NoSuchUpload("UploadPart", "no such upload", code="NoSuchUpload", status=404)
        return upload

    def upload_part(self, key, upload_id, number, content):
        return self.do("upload_part", key, self._part, key, upload_id, number, content)

    def _part(self, key, upload_id, number, content):
        content = content if isinstance(content, bytes) else b"".join(content)
        etag = hashlib.md5(content).hexdigest()
        self._unfinished(key, upload_id).parts[number] = etag, content
        self._unfinished(key, upload_id).times[number] = self.now
        return Part(number, etag, len(content))

    def upload_part_copy(self, key, upload_id, number, source, byte_range=None, *, size=0):
        return self.do(
            "upload_part_copy",
            source,
            self._part_copy,
            key,
            upload_id,
            number,
            source,
            byte_range,
        )

    def _part_copy(self, key, upload_id, number, source, byte_range):
        stored = self.found(source)
        offset, length = byte_range or (0, len(stored.content))
        assert byte_range is None or len(stored.content) > MIN_PART_BYTES
        return self._part(key, upload_id, number, stored.content[offset:][:length]).etag

    def complete_multipart_upload(self, key, upload_id, parts):
        return self.do("complete_multipart_upload", key, self._complete, key, upload_id, parts)

    def _complete(self, key, upload_id, parts):
        stored = self._unfinished(key, upload_id).parts
        assert [part.number for part in parts] == sorted({part.number for part in parts})
        content = []
        for part in parts:
            etag, data = stored.get(part.number, ("", b""))
            if etag != part.etag or (part is not parts[-1] and len(data) < MIN_PART_BYTES):
                raise InvalidPart("CompleteMultipartUpload", "is not the part", status=400)
            assert part.size == len(data)
            if self.equal_parts and (
                len(data) > len(stored[1][1])
                or (part is not parts[-1] and len(data) < len(stored[1][1]))
            ):
                # The answer of Cloudflare R2.
                raise InvalidPart(
                    "CompleteMultipartUpload",
                    "All non-trailing parts must have the same length.",
                    code="InvalidPart",
                    status=400,
                )
            content.append(data)
        del self.uploads[upload_id]
        self.part_sizes[key] = [part.size for part in parts]
        whole = b"".join(content)
        etag = f"{hashlib.md5(whole).hexdigest()}-{len(parts)}"
        self.objects[key] = Stored(whole, etag)
        return etag

    def abort_multipart_upload(self, key, upload_id):
        return self.do(
            "abort_multipart_upload", key, lambda: self.uploads.pop(upload_id, None) and None
        )

    def list_multipart_uploads(self, prefix, *, marker=None, limit=1000):
        return self.do("list_multipart_uploads", prefix, self._uploads, prefix, marker)

    def _uploads(self, prefix, marker):
        found = sorted(
            (upload.key, upload_id, upload.initiated)
            for upload_id, upload in self.uploads.items()
            if upload.key.startswith(prefix)
        )
        later = [row for row in found if marker is None or row[:2] > marker]
        page = later[: self.page]
        following = page[-1][:2] if len(later) > len(page) else None
        return UploadListing(
            tuple(MultipartUpload(key, upload_id, at) for key, upload_id, at in page), following
        )

    def list_parts(self, key, upload_id):
        return self.do("list_parts", key, self._list_parts, key, upload_id)

    def _list_parts(self, key, upload_id):
        upload = self._unfinished(key, upload_id)
        return [
            Part(number, etag, len(data), upload.times[number])
            for number, (etag, data) in sorted(upload.parts.items())
        ]

    def presign(self, key, method, expires):
        return succeed(f"https://store/{key}?{method}&{expires}")

    def close(self):
        self.closed = True
        return succeed(None)
