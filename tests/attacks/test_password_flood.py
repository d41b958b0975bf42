"""Floods of wrong passwords, from one address and from many: other logins go on."""

from __future__ import annotations

import json
import time
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from itertools import count
from socket import SHUT_RDWR
from statistics import median
from threading import Event, Thread

import pytest

from tests.support.passwords import basic_header
from tests.support.processes import SERVE, RegistryProcess, wait_until, write_configuration
from twisted_registry.auth.password_file import hash_password

ATTACKERS = 100
USERS = [f"user{number}" for number in range(10)]
#: The cost of hashes that a registry and Apache's htpasswd make by themselves, or above.
COST = 11
#: For the request itself, on a busy machine.
_OVERHEAD_S = 0.05
CONFIGURATION = """\
version: 0.1
log: {{{{accesslog: {{{{disabled: true}}}}}}}}
storage: {{{{filesystem: {{{{rootdirectory: {root}}}}}}}}}
http: {{{{addr: 127.0.0.1:0, workers: {workers}}}}}
auth: {{{{htpasswd: {{{{realm: here, path: {users}}}}}}}}}
access:
  authenticated: [pull]
  tokens:
"""


def duration_of(function, *arguments):
    """Return result and duration in seconds."""
    started = time.monotonic()
    return function(*arguments), time.monotonic() - started


class Attack:
    """Connections that send wrong passwords, again and again.

    :ivar statuses: the statuses of their answers.
    """

    def __init__(self, port, name_of, address_of):
        self._port = port
        self._stopped, self._first = Event(), Event()
        self.statuses, self._sockets = [], []
        self._threads = [
            Thread(target=self._run, args=(number, name_of(number), address_of(number)))
            for number in range(ATTACKERS)
        ]

    def _run(self, number, name, address):
        connection = HTTPConnection("127.0.0.1", self._port, 60, source_address=(address, 0))
        connection.connect()
        self._sockets.append(connection.sock)
        self._first.wait()
        # The connection is shut down at the end, wherever it is.
        with closing(connection), suppress(OSError, HTTPException):
            for tries in count():
                headers = {"Authorization": basic_header(name, f"wrong {number} {tries}")}
                connection.request("GET", "/v2/", headers=headers)
                response = connection.getresponse()
                response.read()
                self.statuses.append(response.status)
                if self._stopped.wait(0.5):
                    break

    @contextmanager
    def run(self):
        for thread in self._threads:
            thread.start()
        wait_until(lambda: len(self._sockets) == ATTACKERS)
        self._first.set()
        time.sleep(0.2)
        try:
            yield
        finally:
            self._stopped.set()
            for each in self._sockets:
                with suppress(OSError):
                    each.shutdown(SHUT_RDWR)
            for thread in self._threads:
                thread.join()


def log_in(server, name):
    response, _ = server.ask(headers={"Authorization": basic_header(name, "right")})
    return response.status


def get_token(server, name):
    headers = {"Authorization": basic_header(name, "right")}
    response, body = server.ask(path="/auth/token?service=twisted-registry", headers=headers)
    assert response.status == 200
    return json.loads(body)["token"]


def use_token(server, token):
    response, _ = server.ask(headers={"Authorization": f"Bearer {token}"})
    return response.status


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "address_of", [lambda _: "127.0.1.1", lambda n: f"127.0.1.{n + 1}"], ids=["one", "many"]
)
@pytest.mark.parametrize(
    "name_of", [lambda n: f"name{n}", lambda _: USERS[-1]], ids=["names", "victim"]
)
def test_right_passwords_and_tokens_are_not_held_up(tmp_path, workers, address_of, name_of):
    """A right password is checked within two bcrypt times, a token within 50 ms.

    The bounds hold for the best of several tries: the machine may be busy otherwise.
    """
    hashed = hash_password(b"right", COST)
    users = tmp_path / "users"
    users.write_bytes(b"".join(b"%s:%s\n" % (name.encode(), hashed) for name in USERS))
    path = write_configuration(
        tmp_path, CONFIGURATION.format(workers=workers, users=users, root=tmp_path / "store")
    )
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        time.sleep(0.1)  # logins are not cached while the file is new
        idle_s = median(duration_of(log_in, server, name)[1] for name in USERS[:3])
        tokens = [get_token(server, USERS[0]) for _ in range(3)]
        for _ in range(10):
            log_in(server, USERS[0])  # every process knows it
        attack = Attack(server.port, name_of, address_of)
        with attack.run():
            logins = [duration_of(log_in, server, name) for name in USERS[:4:-1]]
            uses = [duration_of(use_token, server, token) for token in tokens]
            known = [duration_of(log_in, server, USERS[0]) for _ in range(3)]
    assert {status for status, _ in (*logins, *uses, *known)} == {200}
    assert set(attack.statuses) <= {401, 429}
    assert min(duration for _, duration in logins) < 2 * idle_s + _OVERHEAD_S
    assert min(duration for _, duration in uses) < 0.05
    assert min(duration for _, duration in known) < 0.05
