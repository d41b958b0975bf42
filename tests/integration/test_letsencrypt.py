"""Certificates by ACME, from Pebble, which sees for itself whose the hosts are."""

from __future__ import annotations

import ssl
from contextlib import closing

import pytest

from tests.integration.pebble import pebble
from tests.support.processes import (
    SERVE,
    RegistryProcess,
    free_port,
    wait_until,
    write_configuration,
)

pytestmark = pytest.mark.integration

HOSTS = ("a.registry.example", "b.registry.example")


def settings(folder, directory):
    """Return the end of a configuration."""
    return (
        f"  workers: 2\n  tls:\n    letsencrypt:\n      cachefile: {folder / 'acme'}\n"
        f"      email: admin@registry.example\n      hosts: [{', '.join(HOSTS)}]\n"
        f"      directoryurl: {directory}\n"
    )


def certificate_names(served, context):
    """Return the names in the certificate of the server."""
    with closing(served.connection()) as connection:
        connection.connect()
        with context.wrap_socket(connection.sock, server_hostname=HOSTS[1]) as secure:
            return [name for _, name in secure.getpeercert()["subjectAltName"]]


def log_lines(served, text):
    return [line for line in served.lines if text in line]


def test_a_certificate_is_ordered_and_kept(tmp_path):
    port = free_port()
    # Pebble validates three times at once, so that both processes respond, and rejects nonces.
    with pebble(tmp_path, port, PEBBLE_WFE_NONCEREJECT="33", PEBBLE_AUTHZREUSE="0") as acme:
        more = settings(tmp_path, acme.directory)
        path = write_configuration(tmp_path, addr=f"127.0.0.1:{port}", more=more)
        with RegistryProcess(*SERVE, path, cwd=tmp_path, **acme.environ) as served:
            wait_until(
                lambda: log_lines(served, f"certificate for {', '.join(HOSTS)}, valid until")
            )
            assert log_lines(served, "ACME account created, terms of service accepted: data:text")
            assert log_lines(served, f"docker push {HOSTS[0]}:{port}/NAME")
            trusted = acme.client()
            wait_until(lambda: _is_trusted(served, trusted))
            # After the order, a connection with the ALPN of a challenge gets the real certificate.
            trusted.set_alpn_protocols(["acme-tls/1"])
            assert sorted(certificate_names(served, trusted)) == sorted(HOSTS)
            status, _, lines = served.stop()
        assert status == 0
        assert not [line for line in lines if "level=info" not in line]
        assert {file.name for file in (tmp_path / "acme").iterdir()} == {
            "acme_account+key",
            HOSTS[0],
            "lock",
        }
    # After a restart without Pebble, the stored certificate is served.
    with RegistryProcess(*SERVE, path, cwd=tmp_path, **acme.environ) as served:
        assert sorted(certificate_names(served, trusted)) == sorted(HOSTS)
        _, _, lines = served.stop()
    assert not [line for line in lines if "level=info" not in line]


def _is_trusted(served, context):
    """Return whether ten connections, spread over both processes, get a valid certificate."""
    try:
        return all(sorted(certificate_names(served, context)) == sorted(HOSTS) for _ in range(10))
    except ssl.SSLCertVerificationError:
        return False


def test_the_registry_serves_while_an_order_fails(tmp_path):
    unused_port = free_port()
    with pebble(tmp_path, unused_port, PEBBLE_WFE_NONCEREJECT="0") as acme:
        path = write_configuration(tmp_path, more=settings(tmp_path, acme.directory))
        unverified = ssl.create_default_context()
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
        with RegistryProcess(
            *SERVE, path, cwd=tmp_path, secure=unverified, **acme.environ
        ) as served:
            wait_until(lambda: log_lines(served, "next attempt in 10 minutes"))
            (line,) = log_lines(served, "failed: unauthorized: Failed to")
            assert "level=error" in line
            assert served.ask()[0].status == 200
            assert log_lines(served, "certificate for CN=waiting for a certificate")
            assert served.stop()[0] == 0
