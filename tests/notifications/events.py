"""Events and records for the tests."""

from __future__ import annotations

from tests.support.manifests import OCI_IMAGE, digest_of, image
from twisted_registry.notifications.envelope import EventSource, make_record
from twisted_registry.oci.digest import Digest
from twisted_registry.repository.interfaces import Event, Origin

SOURCE = EventSource("host:5000", "instance")
ORIGIN = Origin(
    "alice", "192.0.2.1", "PUT", "reg.test", "client/1", "request-1", "https://reg.test/v2/"
)
CONTENT = image(b"{}", b"layer")
DIGEST = Digest.parse(digest_of(CONTENT))


def push(tag="one", repository="team/app", **fields):
    """Return the event of a manifest that was pushed."""
    fields = {"size": len(CONTENT), "media_type": OCI_IMAGE, "content": CONTENT, **fields}
    return Event("push", "manifest", repository, DIGEST, ORIGIN, tag=tag, **fields)


def pull_blob():
    """Return the event of a blob that was pulled."""
    return Event("pull", "blob", "team/app", DIGEST, ORIGIN, size=5)


def record(name="1", event=None):
    """Return the record of an event, with an id."""
    return make_record(event or push(), name, 1_700_000_000.25, SOURCE, with_references=False)
