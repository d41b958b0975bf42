"""Entries of the audit log for requests that store or delete something."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError

from twisted_registry.api.request_log import DISCONNECTED, status_of_unanswered
from twisted_registry.auth.audit import AuditRecord, login_method
from twisted_registry.http.interfaces import BodyAborted
from twisted_registry.http.request_id import get_request_id
from twisted_registry.oci.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from twisted_registry.api.context import RequestContext
    from twisted_registry.api.response import Response
    from twisted_registry.auth.audit import IAuditLog, Outcome

#: The events of requests, by handler and method. The others change nothing that lasts.
_EVENTS: Mapping[tuple[str, str], str] = {
    ("manifest", "PUT"): "push",
    ("manifest", "DELETE"): "delete",
    ("blob", "DELETE"): "delete",
    ("repository", "DELETE"): "delete",
    ("blob_upload", "POST"): "push",
    ("blob_upload_chunk", "PUT"): "push",
    ("blob_upload_chunk", "DELETE"): "upload.cancel",
}
#: The status of a started upload, which is not a push yet.
_ACCEPTED = 202


async def run_audited(
    log: IAuditLog,
    handler: Callable[[RequestContext], Awaitable[Response]],
    context: RequestContext,
) -> Response:
    """Return the response of a handler, and record what it has done, or why it failed."""
    event = _EVENTS.get((context.route.endpoint.handler, context.method))
    if event is None:
        return await handler(context)
    try:
        response = await handler(context)
    except RegistryError as error:
        outcome: Outcome = "denied" if error.code is ErrorCode.DENIED else "failure"
        log.record(_make_record(context, event, outcome, error.http_status, error.code.name))
        raise
    except (CancelledError, BodyAborted):
        status = status_of_unanswered(context.request)
        reason = "DISCONNECTED" if status == DISCONNECTED else HTTPStatus(status).name
        log.record(_make_record(context, event, "failure", status, reason))
        raise
    except Exception:
        code = ErrorCode.UNKNOWN
        log.record(_make_record(context, event, "failure", code.status, code.name))
        raise
    if context.route.endpoint.handler != "blob_upload" or response.status != _ACCEPTED:
        digest = dict(response.headers).get("Docker-Content-Digest", "")
        log.record(_make_record(context, event, "success", response.status, "", digest))
    return response


def _make_record(
    context: RequestContext,
    event: str,
    outcome: Outcome,
    status: int,
    error: str = "",
    digest: str = "",
) -> AuditRecord:
    caller, user, route, query = context.caller, context.grant.user, context.route, context.query
    handler, detail, reference, target = route.endpoint.handler, {}, "", ""
    digest = digest or query.first("digest") or ""
    if handler == "manifest":
        reference = route.variable
        if ":" in reference:
            digest = reference
        tags = " ".join(query.all("tag"))
        if tags:
            detail["tags"] = tags
    elif handler == "blob":
        digest = route.variable
    elif handler == "blob_upload_chunk":
        target = route.variable
    mounted = query.first("mount") if handler == "blob_upload" else None
    if mounted:
        digest = mounted
        detail["mounted_from"] = query.first("from") or ""
    return AuditRecord(
        event,
        outcome,
        user,
        login_method(user, caller),
        caller.address,
        caller.peer,
        context.name,
        reference,
        digest,
        target,
        status,
        error,
        get_request_id(context.request),
        detail,
    )
