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


READ_ONLY = "storage: {filesystem: {rootdirectory: /x}, maintenance: {readonly: {enabled: true}}}"


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
        ("", "log: {level: debug}", "log.level"),
        (READ_ONLY, "", "storage.maintenance.readonly.enabled"),
        ("", READ_ONLY, "storage.maintenance.readonly.enabled"),
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
        ("", f"notifications: {{endpoints: [{ENDPOINT}]}}", "notifications.endpoints"),
        (
            f"notifications: {{endpoints: [{DISABLED_ENDPOINT}]}}",
            f"notifications: {{endpoints: [{ENDPOINT}]}}",
            "notifications.endpoints",
        ),
        ("", "log: {accesslog: {disabled: true}}", "log.accesslog.disabled"),
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


def test_a_registry_that_was_started_read_only_stays_so():
    found = find_changes(read(READ_ONLY), read("tags: {maxtags: 7}"), started_read_only=True)
    assert found.applied == ("tags.maxtags",)
    assert found.pending == ("storage.maintenance.readonly.enabled",)
    assert found.configuration.storage.maintenance.readonly.enabled


@pytest.mark.parametrize(
    ("before", "after"),
    [("", f"access: {{quotas: [{QUOTA}]}}"), (f"access: {{quotas: [{QUOTA}]}}", "")],
)
def test_other_quotas_are_known_from_other_rules(before, after):
    assert changes(before, after).has_other_quotas
    assert changes(before, after).applied == ("access",)
    assert not changes("", "access: {authenticated: [pull]}").has_other_quotas


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
