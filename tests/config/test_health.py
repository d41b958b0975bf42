"""The section ``health``."""

from __future__ import annotations

import pytest

from tests.config.config_loading import MEMORY, fault_lines, load_config
from twisted_registry.config.health import Health


def health_of(text):
    loaded = load_config(MEMORY + f"health: {text}\n")
    assert loaded.warnings == ()
    return loaded.configuration.health


@pytest.mark.parametrize("text", ["", "{}", "{storagedriver: {enabled: false}}", "{file: []}"])
def test_a_section_without_checks(text):
    assert not health_of(text).has_checks


def test_no_section_has_no_checks():
    assert load_config(MEMORY).configuration.health == Health()


def test_all_keys_of_distribution():
    health = health_of("""
  storagedriver: {enabled: true, interval: 20s, threshold: 3}
  file: [{file: /run/down, interval: 500ms, threshold: 2}]
  http: [{uri: 'http://a/b', headers: {X-A: [b]}, statuscode: 204, timeout: 1s, interval: 2s}]
  tcp: [{addr: 'redis:6379', timeout: 3s, threshold: 4}, {addr: '[::1]:1'}, {addr: ':80'}]
""")
    assert health.has_checks
    storage, (file,), (http,) = health.storagedriver, health.file, health.http
    assert (storage.enabled, storage.interval, storage.threshold) == (True, 20.0, 3)
    assert (file.file, file.interval) == ("/run/down", 0.5)
    assert (http.uri, dict(http.headers)) == ("http://a/b", {"X-A": ("b",)})
    assert (http.statuscode, http.timeout, http.interval, http.threshold) == (204, 1.0, 2.0, 0)
    assert [each.addr for each in health.tcp] == ["redis:6379", "[::1]:1", ":80"]
    assert [each.threshold for each in health.tcp] == [4, 0, 0]
    assert health.tcp[0].interval == 10.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "{tcp: [{addr: redis}]}",
            "health.tcp[0].addr: got 'redis', expected HOST:PORT (f line 3)",
        ),
        ("{tcp: [{addr: 'a:0'}]}", "health.tcp[0].addr: got 'a:0', expected HOST:PORT (f line 3)"),
        ("{tcp: [{timeout: 1s}]}", "health.tcp[0].addr: this key is required (f line 3)"),
        (
            "{http: [{uri: 'ftp://a'}]}",
            (
                "health.http[0].uri: got 'ftp://a', expected an absolute http or https URL in ASCII"
                " (f line 3)"
            ),
        ),
        (
            "{http: [{uri: 'http://\u00fc/'}]}",
            (
                "health.http[0].uri: got 'http://\u00fc/', expected an absolute http or https URL"
                " in ASCII (f line 3)"
            ),
        ),
        ("{file: [{}]}", "health.file[0].file: this key is required (f line 3)"),
        (
            "{storagedriver: {threshold: -1}}",
            ("health.storagedriver.threshold: got '-1', expected an integer, 0 or more (f line 3)"),
        ),
    ],
)
def test_faults(text, expected):
    assert fault_lines(MEMORY + f"health: {text}\n") == [expected]
