"""Keys of ``http`` about proxies and connections."""

from __future__ import annotations

import pytest

from tests.config.config_loading import MEMORY, fault_lines, load_config
from twisted_registry.config.http import DEFAULT_TRUSTED_PROXIES


def trusted_proxies(text: str, **environ: str) -> tuple[str, ...]:
    loaded = load_config(f"{MEMORY}http: {{trustedproxies: {text}}}\n", **environ)
    return loaded.configuration.http.trustedproxies


def test_private_addresses_are_trusted_by_default():
    assert load_config(MEMORY).configuration.http.trustedproxies == DEFAULT_TRUSTED_PROXIES
    assert trusted_proxies("") == DEFAULT_TRUSTED_PROXIES


def test_networks_addresses_and_unix_sockets_can_be_trusted():
    text = "[192.0.2.0/24, 198.51.100.7, '2001:DB8::/32', '::1', Unix]"
    assert trusted_proxies(text) == (
        "192.0.2.0/24",
        "198.51.100.7/32",
        "2001:db8::/32",
        "::1/128",
        "unix",
    )
    assert trusted_proxies("[]") == ()
    assert trusted_proxies("[]", HTTP_TRUSTEDPROXIES="[10.1.2.3]") == ("10.1.2.3/32",)


@pytest.mark.parametrize(
    "name", ["192.0.2.1/24", "proxy.example", "10.0.0.0/33", "'*'", "''", "[]"]
)
def test_other_proxies_are_faults(name: str):
    (line,) = fault_lines(f"{MEMORY}http: {{trustedproxies: [10.0.0.0/8, {name}]}}\n")
    assert line.startswith("http.trustedproxies[1]: got ")
    assert "expected a network such as 10.0.0.0/8, an IP address, or unix" in line


def test_trusted_proxies_are_a_list():
    (line,) = fault_lines(f"{MEMORY}http: {{trustedproxies: 10.0.0.0/8}}\n")
    assert line.startswith("http.trustedproxies: got '10.0.0.0/8', expected a list of networks")


def test_limits_of_connections_and_bodies():
    limits = load_config(MEMORY).configuration.http.limits
    assert (limits.connections, limits.connectionsperaddress, limits.bodyrate) == (0, 0, 512)
    text = "http: {limits: {connections: 5000, connectionsperaddress: 50, bodyrate: 4KiB}}"
    limits = load_config(f"{MEMORY}{text}\n").configuration.http.limits
    assert (limits.connections, limits.connectionsperaddress, limits.bodyrate) == (5000, 50, 4096)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("connections: -1", "an integer, 0 or more"),
        ("connectionsperaddress: many", "an integer, 0 or more"),
        ("bodyrate: 1s", "a number of bytes, 0 or more, such as"),
    ],
)
def test_other_limits_are_faults(limit: str, expected: str):
    (line,) = fault_lines(f"{MEMORY}http: {{limits: {{{limit}}}}}\n")
    name, _, value = limit.partition(": ")
    assert line.startswith(f"http.limits.{name}: got '{value}', expected {expected}")


@pytest.mark.parametrize("path", ["/debug/metrics", "/a/b.c", "/debugging"])
def test_metrics_have_a_path_beside_the_other_pages(path: str):
    text = f"{MEMORY}http: {{debug: {{prometheus: {{path: {path}}}}}}}\n"
    assert load_config(text).configuration.http.debug.prometheus.path == path


@pytest.mark.parametrize("path", ["/", "metrics", "/metrics/", "/debug", "/debug/health", "/a b"])
def test_another_path_of_metrics_is_a_fault(path: str):
    (line,) = fault_lines(f"{MEMORY}http: {{debug: {{prometheus: {{path: {path}}}}}}}\n")
    assert f"got '{path}', expected a path such as /metrics, without / at its end" in line
