"""The bodies of notifications: Distribution's envelope, and CloudEvents.

An event waits as a **record**: the event of Distribution 3 as plain data, without empty fields, and
what Distribution does not send: the kind of content, the URL of the API, and the headers that pass
on the trace of the request. The format of an endpoint is applied when the record is sent.

Sources: ``notifications/event.go`` of CNCF Distribution 2.8.3 and 3.1.1; CloudEvents 1.0.2, JSON
event format, structured content mode.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from twisted_registry.oci.manifest import ManifestInvalid, parse_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted_registry.oci.manifest import Descriptor
    from twisted_registry.repository.interfaces import Event, Origin

#: The media type that Distribution gives to all blobs.
BLOB_MEDIA_TYPE: Final = "application/octet-stream"
#: The header of :func:`sign`, which receivers of other services' notifications verify as well.
SIGNATURE_HEADER: Final = "X-Hub-Signature-256"
#: References of one manifest in its event. An index may have more, and a queue holds many events.
MAX_REFERENCES: Final = 1000
#: Fields of a target that Distribution 3 sends even if they are empty, and 2.8 does not.
_ALWAYS_SENT: Final = {"mediaType": "", "digest": "", "size": 0}
#: Fields of a record that are not part of Distribution's event.
_NOT_SENT: Final = frozenset({"kind", "api_url", "trace"})

Record = dict[str, Any]


@frozen
class EventSource:
    """The process in which events happen.

    :ivar address: host name and port.
    :ivar instance_id: unique for each start.
    """

    address: str
    instance_id: str


def make_record(
    event: Event, event_id: str, seconds: float, source: EventSource, *, with_references: bool
) -> Record:
    """Return the record of an event.

    :param event_id: a unique id.
    :param seconds: the time of the event, since the epoch.
    :param with_references: list what a manifest refers to.
    """
    time = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
    origin = event.origin
    return {
        "kind": event.kind,
        "api_url": origin.api_url,
        "id": event_id,
        "timestamp": time.replace("+00:00", "Z"),
        "action": event.action,
        "target": _make_target(event, with_references=with_references),
        "request": _make_request(origin),
        "actor": _without_empty({"name": origin.user}),
        "source": {"addr": source.address, "instanceID": source.instance_id},
    }


def media_type_of(event: Event) -> str:
    """Return the media type of the target; empty for a delete, as in Distribution."""
    if event.action == "delete":
        return ""
    return BLOB_MEDIA_TYPE if event.kind == "blob" else event.media_type or ""


def _make_target(event: Event, *, with_references: bool) -> Record:
    size = event.size or 0
    target = _without_empty(
        {
            "mediaType": media_type_of(event),
            "digest": "" if event.digest is None else str(event.digest),
            "size": size,
            "length": size,
            "repository": event.repository,
            "fromRepository": event.source or "",
            "url": _url_of(event),
            "tag": event.tag or "",
        }
    )
    if with_references and event.content is not None:
        target["references"] = _references(event.content, event.media_type)
    return target


def _url_of(event: Event) -> str:
    if not event.origin.api_url or event.digest is None or event.action == "delete":
        return ""
    kind = "blobs" if event.kind == "blob" else "manifests"
    return f"{event.origin.api_url}{event.repository}/{kind}/{event.digest}"


def _make_request(origin: Origin) -> Record:
    optional = _without_empty({"addr": origin.address, "host": origin.host})
    return {
        "id": origin.request_id,
        **optional,
        "method": origin.method,
        "useragent": origin.user_agent,
    }


def _references(content: bytes, media_type: str | None) -> list[Record]:
    try:
        manifest = parse_manifest(content, media_type)
    except ManifestInvalid:
        return []  # stored by the rules of another registry
    descriptors = (*manifest.blobs, *manifest.manifests)
    return [_make_reference(each) for each in descriptors[:MAX_REFERENCES]]


def _make_reference(descriptor: Descriptor) -> Record:
    return _without_empty(
        {
            "mediaType": descriptor.media_type,
            "digest": str(descriptor.digest),
            "size": descriptor.size,
            "urls": list(descriptor.urls),
            "platform": descriptor.platform,
        }
    )


def _without_empty(fields: Record) -> Record:
    return {name: value for name, value in fields.items() if value}


def encode_record(record: Record, form: str) -> tuple[str, bytes]:
    """Return the Content-Type and the body of the request that sends a record.

    :param form: one of the formats of :mod:`twisted_registry.config.notifications`.
    """
    content_type, make_document = _FORMATS[form]
    event = {name: value for name, value in record.items() if name not in _NOT_SENT}
    return content_type, json.dumps(make_document(event, record)).encode("ascii")


def _distribution_3(event: Record, _record: Record) -> Record:
    return {"events": [{**event, "target": {**_ALWAYS_SENT, **event["target"]}}]}


def _distribution_2(event: Record, _record: Record) -> Record:
    return {"events": [event]}


def _cloud_event(event: Record, record: Record) -> Record:
    target = event["target"]
    return {
        "specversion": "1.0",
        "id": event["id"],
        "source": f"{record['api_url'] or '/v2/'}{target['repository']}",
        "type": f"twisted-registry.{record['kind']}.{event['action']}",
        "subject": target.get("tag") or target.get("digest", ""),
        "time": event["timestamp"],
        "datacontenttype": "application/json",
        "data": event,
    }


_EVENTS: Final = "application/vnd.docker.distribution.events"
_FORMATS: Mapping[str, tuple[str, Callable[[Record, Record], Record]]] = {
    "distribution": (f"{_EVENTS}.v2+json", _distribution_3),
    "distribution-v1": (f"{_EVENTS}.v1+json", _distribution_2),
    "cloudevents": ("application/cloudevents+json; charset=utf-8", _cloud_event),
}


def sign(body: bytes, secret: str) -> str:
    """Return the value of the header with the HMAC-SHA256 of a body.

    :param secret: shared with the endpoint.
    """
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return f"sha256={digest}"
