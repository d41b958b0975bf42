"""What an answer that is no success says."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from twisted_registry.storage.s3.documents import XMLError, Element, parse_xml
from twisted_registry.storage.s3.errors import WrongRegion, error_class, is_transient

if TYPE_CHECKING:
    from twisted_registry.storage.s3.answer import S3Response
    from twisted_registry.storage.s3.errors import S3Error

#: Characters of the store's own sentence that are passed on.
_MAX_MESSAGE_CHARS: Final = 300


def error_from_response(response: S3Response, content: bytes, region: str) -> S3Error:
    """Answer the error that an answer stands for.

    :param content: its body; empty after HEAD, and perhaps no XML if it is not the store's own.
    :param region: that we signed for.
    """
    document = _document(content)
    code = document.text("Code")
    message = " ".join(document.text("Message").split())[:_MAX_MESSAGE_CHARS]
    kind = error_class(code, response.status)
    facts: dict[str, Any] = {
        "code": code,
        "status": response.status,
        "request_id": response.header("x-amz-request-id") or document.text("RequestId"),
        "retry": is_transient(code, response.status),
    }
    if kind is WrongRegion:
        right = response.header("x-amz-bucket-region") or document.text("Region")
        if right and right != region:
            message = f"the bucket is in the region {right}, and not in {region}"
        elif document.text("Endpoint"):
            message = f"the bucket is to be asked for at {document.text('Endpoint')[:_MAX_MESSAGE_CHARS]}"
        return WrongRegion(response.what, message or "the bucket is elsewhere", region=right, **facts)
    return kind(response.what, message or _phrase(response.status), **facts)


def _document(content: bytes) -> Element:
    try:
        document = parse_xml(content)
    except XMLError:
        return Element("")
    return document if document.name == "Error" else next(document.all("Error"), Element(""))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "refused"
