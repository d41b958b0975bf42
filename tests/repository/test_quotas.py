"""Quotas without HTTP: accounts, reservations, and what processes tell each other."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from tests.repository.worlds import done
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode
from twisted_registry.repository import layout
from twisted_registry.repository.quotas import (
    LimitExceeded,
    Quota,
    Quotas,
    QuotaTotals,
    format_bytes,
    hash_name,
)
from twisted_registry.storage.checked import CheckedDriver
from twisted_registry.storage.memory import MemoryDriver

TEAM = Quota.parse(["team/**"], 100)
ADA = ("team/**", hash_name("ada"))
ALL = ("team/**", "")


@pytest.fixture
def driver():
    clock = Clock()
    return CheckedDriver(MemoryDriver(clock), clock)


def process(driver, *quotas):
    """Return the quotas of a process that has read the store."""
    made = Quotas(driver, quotas or (TEAM,))
    done(made.synchronize())
    return made


def push(quotas, length, name="team/a", user="ada"):
    done(quotas.account(name, user).reserve(length)).settle(length)


def refusal(quotas, length, name="team/a", user="ada"):
    with pytest.raises(LimitExceeded) as raised:
        done(quotas.account(name, user).reserve(length))
    assert (raised.value.code, raised.value.http_status) == (ErrorCode.DENIED, 403)
    return raised.value


def count(driver, count_id, totals, areas=("team/**",)):
    """Publish a count."""
    content = QuotaTotals(count_id, frozenset(areas), totals).to_bytes()
    done(_put(driver, layout.QUOTA_COUNT, content))


def announce(driver, count_id):
    done(_put(driver, layout.QUOTA_COUNTING, count_id.encode()))


async def _put(driver, path, content):
    await driver.put(path, content)


def test_pushes_are_admitted_up_to_the_quota_and_refused_with_the_numbers(driver):
    quotas = process(driver)
    push(quotas, 60)
    push(quotas, 30, "team/b", "bob")
    error = refusal(quotas, 11, "team/c/d", "")
    assert error.detail == {
        "repositories": "team/**", "quota": 100, "used": 90, "requested": 11,
    }  # fmt: skip
    # docker shows the message only.
    assert "100 bytes" in error.message
    assert "90 bytes" in error.message
    push(quotas, 10)
    done(quotas.account("team/a", "ada").reserve(0)).settle(0)
    with pytest.raises(LimitExceeded):
        done(quotas.account("team/a", "ada").check_room())


def test_repositories_without_a_quota_have_no_account(driver):
    quotas = process(driver, TEAM, Quota.parse(["**", "!free/**"], 10**6, ["ada"]))
    assert quotas.account("free/a", "ada") is None
    assert quotas.account("other", "bob") is None
    assert quotas.account("other", "") is None
    assert quotas.account("other", "ada") is not None
    assert quotas.account("team/a", "") is not None


def test_a_quota_of_users_limits_each_of_them(driver):
    quotas = process(driver, Quota.parse(["**"], 100, ["ada", "bob"]))
    push(quotas, 100, "a", "ada")
    push(quotas, 60, "a", "bob")
    assert "user ada" in refusal(quotas, 1, "b", "ada").message
    assert refusal(quotas, 41, "b", "bob").detail["used"] == 60
    assert quotas.account("a", "eve") is None


def test_a_quota_of_authenticated_users_does_not_apply_to_anonymous_ones(driver):
    quotas = process(driver, Quota.parse(["**"], 100, authenticated=True))
    push(quotas, 100, "a", "eve")
    refusal(quotas, 1, "a", "eve")
    push(quotas, 100, "a", "ada")
    assert quotas.account("a", "") is None


def test_all_quotas_must_admit_a_push_and_a_refused_one_counts_for_none(driver):
    everything = Quota.parse(["**"], 150)
    quotas = process(driver, TEAM, everything)
    push(quotas, 90, "other")
    assert refusal(quotas, 61).detail["quota"] == 150
    push(quotas, 60)
    assert quotas.used(ALL) == 60
    assert quotas.used(("**", "")) == 150


def test_reserved_bytes_count_until_it_is_known_what_is_stored(driver):
    quotas = process(driver)
    reservation = done(quotas.account("team/a", "ada").reserve(80))
    refusal(quotas, 21)
    reservation.settle(10)
    assert quotas.used(ALL) == 10
    reservation = done(quotas.account("team/a", "ada").reserve(0))
    for _ in range(9):
        reservation.grow(10)
    with pytest.raises(LimitExceeded):
        reservation.grow(1)
    reservation.settle(-10)
    assert quotas.used(ALL) == 0


def test_processes_know_what_the_others_have_pushed_and_reserved(driver):
    one, two = process(driver), process(driver)
    push(one, 60)
    done(one.account("team/a", "ada").reserve(20))
    done(two.synchronize())
    assert one.used(ALL) == two.used(ALL) == 80
    refusal(two, 21)


def test_parallel_pushes_through_several_processes_do_not_exceed_a_quota(driver):
    processes = [process(driver) for _ in range(3)]
    granted = []
    for number in range(30):
        account = processes[number % 3].account("team/a", "ada")
        try:
            granted.append(done(account.reserve(9)))
        except LimitExceeded as error:
            assert error.detail["used"] + 9 > 100  # noqa: PT017
    assert len(granted) == 11
    for reservation in granted:
        reservation.settle(9)
    done(processes[0].account("team/a", "").publish())


def test_what_a_killed_process_has_pushed_counts(driver):
    push(killed := process(driver), 60)
    done(killed.synchronize())
    successor = Quotas(driver, [TEAM])
    # The first push reads the store.
    refusal(successor, 41)
    assert successor.used(ALL) == 60


def test_what_a_killed_process_has_reserved_counts_until_the_next_count(driver):
    killed, other = process(driver), process(driver)
    done(killed.account("team/a", "ada").reserve(60))
    done(killed.synchronize())
    done(other.synchronize())
    assert other.used(ALL) == 60
    announce(driver, "first")
    done(other.synchronize())
    count(driver, "first", {ALL: 10})
    done(other.synchronize())
    assert other.used(ALL) == 10


def test_a_count_replaces_the_changes_before_it_in_all_processes(driver):
    one, two = process(driver), process(driver)
    push(one, 40)
    push(two, 40)
    announce(driver, "first")
    for each in (one, two):
        done(each.synchronize())
    # While the count walks through the store.
    push(one, 5)
    for each in (one, two, one):
        done(each.synchronize())
    assert one.used(ALL) == two.used(ALL) == 85
    assert not one.is_counted
    count(driver, "first", {ALL: 30, ADA: 20})
    for each in (one, two, one):
        done(each.synchronize())
    assert one.used(ALL) == two.used(ALL) == 35
    assert one.is_counted
    late = process(driver)
    assert late.used(ALL) == 35


def test_an_upload_that_outlasts_a_count_counts(driver):
    quotas = process(driver)
    reservation = done(quotas.account("team/a", "ada").reserve(80))
    announce(driver, "first")
    done(quotas.synchronize())
    count(driver, "first", {})
    done(quotas.synchronize())
    assert quotas.used(ALL) == 80
    reservation.settle(80)
    assert quotas.used(ALL) == 80


def test_a_process_that_missed_the_announcement_of_a_count_loses_nothing(driver):
    quotas = process(driver)
    push(quotas, 40)
    count(driver, "unheard of", {ALL: 50})
    done(quotas.synchronize())
    assert quotas.used(ALL) == 90


def test_a_count_that_was_given_up_is_forgotten(driver):
    quotas = process(driver)
    for number in range(3):
        push(quotas, 10)
        announce(driver, f"count {number}")
        done(quotas.synchronize())
    push(quotas, 1)
    count(driver, "count 2", {ALL: 30})
    done(quotas.synchronize())
    assert quotas.used(ALL) == 31


def test_quotas_with_other_repositories_are_not_counted_yet(driver):
    count(driver, "first", {ALL: 50})
    assert process(driver).is_counted
    changed = process(driver, TEAM, Quota.parse(["other/*"], 100))
    assert not changed.is_counted
    assert changed.used(ALL) == 50


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"id": 1}', b"\xff", b'{"first": 3}'])
def test_torn_files_count_as_missing(driver, content):
    push(one := process(driver), 10)
    done(one.synchronize())
    for path in (layout.QUOTA_COUNT, layout.QUOTA_COUNTING, layout.quota_changes("other")):
        done(_put(driver, path, content))
    done(one.synchronize())
    assert one.used(ALL) == 10


def test_only_processes_that_have_pushed_write_a_file(driver):
    idle, busy = process(driver), process(driver)
    push(busy, 1)
    for each in (idle, busy, idle, busy):
        done(each.synchronize())

    async def files():
        return await driver.walk(layout.QUOTA_CHANGES)

    assert len(done(files())) == 1


def test_who_pushed_is_recorded_only_for_users_with_a_quota(driver):
    quotas = process(driver, TEAM, Quota.parse(["**"], 100, ["ada"]))
    digest = Digest.of(b"x")
    for user in ("ada", "bob", ""):
        done(quotas.account("team/a", user).record_content(digest))
        done(quotas.account("team/a", user).record_upload("1"))

    async def files():
        return [entry.path for entry in await driver.walk(layout.PUSHED)]

    folder = layout.pushed_folder(hash_name("ada"), hash_name("team/a"))
    assert done(files()) == [
        layout.pushed_content(folder, digest), layout.pushed_upload(folder, "1"),
    ]  # fmt: skip
    assert [layout.parse_pushed(path) for path in done(files())] == [digest, "1"]
    done(quotas.account("team/a", "ada").forget_upload("1"))
    assert done(files()) == [layout.pushed_content(folder, digest)]


@pytest.mark.parametrize("name", ["ada", "../../etc", "", "a/b", "\ud800", "x" * 10_000])
def test_the_hash_of_any_name_is_part_of_a_path(name):
    assert len(hash_name(name)) == 32
    assert hash_name(name).isalnum()


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (10 * 2**30, "10.0 GiB"),
     (2**40 * 5000, "5000.0 TiB")],
)  # fmt: skip
def test_bytes_for_people(number, text):
    assert format_bytes(number) == text
