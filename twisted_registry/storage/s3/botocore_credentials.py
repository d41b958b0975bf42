"""Credentials from wherever AWS's own library finds them: roles of machines, tasks and pods.

It asks servers, and blocks meanwhile, so that it is asked on a thread; and it has new
credentials made in the last ten minutes of the old ones. Hence the two ages below: what it gave
not long ago is good, so nobody waits for the next answer unless the last one is old.
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

#: Seconds after which the library is asked again, while the last answer is still used.
REFRESH_AFTER_S: Final = 60.0
#: Seconds after which an answer may be out of date, and a new one is waited for.
MAX_AGE_S: Final = 540.0


def _find() -> Any:
    return Session().get_credentials()


@implementer(ICredentialsProvider)
@define(eq=False)
class BotocoreCredentials:
    """What ``botocore`` finds, kept fresh.

    :ivar clock: tells how old an answer is.
    :ivar threads: where the library is asked; ours to close.
    :ivar find: answers its credentials, or None. Called once.
    """

    _clock: IReactorTime
    _threads: Threads
    _find: Callable[[], Any] = _find
    _source: Any = field(init=False, default=None, repr=False)
    _cached: Credentials | None = field(init=False, default=None)
    _refreshed_at: float = field(init=False, default=0.0)
    _refreshing: bool = field(init=False, default=False)
    _waiting: list[Deferred[Credentials]] = field(init=False, factory=list)

    def current(self) -> Deferred[Credentials]:
        """Fire with the last answer, at once if it is not old."""
        age = self._clock.seconds() - self._refreshed_at
        if self._cached is not None and age < MAX_AGE_S:
            if age >= REFRESH_AFTER_S:
                self._refresh()
            return succeed(self._cached)
        answer: Deferred[Credentials] = Deferred()
        self._waiting.append(answer)
        self._refresh()
        return answer

    def close(self) -> Deferred[None]:
        """End the thread."""
        return self._threads.close()

    def _refresh(self) -> None:
        if not self._refreshing:
            self._refreshing = True
            self._threads.run_blocking(self._load).addBoth(self._loaded)

    def _load(self) -> Credentials:
        """Ask the library. On a thread."""
        if self._source is None:
            self._source = self._find()
        if self._source is None:
            raise CredentialsError("no credentials were found, nor a role that has some")
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
                for one in waiting:
                    one.errback(reason)
                return
            # They may be good for some minutes yet; if they are not, the store will say so.
            log.warn("credentials were not renewed: {reason}", reason=reason)
        else:
            self._cached = result
        for one in waiting:
            one.callback(self._cached)


def _as_credentials_error(error: BaseException | None) -> CredentialsError:
    return CredentialsError(f"{type(error).__name__}: {error}")
