"""Credentials from AWS's library, botocore: roles of machines, tasks and pods.

This module needs the extra ``aws``. botocore blocks while it queries servers, so it is called on a
thread. It renews temporary credentials in the last ten minutes of their life. Credentials are
therefore used for :data:`MAX_AGE_S` after they were returned, and requests wait for a refresh only
after that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from attrs import define, field
from botocore.session import Session
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_registry.storage.s3.credentials import (
    Credentials,
    CredentialsError,
    ICredentialsProvider,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.threads import Threads

log = Logger()

#: Age after which credentials are refreshed in the background.
REFRESH_AFTER_S: Final = 60.0
#: Age after which credentials may have expired, so that requests wait for a refresh.
MAX_AGE_S: Final = 540.0


def _find_source() -> Any:
    return Session().get_credentials()


@implementer(ICredentialsProvider)
@define(eq=False)
class BotocoreCredentials:
    """Credentials that botocore finds, refreshed before they expire.

    :ivar clock: for the age of the credentials.
    :ivar threads: runs botocore; closed with this object.
    :ivar find_source: returns botocore's credentials object, or None. Called on a thread until it
        returns one.
    """

    _clock: IReactorTime
    _threads: Threads
    _find_source: Callable[[], Any] = _find_source
    _source: Any = field(init=False, default=None, repr=False)
    _cached: Credentials | None = field(init=False, default=None)
    _refreshed_at: float = field(init=False, default=0.0)
    _refreshing: bool = field(init=False, default=False)
    _waiting: list[Deferred[Credentials]] = field(init=False, factory=list)

    def current(self) -> Deferred[Credentials]:
        """Fire with the credentials, at once if they are not too old."""
        age = self._clock.seconds() - self._refreshed_at
        if self._cached is not None and age < MAX_AGE_S:
            if age >= REFRESH_AFTER_S:
                self._refresh()
            return succeed(self._cached)
        waiting: Deferred[Credentials] = Deferred()
        self._waiting.append(waiting)
        self._refresh()
        return waiting

    def close(self) -> Deferred[None]:
        """Stop the thread."""
        return self._threads.close()

    def _refresh(self) -> None:
        if not self._refreshing:
            self._refreshing = True
            self._threads.run_blocking(self._load).addBoth(self._loaded)

    def _load(self) -> Credentials:
        """Get the credentials from botocore. Runs on a thread."""
        if self._source is None:
            self._source = self._find_source()
        if self._source is None:
            raise CredentialsError("no credentials and no role with credentials were found")
        frozen = self._source.get_frozen_credentials()
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token or "")

    def _loaded(self, result: Credentials | Failure) -> None:
        self._refreshing = False
        self._refreshed_at = self._clock.seconds()
        waiting, self._waiting = self._waiting, []
        if isinstance(result, Failure):
            error = result.value
            reason = error if isinstance(error, CredentialsError) else _as_credentials_error(error)
            if self._cached is None:
                for deferred in waiting:
                    deferred.errback(reason)
                return
            # They may be valid for some minutes. If not, the store will refuse them.
            log.warn(
                "cannot refresh the s3 credentials, using the previous ones: error={reason}",
                reason=reason,
            )
        else:
            self._cached = result
        for deferred in waiting:
            deferred.callback(self._cached)


def _as_credentials_error(error: BaseException | None) -> CredentialsError:
    return CredentialsError(f"{type(error).__name__}: {error}")
