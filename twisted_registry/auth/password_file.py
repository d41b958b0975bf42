"""The users of an htpasswd file, as a checker for :mod:`twisted.cred`.

The file is read again when it has changed. Passwords are hashed with bcrypt, as Distribution does;
the functions that hash take long, so call them on a thread.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
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
    with_entry,
)
from twisted_registry.auth.interfaces import IAccountVersions
from twisted_registry.storage.files import temporary_file, version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from twisted.internet.interfaces import IReactorTime
    from zope.interface.interface import InterfaceClass

log = Logger()

#: The cost of a new hash (the binary logarithm of the rounds), as in Distribution.
DEFAULT_COST = 10
#: A file modified less than this many nanoseconds ago may change again and look the same.
_MIN_AGE_NS = 20_000_000
#: The user of a file that was missing, as in Distribution.
FIRST_USER = "docker"


def verify_password(password: bytes, hashed: bytes) -> bool:
    """Return whether a password matches a hash. Only its first 72 bytes count. Takes long."""
    # The library knows version 2 only as version 2a.
    known = b"$2a" + hashed[2:] if hashed.startswith(b"$2$") else hashed
    try:
        return bcrypt.checkpw(password[:MAX_PASSWORD_BYTES], known)
    except ValueError:  # bcrypt rejects the salt or the hash
        return False


def verify_dummy_password(password: bytes, cost: int) -> bool:
    """Return False after the time that :func:`verify_password` needs for a hash of this cost."""
    return verify_password(password, b"$2b$%02d$%s" % (cost, b"." * 53))


def hash_password(password: bytes, cost: int = DEFAULT_COST) -> bytes:
    """Return a new hash of version 2y, as Apache writes it. Takes long.

    :param password: at most 72 bytes.
    :param cost: the binary logarithm of the rounds.
    """
    return b"$2y" + bcrypt.hashpw(password, bcrypt.gensalt(cost))[3:]


@implementer(ICredentialsChecker, IVersionedChecker, IAccountVersions)
@define(eq=False, repr=False)
class PasswordFile:
    """A credentials checker for the users of an htpasswd file.

    Passwords are checked on a thread. Unknown names take as long as wrong passwords, so that
    callers cannot find out which names exist.

    :ivar path: the file.
    :ivar run_in_thread: runs a function on a thread: the hash of a password, or reading the file.
    :ivar clock: the time, by the clock that sets the modification times of files.
    """

    credentialInterfaces: Sequence[InterfaceClass] = field(init=False, default=(IUsernamePassword,))
    _path: str
    _run_in_thread: Callable[..., Deferred[Any]]
    _clock: IReactorTime
    _loaded: tuple[object, HtpasswdUsers] = field(init=False, default=(None, HtpasswdUsers({})))
    _seen: tuple[int, ...] | None = field(init=False, default=None)
    _version: object | None = field(init=False, default=None)

    def version(self) -> object | None:
        """Return the version of the file; None if it is missing or was modified just now."""
        try:
            status = os.stat(self._path)  # noqa: PTH116 - for each request
        except OSError:
            return None
        # Any change of a file changes the time of its inode.
        seen = status.st_ino, status.st_ctime_ns, status.st_mtime_ns, status.st_dev
        if seen != self._seen:
            self._version = self._settled_version(status)
            self._seen = seen if self._version is not None else None
        return self._version

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        """Fire with the name, or fail with UnauthorizedLogin.

        :raises AuthenticationUnavailable: if the file cannot be read or is not an htpasswd file.
        """
        return self._check(credentials.username, credentials.password)

    @inlineCallbacks
    def _check(self, name: bytes, password: bytes) -> Generator[Any, Any, bytes | tuple[()]]:
        users: HtpasswdUsers = yield self._current_users()
        hashed = users.hashes.get(name)
        is_right = yield (
            self._run_in_thread(verify_dummy_password, password, users.cost)
            if hashed is None
            else self._run_in_thread(verify_password, password, hashed)
        )
        if not is_right:
            raise UnauthorizedLogin
        return name

    @inlineCallbacks
    def account_version(self, name: str) -> Generator[Any, Any, str | None]:
        """Fire with a hash of the user's password hash; with None if the user does not exist.

        :raises AuthenticationUnavailable: if the file cannot be read or is not an htpasswd file.
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

    def load(self) -> None:
        """Read the file, before the first request. Blocks.

        :raises OSError: if the file cannot be read.
        :raises HtpasswdInvalid: if it is not an htpasswd file.
        """
        self._store_users(self._read())

    def _read(self) -> tuple[object | None, HtpasswdUsers]:
        with Path(self._path).open("rb") as file:
            version = self._settled_version(os.fstat(file.fileno()))
            return version, parse_htpasswd(file.read())

    def _store_users(self, loaded: tuple[object | None, HtpasswdUsers]) -> HtpasswdUsers:
        self._loaded = loaded
        _, users = loaded
        if users.ignored:
            log.warn(
                "{path}: ignored: {lines}: expected NAME:HASH with a bcrypt hash (use htpasswd -B)",
                path=self._path,
                lines=users.describe_ignored(),
            )
        return users

    def _settled_version(self, status: os.stat_result) -> object | None:
        modified = max(status.st_mtime_ns, status.st_ctime_ns)
        if self._clock.seconds() * 1e9 - modified < _MIN_AGE_NS:
            return None
        return version_of(status)


def create_if_missing(path: str) -> str | None:
    """Create a file with the user :data:`FIRST_USER`, readable only by its owner. Blocks.

    :returns: the generated password, which is stored nowhere else; None if the file exists.
    :raises OSError: if the file can be neither found nor created.
    """
    target = Path(path)
    try:
        target.stat()
    except FileNotFoundError:
        target.parent.mkdir(0o700, parents=True, exist_ok=True)
    else:
        return None
    password = token_urlsafe()
    content = with_entry(b"", FIRST_USER.encode(), hash_password(password.encode()))
    with temporary_file(path, content) as hidden:
        try:
            target.hardlink_to(hidden)
        except FileExistsError:  # another process has created it meanwhile
            return None
    return password
