"""bcrypt, as Distribution's library does it. All of it takes long: call it on a thread.

The users of an htpasswd file, which is read again when it has changed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from hashlib import sha256
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any

import bcrypt
from attrs import define, field
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger
from zope.interface import implementer

from twisted_registry.auth.access import AuthenticationUnavailable
from twisted_registry.auth.basic import IVersionedChecker
from twisted_registry.auth.htpasswd import (
    MAX_PASSWORD_BYTES,
    HtpasswdInvalid,
    HtpasswdUsers,
    parse_htpasswd,
    temporary_file,
    with_entry,
)
from twisted_registry.auth.interfaces import IAccountVersions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from twisted.internet.interfaces import IReactorTime
    from zope.interface.interface import InterfaceClass

#: The binary logarithm of the rounds of a new hash: Distribution's, some 70 ms.
DEFAULT_COST = 10


def verify_password(password: bytes, hashed: bytes) -> bool:
    """Whether a hash is that of a password, of which only the first 72 bytes count."""
    # The library knows the first version by its later name only.
    known = b"$2a" + hashed[2:] if hashed.startswith(b"$2$") else hashed
    try:
        return bcrypt.checkpw(password[:MAX_PASSWORD_BYTES], known)
    except ValueError:  # a salt or a hash that bcrypt never wrote
        return False


def verify_dummy_password(password: bytes, cost: int) -> bool:
    """Take as long as :func:`verify_password` does, for a hash of nobody's password."""
    return verify_password(password, b"$2b$%02d$%s" % (cost, b"." * 53))


def hash_password(password: bytes, cost: int = DEFAULT_COST) -> bytes:
    """A new hash, in the version that Apache writes.

    :param password: at most 72 bytes.
    """
    return b"$2y" + bcrypt.hashpw(password, bcrypt.gensalt(cost))[3:]


# A file of secrets is made with the calls that say how.
# ruff: noqa: PTH123


log = Logger()

#: Nanoseconds: a file that was written so lately may be written again without looking different.
_MIN_AGE_NS = 20_000_000
#: The user of a file that was missing, as in Distribution.
FIRST_USER = "docker"


@implementer(ICredentialsChecker, IVersionedChecker, IAccountVersions)
@define(eq=False, repr=False)
class PasswordFile:
    """Knows the users of a file.

    Whether a password is right is found on a thread, and for a name that is unknown in the same
    time.

    :ivar path: the file.
    :ivar run: makes a call on a thread; how many it makes at a time bounds the processors that
        passwords take.
    :ivar clock: the time, by the clock that stamps files.
    """

    credentialInterfaces: Sequence[InterfaceClass] = field(init=False, default=(IUsernamePassword,))
    _path: str
    _run_in_thread: Callable[..., Deferred[Any]]
    _clock: IReactorTime
    _loaded: tuple[object, HtpasswdUsers] = field(init=False, default=(None, HtpasswdUsers({})))

    def version(self) -> object | None:
        """As promised by :class:`~twisted_registry.auth.basic.IVersionedChecker`."""
        try:
            return self._file_version(os.stat(self._path))  # noqa: PTH116
        except OSError:
            return None

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        """Fire with the name, or fail with UnauthorizedLogin.

        :raises AuthenticationUnavailable: if the file can not be read, or is no htpasswd file.
        """
        return self._check(credentials.username, credentials.password)

    @inlineCallbacks
    def _check(self, name: bytes, password: bytes) -> Generator[Any, Any, bytes | tuple[()]]:
        users: HtpasswdUsers = yield self._current_users()
        hashed = users.hashes.get(name)
        found = yield (
            self._run_in_thread(verify_dummy_password, password, users.cost)
            if hashed is None
            else self._run_in_thread(verify_password, password, hashed)
        )
        if not found:
            raise UnauthorizedLogin
        return name

    @inlineCallbacks
    def stamp(self, name: str) -> Generator[Any, Any, str | None]:
        """As promised by :class:`~twisted_registry.auth.interfaces.IAccountVersions`.

        :raises AuthenticationUnavailable: if the file can not be read, or is no htpasswd file.
        """
        users: HtpasswdUsers = yield self._current_users()
        hashed = users.hashes.get(name.encode())
        return None if hashed is None else sha256(hashed).hexdigest()

    @inlineCallbacks
    def _current_users(self) -> Generator[Any, Any, HtpasswdUsers]:
        version, users = self._loaded
        if version is None or version != self.version():
            try:
                users = self._store_users((yield self._run_in_thread(self._read)))
            except OSError as error:
                raise AuthenticationUnavailable(f"{self._path}: {error.strerror}") from error
            except HtpasswdInvalid as error:
                raise AuthenticationUnavailable(f"{self._path}: {error}") from error
        return users

    def read(self) -> None:
        """Read the file, at the start. Blocks.

        :raises OSError: if it can not be read.
        :raises HtpasswdInvalid: if it is no htpasswd file.
        """
        self._store_users(self._read())

    def _read(self) -> tuple[object | None, HtpasswdUsers]:
        with open(self._path, "rb") as file:
            mark = self._file_version(os.fstat(file.fileno()))
            return mark, parse_htpasswd(file.read())

    def _store_users(self, found: tuple[object | None, HtpasswdUsers]) -> HtpasswdUsers:
        self._loaded = found
        _, users = found
        if users.ignored:
            log.warn(
                "{path}: {ignored} lines are not NAME:HASH with a hash of bcrypt, and open no door"
                " (htpasswd -B makes such)",
                path=self._path,
                ignored=users.ignored,
            )
        return users

    def _file_version(self, seen: os.stat_result) -> object | None:
        written = max(seen.st_mtime_ns, seen.st_ctime_ns)
        if self._clock.seconds() * 1e9 - written < _MIN_AGE_NS:
            return None
        return seen.st_dev, seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size


def create_if_missing(path: str) -> str | None:
    """Make a file with one user, :data:`FIRST_USER`, where there is none, readable by us alone.

    Blocks.

    :returns: the password, which nobody can find out later; None if there is a file.
    :raises OSError: if it can be neither found nor made.
    """
    with suppress(FileNotFoundError):
        os.stat(path)  # noqa: PTH116
        return None
    folder = os.path.dirname(path)  # noqa: PTH120
    if folder:
        os.makedirs(folder, 0o700, exist_ok=True)  # noqa: PTH103
    password = token_urlsafe()
    with temporary_file(
        path, with_entry(b"", FIRST_USER.encode(), hash_password(password.encode()))
    ) as hidden:
        try:
            os.link(hidden, path)
        except FileExistsError:  # another was faster
            return None
    return password
