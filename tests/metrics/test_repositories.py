"""Counts of events for each repository."""

from __future__ import annotations

from zope.interface.verify import verifyObject

from tests.support.manifests import digest_of
from twisted_registry.metrics.counts import AggregatedCounts, Counts
from twisted_registry.metrics.repositories import RepositoryCounter, RepositoryNames
from twisted_registry.oci.digest import Digest
from twisted_registry.repository.interfaces import Event, IRegistryListener, Origin

DIGEST = Digest.parse(digest_of(b"x"))


def make_event(repository, action="pull", size=None):
    return Event(action, "blob", repository, DIGEST, Origin(), size)


def count(limit, *events):
    """Return the counts of a process with so many repositories."""
    counts = Counts()
    counter = RepositoryCounter(counts, RepositoryNames(limit))
    verifyObject(IRegistryListener, counter)
    for event in events:
        counter.handle_event(event)
    return counts


def events(values, action="pull"):
    """Return the number of events by repository."""
    return {
        key[1]: value
        for key, value in values.items()
        if key[0] == "registry_repository_events" and key[2:] == (action, "blob")
    }


def test_events_and_bytes_are_counted_by_repository():
    counts = count(2, make_event("a", size=10), make_event("a", size=5), make_event("b/c", "push"))
    assert counts.values == {
        ("registry_repository_events", "a", "pull", "blob"): 2,
        ("registry_repository_bytes", "a", "pull"): 15,
        ("registry_repository_events", "b/c", "push", "blob"): 1,
    }


def test_further_repositories_are_counted_together():
    counts = count(1, *(make_event(name) for name in ("a", "b", "c", "a")))
    assert events(counts.values) == {"a": 2, "_other": 2}


def test_all_processes_together_have_no_more_repositories():
    aggregated = AggregatedCounts(repositories=RepositoryNames(2))
    own = RepositoryCounter(aggregated.own, aggregated.repositories)
    own.handle_event(make_event("a"))
    worker = count(2, make_event("b"), make_event("c"), make_event("d")).to_bytes()
    aggregated.update(7, worker)
    assert events(aggregated.total().values) == {"a": 1, "b": 1, "_other": 2}
    aggregated.process_ended(7)
    aggregated.update(8, worker)
    own.handle_event(make_event("c"))
    assert events(aggregated.total().values) == {"a": 1, "b": 2, "_other": 5}
