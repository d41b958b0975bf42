"""Stored tokens: records, expiry and revocation."""

from __future__ import annotations

import hashlib
import json

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from twisted_registry.auth.rules import Right, Rights
from twisted_registry.repository import layout
from twisted_registry.storage.memory import MemoryDriver
from twisted_registry.tokens.records import (
    RECORD_TTL_S,
    TokenPurgeResult,
    TokenRecord,
    TokenStore,
    is_stored_token,
)

RIGHTS = Rights((Right.make(["team/**", "!team/x"], ["push"]),))


class SharedStore:
    """A driver, and the token stores of processes that share it."""

    def __init__(self):
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.driver = MemoryDriver(self.clock)
        self.records = self.open_store()

    def open_store(self):
        return TokenStore(self.driver, self.clock)


@pytest.fixture
def shared():
    return SharedStore()


@pytest_twisted.ensureDeferred
async def test_stored_record_does_not_contain_the_token(shared):
    record, token = await shared.records.create("robot", "ci", 60, rights=RIGHTS)
    assert is_stored_token(token)
    content = await shared.driver.get(layout.token_record(record.id), 10_000)
    secret = token.rpartition("_")[2]
    assert len(secret) == 64
    assert secret.encode() not in content
    assert secret not in repr(record)
    assert record.hash not in repr(record)
    assert TokenRecord.from_bytes(content) == record
    assert (record.created, record.expires, record.rights) == (1_000_000, 1_000_060, RIGHTS)
    assert await shared.open_store().verify(token, "robot") == record


def change_digit(token, position):
    return token[:position] + ("0" if token[position] != "0" else "1") + token[position + 1 :]


@pytest_twisted.ensureDeferred
async def test_wrong_tokens_are_rejected(shared):
    record, token = await shared.records.create("robot", "ci", None)
    assert await shared.records.verify(token, "refresh") is None
    wrong = [
        change_digit(token, 5),
        change_digit(token, 40),
        token[:-1],
        token + "0",
        token.upper(),
        "",
        "twr_",
    ]
    wrong += [f"twr_{'../' * 5}_{'0' * 64}", f"twr_{record.id}_{record.hash}", record.id]
    for text in wrong:
        assert await shared.records.verify(text, "robot") is None, text
    assert await shared.records.verify(token, "robot")
    assert await shared.records.find_record("../upload-secret") is None


@pytest_twisted.ensureDeferred
async def test_token_expires(shared):
    _, token = await shared.records.create("robot", "ci", 60)
    _, eternal = await shared.records.create("robot", "forever", None)
    shared.clock.advance(59)
    assert await shared.records.verify(token, "robot")
    shared.clock.advance(1)
    assert await shared.records.verify(token, "robot") is None
    shared.clock.advance(10**9)
    assert await shared.records.verify(eternal, "robot")


@pytest_twisted.ensureDeferred
async def test_revocation_takes_effect_everywhere_within_seconds(shared):
    record, token = await shared.records.create("robot", "ci", None)
    other = shared.open_store()
    assert await other.verify(token, "robot")
    assert await shared.records.revoke(record.id)
    assert await shared.records.verify(token, "robot") is None, (
        "at once in the process that revoked it"
    )
    assert await other.verify(token, "robot"), "still cached"
    shared.clock.advance(RECORD_TTL_S)
    assert await other.verify(token, "robot") is None
    assert RECORD_TTL_S <= 5
    assert not await shared.records.revoke(record.id)
    for name in ("../upload-secret", "", record.id.upper(), "0" * 16):
        assert not await shared.records.revoke(name)


@pytest_twisted.ensureDeferred
async def test_records_are_listed_and_purged(shared):
    assert await shared.records.list_records() == []
    made = []
    for number in range(5):
        made.append((await shared.records.create("robot", str(number), 10 * number))[0])
        shared.clock.advance(1)
    await shared.driver.put(f"{layout.TOKENS}/other", b"{}")
    assert await shared.records.list_records() == made
    assert await shared.records.purge_expired() == TokenPurgeResult(found=5, removed=1)
    assert await shared.records.list_records() == made[1:]


@pytest_twisted.ensureDeferred
async def test_expired_refresh_tokens_are_purged(shared):
    old = await shared.records.create_refresh("ada", 10, "stamp", 100)
    shared.clock.advance(24 * 3600)
    await shared.records.create_refresh("eve", 10, "stamp", 100)
    assert len(await shared.records.list_records()) == 2, "a login purges nothing"
    assert await shared.records.purge_expired() == TokenPurgeResult(found=2, removed=1)
    (left,) = await shared.records.list_records()
    assert not old.startswith(f"twr_{left.id}")
    assert (left.kind, left.name, left.stamp) == ("refresh", "eve", "stamp")
    assert "stamp" not in repr(left).replace("stamp=", "")


@pytest_twisted.ensureDeferred
async def test_all_pages_are_listed_and_purged(shared):
    for number in range(1500):
        await shared.records.create("robot", "ci", 10 if number % 2 else None)
    shared.clock.advance(10)
    assert len(await shared.records.list_records()) == 1500
    assert await shared.records.purge_expired() == TokenPurgeResult(found=1500, removed=750)
    assert len(await shared.records.list_records()) == 750


@pytest_twisted.ensureDeferred
async def test_oldest_refresh_tokens_of_a_user_are_deleted_beyond_the_limit(shared):
    other = await shared.records.create_refresh("eve", 1000, "stamp", 3)
    _, robot = await shared.records.create("robot", "ada", None)
    made = []
    for number in range(10):
        shared.clock.advance(1)
        made.append(await shared.records.create_refresh("ada", 1000, "stamp", 3))
        kept = [await shared.open_store().verify(each, "refresh") is not None for each in made]
        assert kept == [False] * max(0, number - 2) + [True] * min(3, number + 1)
        # The process that has deleted a token does not accept it from its cache.
        assert (await shared.records.verify(made[0], "refresh") is None) == (number > 2)
    assert await shared.records.verify(other, "refresh")
    assert await shared.records.verify(robot, "robot")
    await shared.records.create_refresh("ada", 1000, "stamp", 1)
    records = [each for each in await shared.records.list_records() if each.kind == "refresh"]
    assert sorted(each.name for each in records) == ["ada", "eve"]


@pytest_twisted.ensureDeferred
async def test_refresh_tokens_are_revoked_by_id(shared):
    token = await shared.records.create_refresh("ada", 1000, "stamp", 3)
    (record,) = await shared.records.list_records()
    assert token.startswith(f"twr_{record.id}_")
    assert await shared.records.revoke(record.id)
    assert await shared.records.verify(token, "refresh") is None


@pytest_twisted.ensureDeferred
async def test_refresh_tokens_of_an_earlier_form_are_accepted(shared):
    """Their records are beside those of robots."""
    token_id, secret = "0123456789abcdef", "ab" * 32
    hashed = hashlib.sha256(secret.encode()).hexdigest()
    record = TokenRecord(token_id, "refresh", "ada", hashed, 1.0, stamp="stamp")
    await shared.driver.put(layout.token_record(token_id), record.to_bytes())
    assert await shared.records.verify(f"twr_{token_id}_{secret}", "refresh") == record


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"null", b"\xff", b'{"rights": []}', b'{"rights": 1, "id": "x"}'],
)
@pytest_twisted.ensureDeferred
async def test_malformed_record_is_rejected(shared, content):
    record, token = await shared.records.create("robot", "ci", None)
    await shared.driver.put(layout.token_record(record.id), content)
    assert await shared.open_store().verify(token, "robot") is None
    assert await shared.open_store().list_records() == []


@pytest_twisted.ensureDeferred
async def test_record_under_another_id_is_rejected(shared):
    record, token = await shared.records.create("robot", "ci", None)
    document = json.loads(await shared.driver.get(layout.token_record(record.id), 10_000))
    await shared.driver.put(layout.token_record("0" * 16), json.dumps(document).encode())
    moved = token.replace(record.id, "0" * 16)
    assert await shared.open_store().verify(moved, "robot") is None


@pytest_twisted.ensureDeferred
async def test_cache_is_bounded_even_for_unknown_ids(shared):
    record, token = await shared.records.create("robot", "ci", None)
    assert await shared.records.verify(token, "robot")
    await shared.open_store().revoke(record.id)
    for number in range(4095):
        await shared.records.find_record(f"{number:016x}")
    assert await shared.records.verify(token, "robot"), "still cached"
    await shared.records.find_record("f" * 16)
    assert await shared.records.verify(token, "robot") is None, "the oldest entry is evicted"
