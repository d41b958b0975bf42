"""The registry over TLS, with the clients of Python's ssl module."""

from __future__ import annotations

import hashlib
import os
import pty
import signal
import socket
import ssl
import sys
from contextlib import closing

import pytest
from twisted.internet.task import Clock

from tests.support.certificates import Authority
from tests.support.processes import (
    SERVE,
    TWISTD,
    RegistryProcess,
    environment,
    run,
    wait_until,
    write_configuration,
)
from twisted_registry.app.tls import TLSService
from twisted_registry.config.loading import load
from twisted_registry.frame.errors import StartError
from twisted_registry.tls.context import missing_ciphers

AUTHORITY = Authority()
TWISTED = (*TWISTD, "registry", "--config")


def tls_of(folder, more=""):
    """Write certificate files, and return the section ``http.tls`` for them."""
    return AUTHORITY.issue("127.0.0.1").section(folder) + more


def test_push_and_pull_over_tls(tmp_path):
    path = write_configuration(tmp_path, more=tls_of(tmp_path))
    with RegistryProcess(*SERVE, path, cwd=tmp_path, secure=AUTHORITY.client()) as served:
        assert any(f"listening on https://127.0.0.1:{served.port}" in line for line in served.lines)
        response, _ = served.ask("POST", "/v2/a/blobs/uploads/")
        location = response.getheader("Location")
        assert location.startswith(f"https://127.0.0.1:{served.port}/v2/a/blobs/uploads/")
        content = os.urandom(3 * 2**20)
        response, _ = served.ask("PATCH", location, content)
        assert response.status == 202
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        location = f"{response.getheader('Location')}&digest={digest}"
        assert served.ask("PUT", location)[0].status == 201
        assert served.ask("GET", f"/v2/a/blobs/{digest}")[1] == content
        status, _, lines = served.stop()
    assert status == 0
    assert not [line for line in lines if "level=info" not in line]


def test_the_last_response_of_a_drain_arrives(tmp_path):
    path = write_configuration(tmp_path, more="  draintimeout: 30s\n" + tls_of(tmp_path))
    with RegistryProcess(*SERVE, path, cwd=tmp_path, secure=AUTHORITY.client()) as served:
        location = served.ask("POST", "/v2/a/blobs/uploads/")[0].getheader("Location")
        connection = served.connection()
        connection.putrequest("PATCH", location)
        connection.putheader("Content-Length", "10")
        connection.putheader("Expect", "100-continue")
        connection.endheaders()
        assert connection.sock.recv(1000).startswith(b"HTTP/1.1 100")
        connection.send(b"first")
        served.process.terminate()
        wait_until(
            lambda: any("no new connections are accepted: https" in line for line in served.lines)
        )
        connection.send(b"other")
        assert connection.getresponse().getheader("Range") == "0-9"
        connection.close()
        assert served.process.wait(30) == 0


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_clients_without_tls_or_with_an_old_version_are_refused(tmp_path):
    path = write_configuration(tmp_path, more=tls_of(tmp_path))
    with RegistryProcess(*SERVE, path, cwd=tmp_path, secure=AUTHORITY.client()) as served:
        with socket.create_connection(("127.0.0.1", served.port)) as plain:
            plain.sendall(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"200" not in plain.recv(1000)
        oldest = AUTHORITY.client(
            minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1
        )
        oldest.set_ciphers("ALL:@SECLEVEL=0")
        served.secure = oldest
        with pytest.raises(ssl.SSLError):
            served.ask()
        served.secure = Authority().client()
        with pytest.raises(ssl.SSLCertVerificationError):
            served.ask()
        served.secure = AUTHORITY.client()
        assert served.ask()[0].status == 200
        _, _, lines = served.stop()
    assert not [line for line in lines if "level=info" not in line]


def test_clientcas_require_a_client_certificate(tmp_path):
    authorities = tmp_path / "clients.pem"
    authorities.write_bytes(AUTHORITY.pem)
    more = tls_of(tmp_path, f"    clientcas: [{authorities}]\n")
    paths = AUTHORITY.issue(client=True).write(tmp_path, "client")
    with RegistryProcess(
        *SERVE,
        write_configuration(tmp_path, more=more),
        cwd=tmp_path,
        secure=AUTHORITY.client(paths),
    ) as served:
        assert served.ask()[0].status == 200
        served.secure = AUTHORITY.client()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            served.ask()


def test_clientusers_identify_callers_by_certificate(tmp_path):
    authorities = tmp_path / "clients.pem"
    authorities.write_bytes(AUTHORITY.pem)
    more = tls_of(
        tmp_path,
        f"    clientcas: [{authorities}]\n    clientauth: verify-client-cert-if-given\n"
        "    clientusers:\n    - {pattern: 'ci-(.+)', user: 'robot-{1}', groups: [robots]}\n"
        "access:\n  anonymous: [pull]\n"
        "  rules: [{repositories: ['**'], groups: [robots], allow: [push]}]\n",
    )
    known, unknown = (
        AUTHORITY.client(AUTHORITY.issue(subject=name, client=True).write(tmp_path, name))
        for name in ("ci-7", "ada")
    )
    start = ("POST", "/v2/a/blobs/uploads/")
    with RegistryProcess(
        *SERVE, write_configuration(tmp_path, more=more), cwd=tmp_path, secure=AUTHORITY.client()
    ) as served:
        assert served.ask(*start)[0].status == 403
        served.secure = unknown
        assert served.ask(*start)[0].status == 403
        served.secure = known
        assert served.ask(*start)[0].status == 202
        _, out, _ = served.stop()
    assert [line.split()[2] for line in out.splitlines()] == ["-", "-", "robot-7"]


def test_tls_on_a_unix_socket(tmp_path):
    path = write_configuration(tmp_path, addr=f"unix:{tmp_path / 's'}", more=tls_of(tmp_path))
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as served:
        assert any(f"unix socket {tmp_path / 's'} with TLS" in line for line in served.lines)
        with socket.socket(socket.AF_UNIX) as plain:
            plain.connect(str(tmp_path / "s"))
            with AUTHORITY.client().wrap_socket(plain, server_hostname="127.0.0.1") as secure:
                secure.sendall(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
                assert secure.recv(1000).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("command", [SERVE, TWISTED])
def test_sighup_reloads_the_certificate(tmp_path, command):
    path = write_configuration(tmp_path, more=tls_of(tmp_path))
    with RegistryProcess(*command, path, cwd=tmp_path, secure=AUTHORITY.client()) as served:
        connection = served.connection()
        connection.connect()
        AUTHORITY.issue("127.0.0.1", "more.example").write(tmp_path)
        served.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("127.0.0.1, valid" in line for line in served.lines))
        wait_until(lambda: any("for more.example, 127.0.0.1" in line for line in served.lines))
        with closing(served.connection()) as another:
            another.connect()
            names = another.sock.getpeercert()["subjectAltName"]
        assert ("DNS", "more.example") in names
        connection.request("GET", "/v2/")
        with closing(connection), connection.getresponse() as response:
            assert response.status == 200


def test_sighup_without_tls_is_harmless(tmp_path):
    with RegistryProcess(*SERVE, write_configuration(tmp_path), cwd=tmp_path) as served:
        served.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("reloaded: " in line for line in served.lines))
        assert served.ask()[0].status == 200


def test_a_closed_terminal_ends_the_registry(tmp_path):
    path = write_configuration(tmp_path)
    child, terminal = pty.fork()
    if child == 0:
        try:
            os.chdir(tmp_path)
            os.execve(SERVE[0], [*SERVE, path], environment())
        finally:
            os._exit(1)
    said = b""
    while b"listening on" not in said:
        said += os.read(terminal, 65536)
    os.close(terminal)
    assert os.waitpid(child, 0) == (child, 0)


def remove_key(folder):
    (folder / "server.key").unlink()
    return f"key: {folder}/server.key: No such file or directory"


def replace_key(folder):
    (folder / "server.key").write_bytes(AUTHORITY.issue().key)
    return f"key: {folder}/server.key does not match the certificate"


def replace_certificate(folder):
    (folder / "server.pem").write_text("hello")
    return f"certificate: {folder}/server.pem contains no certificate in PEM"


@pytest.mark.parametrize(
    ("command", "spoil"),
    [
        (SERVE, remove_key),
        (SERVE, replace_key),
        (SERVE, replace_certificate),
        (TWISTED, remove_key),
    ],
)
def test_an_unusable_certificate_ends_the_start_with_one_line(tmp_path, command, spoil):
    path = write_configuration(tmp_path, more=tls_of(tmp_path))
    said = spoil(tmp_path)
    status, _, lines = run(*command, path, cwd=tmp_path)
    assert status == 1
    (line,) = [line for line in lines if "level=info" not in line]
    assert f"twisted-registry: {path}: http.tls.{said}" in line


@pytest.mark.skipif(not missing_ciphers(["DES-CBC3-SHA"]), reason="this OpenSSL has them all")
def test_an_unknown_cipher_ends_the_start(tmp_path):
    more = tls_of(tmp_path, "    ciphersuites: [TLS_RSA_WITH_3DES_EDE_CBC_SHA]\n")
    status, _, (line,) = run(*SERVE, write_configuration(tmp_path, more=more), cwd=tmp_path)
    assert status == 1
    assert line.endswith("ciphersuites: this OpenSSL has no DES-CBC3-SHA (its name for it)")


def test_letsencrypt_without_the_extra_acme_names_it(tmp_path, monkeypatch):
    more = f"  tls:\n    letsencrypt: {{cachefile: {tmp_path}/acme, hosts: [a.example]}}\n"
    configuration = load(write_configuration(tmp_path, more=more), {}).configuration
    for name in [name for name in sys.modules if name.startswith("twisted_registry.acme.")]:
        if not name.endswith((".cache", ".selfsigned")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "acme", None)
    monkeypatch.setitem(sys.modules, "acme.jws", None)
    with pytest.raises(
        StartError,
        match=r"^http\.tls\.letsencrypt: needs the package acme[.jws]*; to install it: .* 'acme>=",
    ):
        TLSService(configuration, Clock())
