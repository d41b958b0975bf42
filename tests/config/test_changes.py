"""Which keys a reload applies."""

from __future__ import annotations

import pytest

from tests.support.processes import ROOT
from twisted_registry.config.changes import RELOADABLE, find_changes
from twisted_registry.config.loading import load_text
from twisted_registry.config.schema import Configuration
from twisted_registry.config.sections import SectionBase, schema_keys

BASE = """
version: 0.1
storage: {filesystem: {rootdirectory: /x}}
http: {addr: ':5000', tls: {certificate: c, key: k}}
auth: {htpasswd: {realm: r, path: /users}}
"""
ENDPOINT = "{name: one, url: 'http://one.example/'}"
DISABLED_ENDPOINT = ENDPOINT.replace("{", "{disabled: true, ")
QUOTA = "{repositories: ['**'], bytes: 1}"


def read(more="", base=BASE):
    return load_text(base + more, {}).configuration


def changes(before, after):
    """Return the changes between two texts that are added to a configuration, in flow style."""
    return find_changes(read(before), read(after))


def test_equal_configurations_have_no_changes():
    found = changes("", "")
    assert (found.applied, found.pending) == ((), ())
    assert found.configuration == read()


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ("", "access: {authenticated: [pull]}", "access"),
        ("access: {authenticated: [pull]}", "access: {authenticated: [push]}", "access"),
        ("access: {authenticated: [pull]}", "", "access"),
        ("", "tags: {maxtags: 7}", "tags.maxtags"),
        ("", "validation: {disabled: true}", "validation"),
        (
            f"notifications: {{endpoints: [{ENDPOINT}]}}",
            "notifications: {endpoints: []}",
            "notifications.endpoints",
        ),
    ],
)
def test_a_change_of_a_reloadable_key_is_applied(before, after, key):
    found = changes(before, after)
    assert (found.applied, found.pending) == ((key,), ())
    assert found.configuration == read(after)


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ("", "log: {formatter: json}", "log.formatter"),
        ("", f"notifications: {{endpoints: [{ENDPOINT}]}}", "notifications.endpoints"),
        (
            f"notifications: {{endpoints: [{DISABLED_ENDPOINT}]}}",
            f"notifications: {{endpoints: [{ENDPOINT}]}}",
            "notifications.endpoints",
        ),
        ("", f"access: {{quotas: [{QUOTA}]}}", "access.quotas"),
        (f"access: {{quotas: [{QUOTA}]}}", "", "access.quotas"),
    ],
)
def test_a_change_of_another_key_is_pending(before, after, key):
    found = changes(before, after)
    assert (found.applied, found.pending) == ((), (key,))
    assert found.configuration == read(before)


def test_another_store_is_pending():
    other = read(base=BASE.replace("filesystem: {rootdirectory: /x}", "inmemory: {}"))
    found = find_changes(read(), other)
    assert found.pending == ("storage.filesystem", "storage.inmemory")
    assert found.configuration == read()


def test_rules_are_applied_without_the_quotas_that_changed():
    quota = QUOTA.replace("1", "2")
    found = changes(
        f"access: {{quotas: [{QUOTA}], authenticated: [pull]}}",
        f"access: {{quotas: [{quota}], authenticated: [push]}}",
    )
    assert (found.applied, found.pending) == (("access",), ("access.quotas",))
    assert found.configuration == read(f"access: {{quotas: [{QUOTA}], authenticated: [push]}}")


def keys_of(section, prefix=""):
    """Yield the paths of all keys and sections."""
    for name, spec in schema_keys(section).items():
        yield f"{prefix}{name}"
        default = spec.default
        if isinstance(default, SectionBase):
            yield from keys_of(type(default), f"{prefix}{name}.")


def test_the_reloadable_keys_exist():
    assert set(keys_of(Configuration)) >= RELOADABLE


def test_the_documentation_lists_the_reloadable_keys():
    page = (ROOT / "docs/operations.rst").read_text(encoding="utf-8")
    section = page.partition("\nReloading\n")[2].partition("\nStopping\n")[0]
    assert not [path for path in RELOADABLE if f"``{path}``" not in section]
