"""Stored tokens: records, expiry and revocation."""

from __future__ import annotations

import json

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from twisted_registry.auth.rules import Right, Rights
from twisted_registry.repository import layout
from twisted_registry.storage.memory import MemoryDriver
from twisted_registry.tokens.records import RECORD_TTL_S, TokenRecord, TokenStore, is_stored_token

RIGHTS = Rights((Right.make(["team/**", "!team/x"], ["push"]),))


class World:
    """A store, and processes that use it."""

    def __init__(self):
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.driver = MemoryDriver(self.clock)
        self.records = self.another()

    def another(self):
        return TokenStore(self.driver, self.clock)


@pytest.fixture
def world():
    return World()


@pytest_twisted.ensureDeferred
async def test_stored_record_does_not_contain_the_token(world):
    record, token = await world.records.create("robot", "ci", 60, rights=RIGHTS)
    assert is_stored_token(token)
    content = await world.driver.get(layout.token(record.id), 10_000)
    secret = token.rpartition("_")[2]
    assert len(secret) == 64
    assert secret.encode() not in content
    assert secret not in repr(record)
    assert record.hash not in repr(record)
    assert TokenRecord.from_bytes(content) == record
    assert (record.created, record.expires, record.rights) == (1_000_000, 1_000_060, RIGHTS)
    assert await world.another().verify(token, "robot") == record


def changed(token, position):
    return token[:position] + ("0" if token[position] != "0" else "1") + token[position + 1 :]


@pytest_twisted.ensureDeferred
async def test_wrong_tokens_are_rejected(world):
    record, token = await world.records.create("robot", "ci", None)
    assert await world.records.verify(token, "refresh") is None
    wrong = [
        changed(token, 5),
        changed(token, 40),
        token[:-1],
        token + "0",
        token.upper(),
        "",
        "twr_",
    ]
    wrong += [f"twr_{'../' * 5}_{'0' * 64}", f"twr_{record.id}_{record.hash}", record.id]
    for text in wrong:
        assert await world.records.verify(text, "robot") is None, text
    assert await world.records.verify(token, "robot")
    assert await world.records.find_record("../upload-secret") is None


@pytest_twisted.ensureDeferred
async def test_token_expires(world):
    _, token = await world.records.create("robot", "ci", 60)
    _, eternal = await world.records.create("robot", "forever", None)
    world.clock.advance(59)
    assert await world.records.verify(token, "robot")
    world.clock.advance(1)
    assert await world.records.verify(token, "robot") is None
    world.clock.advance(10**9)
    assert await world.records.verify(eternal, "robot")


@pytest_twisted.ensureDeferred
async def test_revocation_takes_effect_everywhere_within_seconds(world):
    record, token = await world.records.create("robot", "ci", None)
    other = world.another()
    assert await other.verify(token, "robot")
    assert await world.records.revoke(record.id)
    assert await world.records.verify(token, "robot") is None, (
        "at once in the process that revoked it"
    )
    assert await other.verify(token, "robot"), "still cached"
    world.clock.advance(RECORD_TTL_S)
    assert await other.verify(token, "robot") is None
    assert RECORD_TTL_S <= 5
    assert not await world.records.revoke(record.id)
    for name in ("../upload-secret", "", record.id.upper(), "0" * 16):
        assert not await world.records.revoke(name)


@pytest_twisted.ensureDeferred
async def test_records_are_listed_and_purged(world):
    assert await world.records.list_records() == []
    made = []
    for number in range(5):
        made.append((await world.records.create("robot", str(number), 10 * number))[0])
        world.clock.advance(1)
    await world.driver.put(f"{layout.TOKENS}/other", b"{}")
    assert await world.records.list_records() == made
    assert await world.records.purge_expired() == 1
    assert await world.records.list_records() == made[1:]


@pytest_twisted.ensureDeferred
async def test_expired_refresh_tokens_are_purged(world):
    old = await world.records.create_refresh("ada", 10, "stamp")
    world.clock.advance(24 * 3600)
    await world.records.create_refresh("ada", 10, "stamp")
    (left,) = await world.records.list_records()
    assert not old.startswith(f"twr_{left.id}")
    assert (left.kind, left.name, left.stamp) == ("refresh", "ada", "stamp")
    assert "stamp" not in repr(left).replace("stamp=", "")


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"null", b"\xff", b'{"rights": []}', b'{"rights": 1, "id": "x"}'],
)
@pytest_twisted.ensureDeferred
async def test_malformed_record_is_rejected(world, content):
    record, token = await world.records.create("robot", "ci", None)
    await world.driver.put(layout.token(record.id), content)
    assert await world.another().verify(token, "robot") is None
    assert await world.another().list_records() == []


@pytest_twisted.ensureDeferred
async def test_record_under_another_id_is_rejected(world):
    record, token = await world.records.create("robot", "ci", None)
    said = json.loads(await world.driver.get(layout.token(record.id), 10_000))
    await world.driver.put(layout.token("0" * 16), json.dumps(said).encode())
    moved = token.replace(record.id, "0" * 16)
    assert await world.another().verify(moved, "robot") is None


@pytest_twisted.ensureDeferred
async def test_cache_is_bounded_even_for_unknown_ids(world):
    record, token = await world.records.create("robot", "ci", None)
    assert await world.records.verify(token, "robot")
    await world.another().revoke(record.id)
    for number in range(4095):
        await world.records.find_record(f"{number:016x}")
    assert await world.records.verify(token, "robot"), "still cached"
    await world.records.find_record("f" * 16)
    assert await world.records.verify(token, "robot") is None, "the oldest entry is evicted"
