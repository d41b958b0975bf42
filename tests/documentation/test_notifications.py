"""The JSON documents of the documentation have the fields of those that are sent."""

from __future__ import annotations

import json

from tests.documentation.pages import blocks_in, each_block
from tests.notifications.events import record
from twisted_registry.notifications.envelope import encode_record


def names_of(value):
    """Return a document with its types in place of single values."""
    if isinstance(value, dict):
        return {name: names_of(each) for name, each in value.items()}
    if isinstance(value, list):
        return [names_of(each) for each in value]
    return type(value)


@each_block(blocks_in("json"))
def test_a_document_has_the_fields_of_an_event(block):
    _, body = encode_record(record(), "distribution")
    assert names_of(json.loads(block.text)) == names_of(json.loads(body))
