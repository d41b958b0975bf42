from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from twisted_registry.api.uploads import StateInvalid, UploadState

SECRET = b"secret"
STATE = UploadState("library/alpine", "3c9e6f3a-0000-4000-8000-000000000000", 17)


def signed(document, secret=SECRET):
    mac = hmac.new(secret, document, hashlib.sha256).digest()
    return urlsafe_b64encode(mac + document).decode()


def unpack(text):
    return UploadState.unpack(text, SECRET, STATE.name, STATE.id)


def test_a_packed_state_is_unpacked():
    assert unpack(STATE.pack(SECRET)) == STATE


def test_the_owner_is_part_of_the_state():
    mine = evolve(STATE, owner="ada")
    assert unpack(mine.pack(SECRET)) == mine
    assert b"Owner" not in urlsafe_b64decode(STATE.pack(SECRET))


def test_a_state_of_distribution_is_unpacked():
    document = json.dumps(
        {
            "Name": STATE.name,
            "UUID": STATE.id,
            "Offset": 17,
            "StartedAt": "2024-05-01T10:00:00.123456789Z",
        }
    ).encode()
    assert unpack(signed(document)) == STATE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "not base64!",
        "AAAA",
        "é",
        "a" * 5000,
        STATE.pack(b"another secret"),
        STATE.pack(SECRET)[:-4],
        STATE.pack(SECRET)[4:],
        UploadState("other", STATE.id, 17).pack(SECRET),
        UploadState(STATE.name, "other", 17).pack(SECRET),
        *(
            signed(document)
            for document in (
                b"",
                b"{",
                b"[]",
                b"1",
                b"null",
                b"\xff",
                b"{}",
                b'{"Name":1,"UUID":2,"Offset":[]}',
                b'{"Name":1,"UUID":2,"Offset":"x"}',
                b'{"Name":1,"UUID":2,"Offset":1e999}',
                b'{"Name":1,"UUID":2,"Offset":NaN}',
            )
        ),
    ],
)
def test_malformed_text_is_refused(text):
    with pytest.raises(StateInvalid):
        unpack(text)


def test_a_changed_bit_is_refused():
    text = STATE.pack(SECRET)
    for index, character in enumerate(text.rstrip("=")):
        other = "A" if character != "A" else "B"
        changed = text[:index] + other + text[index + 1 :]
        try:
            assert unpack(changed) == STATE  # the unused bits of the last digit
        except StateInvalid:
            continue


@given(st.text())
def test_any_text_is_unpacked_or_refused(text):
    with pytest.raises(StateInvalid):
        unpack(text)


@given(st.binary(max_size=60))
def test_any_signed_document_is_unpacked_or_refused(document):
    with pytest.raises(StateInvalid):
        unpack(signed(document))
