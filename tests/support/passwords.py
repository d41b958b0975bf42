"""Users with passwords of low cost, and a record of the costs."""

from __future__ import annotations

from base64 import b64encode

import bcrypt
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from twisted_registry.auth.interfaces import Caller
from twisted_registry.auth.password_file import PasswordFile, hash_password


def password_lines(**users):
    """Return the content of a password file with these users and passwords."""
    return b"".join(
        name.encode() + b":" + hash_password(password.encode(), 4) + b"\n"
        for name, password in users.items()
    )


def basic_header(name, password):
    """Return the Authorization header of a user."""
    return "Basic " + b64encode(f"{name}:{password}".encode()).decode()


def basic_caller(name, password):
    return Caller(basic_header(name, password))


class BcryptCosts:
    """Wraps the bcrypt library and records the costs of the checked hashes."""

    def __init__(self, monkeypatch):
        self.costs = []
        real = bcrypt.checkpw

        def checkpw(password, hashed):
            self.costs.append(int(hashed[4:6]))
            return real(password, hashed)

        monkeypatch.setattr(bcrypt, "checkpw", checkpw)

    def take(self):
        """Return and forget the costs so far."""
        costs, self.costs = self.costs, []
        return costs


class PasswordFileWriter:
    """An htpasswd file that a test writes, and a clock after its modification."""

    def __init__(self, path):
        self.path = path
        self.clock = Clock()
        self.clock.advance(1_000_000_000)
        self.reads = 0

    def write(self, content, *, settled=True):
        self.path.write_bytes(content)
        if settled:
            self.settle()

    def settle(self):
        """Advance the clock, so that the file is no longer new."""
        found = self.path.stat()
        self.clock.advance(max(0, found.st_ctime_ns / 1e9 + 1 - self.clock.seconds()))
        self.clock.advance(1)

    def checker(self):
        """Return a PasswordFile that does its work at once."""
        return PasswordFile(str(self.path), self._run, self.clock)

    def _run(self, work, *arguments):
        self.reads += work.__name__ == "_read"
        return maybeDeferred(work, *arguments)
