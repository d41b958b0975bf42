"""What an answer that is no success says."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from twisted_registry.storage.s3.documents import DocumentError, Element, parse
from twisted_registry.storage.s3.errors import WrongRegion, error_class, passes

if TYPE_CHECKING:
    from twisted_registry.storage.s3.answer import Answer
    from twisted_registry.storage.s3.errors import S3Error

#: Characters of the store's own sentence that are passed on.
_LONGEST: Final = 300


def fault_of(answer: Answer, content: bytes, region: str) -> S3Error:
    """Answer the error that an answer stands for.

    :param content: its body; empty after HEAD, and perhaps no XML if it is not the store's own.
    :param region: that we signed for.
    """
    document = _document(content)
    code = document.text("Code")
    message = " ".join(document.text("Message").split())[:_LONGEST]
    kind = error_class(code, answer.status)
    facts: dict[str, Any] = {
        "code": code,
        "status": answer.status,
        "request_id": answer.header("x-amz-request-id") or document.text("RequestId"),
        "retry": passes(code, answer.status),
    }
    if kind is WrongRegion:
        right = answer.header("x-amz-bucket-region") or document.text("Region")
        if right and right != region:
            message = f"the bucket is in the region {right}, and not in {region}"
        elif document.text("Endpoint"):
            message = f"the bucket is to be asked for at {document.text('Endpoint')[:_LONGEST]}"
        return WrongRegion(answer.what, message or "the bucket is elsewhere", region=right, **facts)
    return kind(answer.what, message or _phrase(answer.status), **facts)


def _document(content: bytes) -> Element:
    try:
        document = parse(content)
    except DocumentError:
        return Element("")
    return document if document.name == "Error" else next(document.all("Error"), Element(""))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "refused"
