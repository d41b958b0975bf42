"""Deletion of many objects in one request."""

from __future__ import annotations

import base64
import hashlib

from tests.storage.s3.fake_agent import asked, failure_of, no_result, refusal, result_of, xml
from twisted_registry.storage.s3.errors import AccessDenied
from twisted_registry.storage.s3.interfaces import DeleteError
from twisted_registry.storage.s3.xml import parse_xml


def keys_of(request):
    return [item.text("Key") for item in parse_xml(request.sent).all("Object")]


def deleted(*faults):
    return xml(
        "DeleteResult",
        "".join(
            f"<Error><Key>{key}</Key><Code>{code}</Code><Message>no</Message></Error>"
            for key, code in faults
        ),
    )


def test_delete_objects_in_batches(client, agent):
    keys = [f"k{number}" for number in range(2001)]
    agent.answers = [deleted(), deleted(("k1000", "AccessDenied")), deleted()]
    assert result_of(client.delete_objects(keys)) == [DeleteError("k1000", "AccessDenied", "no")]
    assert [keys_of(request) for request in agent.requests] == [
        keys[:1000], keys[1000:2000], keys[2000:],
    ]  # fmt: skip
    digest = base64.b64encode(hashlib.md5(agent.last.sent).digest()).decode()
    assert asked(agent.last) == (
        "POST", "", {"delete": ""}, {"content-md5": digest, "content-type": "application/xml"},
    )  # fmt: skip


def test_delete_objects_without_keys_sends_nothing(client, agent):
    assert result_of(client.delete_objects([])) == []
    assert agent.requests == []


def test_missing_object_is_not_an_error(client, agent):
    agent.answers = [deleted(("a", "NoSuchKey"))]
    assert result_of(client.delete_objects(["a"])) == []


def test_transient_errors_of_keys_are_retried(client, agent, clock):
    agent.answers = [
        deleted(("a", "SlowDown"), ("b", "AccessDenied"), ("c", "InternalError")),
        deleted(("c", "SlowDown")),
        deleted(),
    ]
    deleting = client.delete_objects(["a", "b", "c", "d"])
    no_result(deleting)
    clock.advance(1)
    no_result(deleting)
    clock.advance(2)
    assert result_of(deleting) == [DeleteError("b", "AccessDenied", "no")]
    assert [keys_of(request) for request in agent.requests] == [
        ["a", "b", "c", "d"], ["a", "c"], ["c"],
    ]  # fmt: skip


def test_persistent_transient_errors_are_returned(client, agent, clock):
    agent.answers = [deleted(("a", "SlowDown")) for _ in range(4)]
    deleting = client.delete_objects(["a"])
    for wait in (1, 2, 4):
        clock.advance(wait)
    assert result_of(deleting) == [DeleteError("a", "SlowDown", "no")]


def test_all_batches_are_sent_before_an_error_is_raised(client, agent):
    agent.answers = [
        refusal(403, "AccessDenied"), deleted(), refusal(501, "NotImplemented"),
    ]  # fmt: skip
    failure_of(client.delete_objects([f"k{number}" for number in range(3000)]), AccessDenied)
    assert len(agent.requests) == 3
