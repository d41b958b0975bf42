"""Each kind of damage is found, repaired as far as possible, and nothing else is touched."""

from __future__ import annotations

import json

import pytest

from tests.integrity.checked_store import CheckedStore
from tests.integrity.damage_cases import DAMAGE
from tests.repository.trash_kit import WORLDS
from twisted_registry.commands.fsck import document, exit_status
from twisted_registry.integrity.findings import Severity


@pytest.fixture(params=WORLDS.values(), ids=WORLDS)
def store(request):
    return CheckedStore(request.param())


def tags_of(checked):
    return tuple(sorted(tag.tag for tag in checked.tags))


def told(checked, observer, *, repair=False):
    """What a check tells; the document and the status that the command makes of it agree."""
    shown = json.loads(json.dumps(document(checked, observer.findings)))
    found = {(finding.kind, finding.path) for finding in observer.findings}
    assert {(one["kind"], one["path"]) for one in shown["findings"]} == {
        (kind.value, path) for kind, path in found
    }
    assert tuple(sorted(tag["tag"] for tag in shown["tags"])) == tags_of(checked)
    left = [finding for finding in observer.findings if not finding.repaired]
    assert repair or left == observer.findings
    damage = [finding for finding in left if finding.severity is Severity.DAMAGE]
    assert (shown["damaged"], shown["harmless"]) == (len(damage), len(left) - len(damage))
    assert shown["repaired"] == len(observer.findings) - len(left)
    assert exit_status(checked) == (3 if damage or checked.tags else 0)
    return found


def test_an_intact_store_has_no_findings(store):
    before = store.tree()
    for repair in (False, True):
        found, observer = store.check(repair=repair)
        assert told(found, observer) == set()
        assert (found.files, found.repositories, found.tags) == (8, 2, ())
        assert observer.progress[-1] == (found.size, found.size)
    assert store.tree() == before
    assert store.quarantined() == []


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_each_kind_of_damage_is_reported_and_repaired(store, damage):
    store.plant(damage.planted)
    before = store.tree()
    found, observer = store.check()
    assert told(found, observer) == damage.found
    assert tags_of(found) == damage.tags
    assert store.tree() == before
    assert store.quarantined() == []

    found, observer = store.check(repair=True)
    told(found, observer, repair=True)
    expected = {**before, **damage.mended}
    expected = {path: content for path, content in expected.items() if content is not None}
    assert store.tree() == expected
    assert store.quarantined() == sorted(damage.shelved)
    assert tags_of(found) == (damage.left or damage.late)

    for repair in (False, True):
        found, observer = store.check(repair=repair)
        assert told(found, observer) == damage.remains
        assert tags_of(found) == damage.left
    assert store.tree() == expected
