"""Credentials for the store, and where they are looked for.

Credentials come from the configuration, the environment, or the files that AWS's tools share.
Profiles that refer to other sources (roles, programs, single sign-on) are left to AWS's library,
botocore. Those of files and of botocore are loaded again when the files change, when they get old,
and when the store refuses them.
"""

from __future__ import annotations

import os
from configparser import ConfigParser
from configparser import Error as ConfigError
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from twisted_registry.storage.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.internet.interfaces import IReactorTime

# zope's methods have no self, and their bodies are their docstrings.
# ruff: noqa: N805
# mypy: disable-error-code="empty-body"

log = Logger()

#: Seconds after a load before which credentials that the store refuses are not loaded again: a
#: refusal without a reason (of HEAD) may have another cause, and comes with every request.
_MIN_RENEWAL_INTERVAL_S: Final = 2.0


class CredentialsError(Exception):
    """Raised if there are no valid credentials. The message never contains any."""


class BotocoreMissing(CredentialsError):
    """Raised if there are no credentials, and sources that need botocore were not tried."""


@frozen
class Credentials:
    """An access key pair.

    :ivar access_key: access key id.
    :ivar secret_key: secret access key.
    :ivar token: session token of temporary keys, or empty.
    """

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)


class ICredentialsProvider(Interface):
    """A source of credentials."""

    def current() -> Deferred[Credentials]:
        """Fire with credentials that are valid now.

        :raises CredentialsError: if there are none.
        """

    def renew(refused: Credentials) -> Deferred[Credentials]:
        """Fire with the credentials to use after the store has refused some.

        :param refused: the credentials that were refused; fires with the same if there are no
            others.
        :raises CredentialsError: if there are none.
        """

    def close() -> Deferred[None]:
        """Release all resources. Credentials are no longer available."""


@implementer(ICredentialsProvider)
@frozen
class StaticCredentials:
    """Credentials that never change."""

    credentials: Credentials

    def current(self) -> Deferred[Credentials]:
        """Fire with the credentials."""
        return succeed(self.credentials)

    def renew(self, refused: Credentials) -> Deferred[Credentials]:  # noqa: ARG002
        """Fire with the credentials."""
        return succeed(self.credentials)

    def close(self) -> Deferred[None]:
        """Do nothing: there are no resources."""
        return succeed(None)


class ICredentialsSource(Interface):
    """Where credentials are loaded from."""

    def version() -> object:
        """Return a value that differs when there may be other credentials. Does not block."""

    def load(*, renew: bool) -> Credentials:
        """Return the credentials. May block; called on one thread at a time.

        :param renew: whether the store has refused those that were returned last.
        :raises CredentialsError: if there are none.
        """


@implementer(ICredentialsProvider)
@define(eq=False)
class LoadedCredentials:
    """Credentials that are loaded on a thread, and again when they may have changed.

    If they cannot be loaded again, the previous ones are used: they may still be valid.

    :ivar clock: for the age of the credentials.
    :ivar threads: runs the source; closed with this object.
    :ivar refresh_after_s: age after which credentials are loaded in the background.
    :ivar max_age_s: age after which requests wait until they are loaded.
    :ivar cached: the credentials that were loaded last, or None.
    """

    _clock: IReactorTime
    _threads: Threads
    _source: ICredentialsSource
    _refresh_after_s: float = inf
    _max_age_s: float = inf
    _cached: Credentials | None = None
    _version: object = None
    _loaded_at: float = field(init=False)
    _is_loading: bool = field(init=False, default=False)
    #: whether this load, and the next, is to replace credentials that the store has refused
    _is_renewing: bool = field(init=False, default=False)
    _must_renew: bool = field(init=False, default=False)
    _waiting: list[Deferred[Credentials]] = field(init=False, factory=list)

    @_loaded_at.default
    def _start_time(self) -> float:
        # Credentials that were loaded at the start may have changed since.
        return self._clock.seconds() - _MIN_RENEWAL_INTERVAL_S

    def current(self) -> Deferred[Credentials]:
        """Fire with the credentials, at once if they are neither old nor replaced."""
        age = self._clock.seconds() - self._loaded_at
        cached = self._cached
        if cached is None or age >= self._max_age_s or self._source.version() != self._version:
            return self._wait()
        if age >= self._refresh_after_s:
            self._refresh()
        return succeed(cached)

    def renew(self, refused: Credentials) -> Deferred[Credentials]:
        """Load the credentials again, unless that was done since or a moment ago."""
        cached = self._cached
        if cached is None or cached != refused:
            return self.current()
        age = self._clock.seconds() - self._loaded_at
        if age < _MIN_RENEWAL_INTERVAL_S and not self._is_loading:
            return succeed(cached)
        self._must_renew = not self._is_renewing
        return self._wait()

    def close(self) -> Deferred[None]:
        """Stop the thread."""
        return self._threads.close()

    def _wait(self) -> Deferred[Credentials]:
        waiting: Deferred[Credentials] = Deferred()
        self._waiting.append(waiting)
        self._refresh()
        return waiting

    def _refresh(self) -> None:
        if not self._is_loading:
            self._is_loading = True
            self._is_renewing = renew = self._must_renew
            self._must_renew = False
            # Taken before the load: what changes meanwhile is loaded by the next request.
            self._version = self._source.version()
            loading = self._threads.run_blocking(lambda: self._source.load(renew=renew))
            loading.addBoth(self._finish)

    def _finish(self, result: Credentials | Failure) -> None:
        self._is_loading = self._is_renewing = False
        self._loaded_at = self._clock.seconds()
        if isinstance(result, Credentials):
            self._cached = result
        if self._must_renew:
            # The store has refused credentials while they were loaded.
            self._refresh()
            return
        waiting, self._waiting = self._waiting, []
        if isinstance(result, Failure):
            reason = _as_credentials_error(result.value)
            if self._cached is None:
                for deferred in waiting:
                    deferred.errback(reason)
                return
            # They may be valid for some minutes. If not, the store will refuse them.
            log.warn(
                "cannot refresh the s3 credentials, using the previous ones: error={reason}",
                reason=reason,
            )
            result = self._cached
        for deferred in waiting:
            deferred.callback(result)


def _as_credentials_error(error: BaseException | None) -> CredentialsError:
    if isinstance(error, CredentialsError):
        return error
    return CredentialsError(f"{type(error).__name__}: {error}")


#: Keys of a profile whose credentials come from another source.
_INDIRECT_KEYS: Final = frozenset(
    {
        "credential_process",
        "credential_source",
        "login_session",
        "role_arn",
        "sso_account_id",
        "sso_session",
        "web_identity_token_file",
    }
)


def from_environment(environ: Mapping[str, str]) -> Credentials | None:
    """Return the credentials in ``AWS_ACCESS_KEY_ID`` and its companions, if they are set.

    :raises CredentialsError: if only one key of the pair is set.
    """
    access = environ.get("AWS_ACCESS_KEY_ID") or environ.get("AWS_ACCESS_KEY") or ""
    secret = environ.get("AWS_SECRET_ACCESS_KEY") or environ.get("AWS_SECRET_KEY") or ""
    if not access and not secret:
        return None
    if not access or not secret:
        missing = "AWS_SECRET_ACCESS_KEY" if access else "AWS_ACCESS_KEY_ID"
        raise CredentialsError(f"{missing} is not set, but its companion is")
    return Credentials(access, secret, environ.get("AWS_SESSION_TOKEN", ""))


def from_shared_files(environ: Mapping[str, str]) -> Credentials | None:
    """Return the keys of the profile, or None if it has none or refers to another source.

    The profile is ``AWS_PROFILE`` or ``default``. The files are ``AWS_SHARED_CREDENTIALS_FILE``
    or ``~/.aws/credentials``, and ``AWS_CONFIG_FILE`` or ``~/.aws/config``, in which the section
    of a profile is named ``profile NAME``.

    :raises CredentialsError: if a file is malformed, a profile that was set by name does not
        exist, or a profile has only one key of the pair.
    """
    selected = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE") or ""
    profile = selected or "default"
    shared, config = _shared_paths(environ)
    in_config = ("default",) if profile == "default" else ()
    keys = {
        **_read_section(config, f"profile {profile}", *in_config),
        **_read_section(shared, profile),
    }
    if selected and not keys:
        raise CredentialsError(f"the profile {selected!r} is neither in {shared} nor in {config}")
    access, secret = keys.get("aws_access_key_id", ""), keys.get("aws_secret_access_key", "")
    if _INDIRECT_KEYS & keys.keys() or not (access or secret):
        return None
    if not access or not secret:
        missing = "aws_secret_access_key" if access else "aws_access_key_id"
        raise CredentialsError(f"the profile {profile!r} in {shared} has no {missing}")
    return Credentials(access, secret, keys.get("aws_session_token", ""))


@implementer(ICredentialsSource)
@frozen
class SharedFiles:
    """The profile in the files that AWS's tools share.

    :ivar environ: environment, see :func:`from_shared_files`.
    """

    environ: Mapping[str, str]
    _paths: tuple[str, str] = field(init=False)

    @_paths.default
    def _find_paths(self) -> tuple[str, str]:
        shared, config = _shared_paths(self.environ)
        return str(shared), str(config)

    def version(self) -> object:
        """Return inode, size and times of the files."""
        return tuple(map(_file_version, self._paths))

    def load(self, *, renew: bool) -> Credentials:  # noqa: ARG002
        """Read the files."""
        found = from_shared_files(self.environ)
        if found is None:
            raise CredentialsError(f"the profile in {self._paths[0]} no longer has keys")
        return found


def _file_version(path: str) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - several times as fast, for each request
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _shared_paths(environ: Mapping[str, str]) -> tuple[Path, Path]:
    return (
        _file_path(environ, "AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
        _file_path(environ, "AWS_CONFIG_FILE", "~/.aws/config"),
    )


def _file_path(environ: Mapping[str, str], variable: str, default: str) -> Path:
    path = Path(environ.get(variable) or default)
    home = environ.get("HOME") or "/"
    return Path(home, *path.parts[1:]) if path.parts[0] == "~" else path


def _read_section(path: Path, *sections: str) -> dict[str, str]:
    """Return the keys of the first of the sections that exists in a file."""
    parser = ConfigParser(interpolation=None, strict=False, default_section="")
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except (FileNotFoundError, PermissionError):
        # Services often cannot access home directories, and need nothing there.
        return {}
    except OSError as error:
        raise CredentialsError(f"{path}: {error.strerror}") from error
    except (ConfigError, UnicodeDecodeError):
        # Without the error, whose text may contain a line of the file with a secret.
        raise CredentialsError(f"{path} is not a valid file of AWS profiles") from None
    found = next((name for name in sections if parser.has_section(name)), None)
    return {} if found is None else dict(parser.items(found))


def find_credentials(
    reactor: Any,
    environ: Mapping[str, str],
    access_key: str = "",
    secret_key: str = "",
    token: str = "",
) -> ICredentialsProvider:
    """Return the first of: the configured keys, the environment, the profile, botocore's chain.

    This reads files and blocks, so call it at the start only.

    :param environ: environment; ``HOME`` and variables that begin with ``AWS_`` are used.
    :raises BotocoreMissing: if there is none of the others, and the extra ``aws`` (botocore) is not
        installed.
    :raises CredentialsError: if the first source is invalid.
    """
    if access_key and secret_key:
        return StaticCredentials(Credentials(access_key, secret_key, token))
    found = from_environment(environ)
    if found is not None:
        return StaticCredentials(found)
    files = SharedFiles(environ)
    version = files.version()
    found = from_shared_files(environ)
    if found is not None:
        threads = Threads(reactor, 1, "s3-credentials")
        return LoadedCredentials(reactor, threads, files, cached=found, version=version)
    try:
        from twisted_registry.storage.s3.botocore_credentials import (  # noqa: PLC0415
            make_botocore_credentials,
        )
    except ImportError as error:
        raise BotocoreMissing(
            "no credentials: set accesskey and secretkey, or AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws/credentials; for roles of machines,"
            " tasks and pods install botocore"
        ) from error
    return make_botocore_credentials(reactor, Threads(reactor, 1, "s3-credentials"))
