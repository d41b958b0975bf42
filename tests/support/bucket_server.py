"""The fake bucket of the tests as an S3 server, which refuses what strict stores refuse.

All parts of an upload but the last must have the same size, as in Cloudflare R2, and every request
must have the SHA-256 of its content. Signatures are not checked. As a program::

    python -m tests.support.bucket_server PORT
"""

from __future__ import annotations

import hashlib
import sys
from email.utils import formatdate
from functools import partial
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.storage.s3.fake_bucket import FakeBucket
from twisted_registry.storage.s3.errors import S3Error
from twisted_registry.storage.s3.interfaces import Part
from twisted_registry.storage.s3.xml import parse_xml

SHA256_HEADER = "x-amz-content-sha256"
METADATA_HEADER = "x-amz-meta-twisted-registry"
CREATED = "2013-05-24T00:00:00.000Z"
#: Statuses of errors that the fake bucket raises without one.
STATUSES = {"PreconditionFailed": 412, "RangeUnsatisfiable": 416, "InvalidPart": 400}
CODES = {"RangeUnsatisfiable": "InvalidRange"}


def document(name, *fields):
    """Return an XML document of pairs; a value that is a list has the pairs of an element."""
    return f'<?xml version="1.0"?>{element(name, fields)}'.encode()


def element(name, content):
    if isinstance(content, str | int):
        return f"<{name}>{escape(str(content))}</{name}>"
    return f"<{name}>{''.join(element(*field) for field in content)}</{name}>"


class BucketServer(Resource):
    """One bucket, with the name in the first part of the path."""

    isLeaf = True

    def __init__(self, bucket):
        super().__init__()
        self.bucket = bucket

    def render(self, request):
        _, _, key = unquote(request.path.decode()).lstrip("/").partition("/")
        query = dict(parse_qsl(request.uri.decode().partition("?")[2], keep_blank_values=True))
        answering = self.answer(request, request.method.decode(), key, query)
        answering.addErrback(self.fail, request)
        answering.addErrback(request.processingFailed)
        return NOT_DONE_YET

    @inlineCallbacks
    def answer(self, request, method, key, query):
        content = request.content.read()
        declared = request.getHeader(SHA256_HEADER)
        if declared is not None and declared != hashlib.sha256(content).hexdigest():
            raise S3Error(method, declared, code="XAmzContentSHA256Mismatch", status=400)
        handler = self.find_handler(method, key, query, request)
        body = yield handler(request, key, query, content)
        if request.method != b"HEAD":
            request.setHeader("content-length", str(len(body)))
        request.write(body)
        request.finish()

    def find_handler(self, method, key, query, request):
        detail = next((name for name in ("uploads", "uploadId") if name in query), "")
        if request.getHeader("x-amz-copy-source") is not None:
            detail += "copy"
        handler = HANDLERS.get((method, bool(key), detail))
        if handler is None:
            raise S3Error(method, "no such operation", code="NotImplemented", status=501)
        return partial(handler, self)

    def fail(self, failure, request):
        failure.trap(S3Error)
        error, kind = failure.value, type(failure.value).__name__
        request.setResponseCode(error.status or STATUSES.get(kind, 400))
        code = error.code or CODES.get(kind, kind)
        content = document("Error", ("Code", code), ("Message", error.message))
        request.setHeader("content-length", str(len(content)))
        request.write(b"" if request.method == b"HEAD" else content)
        request.finish()

    def create_bucket(self, *_):
        return b""

    @inlineCallbacks
    def list_objects(self, _request, _key, query, _content):
        found = yield self.bucket.list_objects(
            query.get("prefix", ""),
            delimiter=query.get("delimiter", ""),
            after=query.get("start-after", ""),
            token=query.get("continuation-token", ""),
            limit=int(query.get("max-keys", 1000)),
        )
        objects = [
            ("Contents", [("Key", info.key), ("Size", info.size), ("ETag", f'"{info.etag}"'),
                          ("LastModified", CREATED)])
            for info in found.objects
        ]  # fmt: skip
        prefixes = [("CommonPrefixes", [("Prefix", prefix)]) for prefix in found.prefixes]
        more = ("IsTruncated", "true" if found.token else "false")
        token = [("NextContinuationToken", found.token)] if found.token else []
        return document("ListBucketResult", more, *token, *objects, *prefixes)

    @inlineCallbacks
    def list_uploads(self, _request, _key, query, _content):
        marker = query.get("key-marker", ""), query.get("upload-id-marker", "")
        found = yield self.bucket.list_multipart_uploads(
            query.get("prefix", ""), marker=marker if any(marker) else None
        )
        uploads = [
            ("Upload", [("Key", each.key), ("UploadId", each.upload_id), ("Initiated", CREATED)])
            for each in found.uploads
        ]
        names = ("NextKeyMarker", "NextUploadIdMarker")
        following = zip(names, found.marker or (), strict=False)
        more = ("IsTruncated", "true" if found.marker else "false")
        return document("ListMultipartUploadsResult", more, *following, *uploads)

    @inlineCallbacks
    def delete_objects(self, _request, _key, _query, content):
        keys = [each.text("Key") for each in parse_xml(content).all("Object")]
        errors = yield self.bucket.delete_objects(keys)
        fields = [
            ("Error", [("Key", each.key), ("Code", each.code), ("Message", each.message)])
            for each in errors
        ]
        return document("DeleteResult", *fields)

    @inlineCallbacks
    def store(self, request, key, _query, content):
        etag = yield self.bucket.put_object(
            key,
            content,
            if_none_match=request.getHeader("if-none-match") == "*",
            metadata=request.getHeader(METADATA_HEADER) or "",
        )
        request.setHeader("etag", f'"{etag}"')
        return b""

    @inlineCallbacks
    def copy(self, request, key, _query, _content):
        etag = yield self.bucket.copy_object(self.source(request), key)
        return document("CopyObjectResult", ("ETag", f'"{etag}"'))

    @inlineCallbacks
    def copy_part(self, request, key, query, _content):
        found = request.getHeader("x-amz-copy-source-range")
        if found is not None:
            first, last = map(int, found.removeprefix("bytes=").split("-"))
        etag = yield self.bucket.upload_part_copy(
            key,
            query["uploadId"],
            int(query["partNumber"]),
            self.source(request),
            None if found is None else (first, last - first + 1),
        )
        return document("CopyPartResult", ("ETag", f'"{etag}"'))

    @staticmethod
    def source(request):
        return unquote(request.getHeader("x-amz-copy-source")).lstrip("/").partition("/")[2]

    @inlineCallbacks
    def create_upload(self, _request, key, _query, _content):
        upload_id = yield self.bucket.create_multipart_upload(key)
        return document("InitiateMultipartUploadResult", ("UploadId", upload_id))

    @inlineCallbacks
    def store_part(self, request, key, query, content):
        number = int(query["partNumber"])
        part = yield self.bucket.upload_part(key, query["uploadId"], number, content)
        request.setHeader("etag", f'"{part.etag}"')
        return b""

    @inlineCallbacks
    def complete(self, _request, key, query, content):
        stored = yield self.bucket.list_parts(key, query["uploadId"])
        sizes = {part.number: part.size for part in stored}
        parts = [
            Part(number, each.text("ETag").strip('"'), sizes.get(number, 0))
            for each in parse_xml(content).all("Part")
            for number in [int(each.text("PartNumber"))]
        ]
        etag = yield self.bucket.complete_multipart_upload(key, query["uploadId"], parts)
        return document("CompleteMultipartUploadResult", ("ETag", f'"{etag}"'))

    @inlineCallbacks
    def abort(self, request, key, query, _content):
        yield self.bucket.abort_multipart_upload(key, query["uploadId"])
        request.setResponseCode(204)
        return b""

    @inlineCallbacks
    def list_parts(self, _request, key, query, _content):
        parts = yield self.bucket.list_parts(key, query["uploadId"])
        fields = [
            ("Part", [("PartNumber", each.number), ("ETag", f'"{each.etag}"'),
                      ("Size", each.size), ("LastModified", CREATED)])
            for each in parts
        ]  # fmt: skip
        return document("ListPartsResult", ("IsTruncated", "false"), *fields)

    @inlineCallbacks
    def read(self, request, key, _query, _content):
        offset, length, found = 0, None, request.getHeader("range")
        if found is not None:
            first, last = found.removeprefix("bytes=").split("-")
            offset, length = int(first), int(last) - int(first) + 1 if last else None
        etag = (request.getHeader("if-match") or "").strip('"')
        body = yield self.bucket.get_object(key, offset, length, etag)
        content = yield body.collect()
        if found is not None:
            request.setResponseCode(206)
            end = offset + len(content) - 1
            request.setHeader("content-range", f"bytes {offset}-{end}/{body.info.size}")
        self.set_headers(request, body.info)
        return content

    @inlineCallbacks
    def head(self, request, key, _query, _content):
        info = yield self.bucket.head_object(key)
        self.set_headers(request, info)
        request.setHeader("content-length", str(info.size))
        return b""

    @staticmethod
    def set_headers(request, info):
        request.setHeader("etag", f'"{info.etag}"')
        request.setHeader("last-modified", formatdate((info.modified or 0) // 10**9, usegmt=True))
        if info.metadata:
            request.setHeader(METADATA_HEADER, info.metadata)

    @inlineCallbacks
    def delete(self, request, key, _query, _content):
        yield self.bucket.delete_object(key)
        request.setResponseCode(204)
        return b""


#: Operations: method, whether there is a key, what the query and the headers say.
HANDLERS = {
    ("PUT", False, ""): BucketServer.create_bucket,
    ("GET", False, ""): BucketServer.list_objects,
    ("GET", False, "uploads"): BucketServer.list_uploads,
    ("POST", False, ""): BucketServer.delete_objects,
    ("PUT", True, ""): BucketServer.store,
    ("PUT", True, "copy"): BucketServer.copy,
    ("PUT", True, "uploadId"): BucketServer.store_part,
    ("PUT", True, "uploadIdcopy"): BucketServer.copy_part,
    ("POST", True, "uploads"): BucketServer.create_upload,
    ("POST", True, "uploadId"): BucketServer.complete,
    ("GET", True, ""): BucketServer.read,
    ("GET", True, "uploadId"): BucketServer.list_parts,
    ("HEAD", True, ""): BucketServer.head,
    ("DELETE", True, ""): BucketServer.delete,
    ("DELETE", True, "uploadId"): BucketServer.abort,
}


if __name__ == "__main__":
    reactor.listenTCP(int(sys.argv[1]), Site(BucketServer(FakeBucket())), interface="127.0.0.1")
    reactor.run()
