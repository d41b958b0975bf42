"""Names, servers, ports and the clock."""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import closing
from email.utils import formatdate

import pytest
from attrs import evolve
from twisted.internet.defer import fail, succeed
from twisted.web.http_headers import Headers

from tests.logs.smtp_server import smtp_server
from tests.support.certificates import Authority
from tests.support.processes import free_port
from twisted_registry.doctor.network import (
    Listener,
    check_clock,
    check_clock_against_file,
    check_mail_server,
    check_port,
    check_server,
    find_listener,
)
from twisted_registry.logs.mail import MailServer

NOW = 1_700_000_000.0


def listening():
    """Return a socket that listens on a free port of 127.0.0.1."""
    return closing(socket.create_server(("127.0.0.1", 0)))


def test_a_server_that_accepts_connections_is_fine():
    with listening() as server:
        assert check_server("redis.addr", "127.0.0.1", server.getsockname()[1]) == []


def test_a_server_that_is_down_is_found():
    port = free_port()
    (found,) = check_server("redis.addr", "127.0.0.1", port)
    assert found.problem == f"127.0.0.1:{port} does not accept connections"
    assert found.evidence == "connect to 127.0.0.1: Connection refused"


def test_an_unknown_name_is_found():
    (found,) = check_server("redis.addr", "no-such-host.invalid", 6379)
    assert found.problem == "the name no-such-host.invalid is not known"
    assert found.advice.endswith("getent hosts no-such-host.invalid")


SMTP = "log.hooks[0].options.smtp"


def mail_server(port, **options):
    return MailServer("127.0.0.1", port, "registry@x", ["a@x"], timeout_s=10, **options)


def test_a_mail_server_gets_the_login_and_no_mail(tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority().issue("mail.lan").write(tmp_path))
    with smtp_server(context=context) as server:
        trusting = mail_server(server.port, username="me", password="secret", verify=False)
        assert check_mail_server(SMTP, trusting) == []
        (found,) = check_mail_server(SMTP, mail_server(server.port))
    assert (server.logins, server.messages) == (["\0me\0secret"], [])
    assert found.subject == f"{SMTP}.addr"
    assert found.problem == f"the certificate of 127.0.0.1:{server.port} is not trusted"
    assert found.advice.endswith("insecure: true")


def test_a_mail_server_that_refuses_the_login_is_found():
    with smtp_server(refuse_login="535 5.7.8 not with hunter2") as server:
        login = mail_server(server.port, username="me", password="hunter2")
        (found,) = check_mail_server(SMTP, login)
    assert found.subject == f"{SMTP}.password"
    assert found.evidence == "AUTH: 535 5.7.8 not with REDACTED"


def test_a_server_that_is_none_for_mail_is_found():
    with listening() as server:
        port = server.getsockname()[1]
        silent = evolve(mail_server(port), timeout_s=0.1)
        (found,) = check_mail_server(SMTP, silent)
    assert (found.subject, found.evidence) == (
        f"{SMTP}.addr",
        "SMTP: Connection unexpectedly closed: timed out",
    )
    (found,) = check_mail_server(SMTP, mail_server(port))
    assert found.problem == f"127.0.0.1:{port} does not accept connections"


@pytest.mark.parametrize("host", ["127.0.0.1", "", "::"])
def test_a_free_port_is_fine(host):
    assert check_port("http.addr", host, free_port(), None) == []


def test_a_port_of_another_process_is_found_with_its_name():
    with listening() as server:
        port = server.getsockname()[1]
        listener = find_listener(port)
        (found,) = check_port("http.addr", "127.0.0.1", port, listener)
        (hidden,) = check_port("http.addr", "127.0.0.1", port, None)
    assert listener.pid == os.getpid()
    assert f"port {port} is in use by process {os.getpid()} (" in found.problem
    assert found.evidence == "bind: Address already in use"
    assert "a process of another user" in hidden.problem


def test_a_port_of_a_registry_is_fine():
    with listening() as server:
        listener = Listener(7, ("/venv/bin/python", "-m", "twisted_registry", "serve"))
        assert check_port("http.addr", "127.0.0.1", server.getsockname()[1], listener) == []


@pytest.mark.parametrize(
    ("pid", "command", "is_ours"),
    [
        (7, "/opt/bin/python3 /opt/bin/twisted-registry serve config.yml", True),
        (7, "/usr/bin/twisted-registry serve", True),
        (7, "python3.11 /venv/bin/registry serve config.yml", True),
        (1, "/sbin/init", True),
        (7, "/bin/registry serve config.yml", False),
        (7, "nginx: master", False),
        (7, "", False),
    ],
)
def test_registries_are_known_by_their_command(pid, command, is_ours):
    assert Listener(pid, tuple(command.split())).is_ours is is_ours


def test_no_process_listens_on_a_free_port():
    assert find_listener(free_port()) is None


def test_an_address_of_another_machine_is_found():
    (found,) = check_port("http.addr", "192.0.2.1", free_port(), None)
    assert "192.0.2.1" in found.problem
    assert found.evidence.startswith("bind: ")


def test_a_low_port_needs_a_capability(monkeypatch):
    class Refusing(socket.socket):
        def bind(self, _address):
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", Refusing)
    (found,) = check_port("http.addr", "127.0.0.1", 443, None)
    assert found.problem == "port 443 needs a capability"
    assert check_port("http.addr", "127.0.0.1", 443, None, may_bind_low=True) == []


class Agent:
    """An agent whose response has a time."""

    def __init__(self, seconds):
        self.seconds = seconds

    def request(self, *_):
        if self.seconds is None:
            return fail(OSError())
        self.headers = Headers({"date": [formatdate(self.seconds, usegmt=True)]})
        return succeed(self)


@pytest.mark.parametrize(
    ("served", "expected"),
    [
        (NOW - 5, []),
        (None, []),
        (NOW - 120, [("120 s ahead of", True)]),
        (NOW + 3600, [("3600 s behind", False)]),
    ],
)
def test_the_clock_is_compared_with_the_store(served, expected):
    coroutine = check_clock("storage.s3", "http://s3/", Agent(served), lambda: NOW)
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    found = ended.value.value
    assert len(found) == len(expected)
    for each, (problem, is_warning) in zip(found, expected, strict=True):
        assert problem in each.problem
        assert each.is_warning is is_warning


def test_a_clock_behind_the_configuration_is_found(tmp_path):
    path = tmp_path / "registry.yml"
    path.write_text("")
    changed = path.stat().st_mtime
    assert check_clock_against_file(str(path), changed + 10) == []
    assert check_clock_against_file(str(tmp_path / "none"), 0) == []
    (found,) = check_clock_against_file(str(path), changed - 3600)
    assert "3600 s in the future" in found.evidence
