"""Credentials from AWS's library, botocore: roles of machines, tasks and pods.

This module needs the extra ``aws``. botocore blocks while it queries servers, so it is called on a
thread. It renews temporary credentials in the last ten minutes of their life. Credentials are
therefore used for :data:`MAX_AGE_S` after they were returned, and requests wait for a refresh only
after that. When the store refuses credentials before, botocore looks for them from the beginning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from attrs import define, field
from botocore.session import Session
from zope.interface import implementer

from twisted_registry.storage.s3.credentials import (
    Credentials,
    CredentialsError,
    ICredentialsSource,
    LoadedCredentials,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.threads import Threads

#: Age after which credentials are refreshed in the background.
REFRESH_AFTER_S: Final = 60.0
#: Age after which credentials may have expired, so that requests wait for a refresh.
MAX_AGE_S: Final = 540.0


def _find_chain() -> Any:
    return Session().get_credentials()


@implementer(ICredentialsSource)
@define(eq=False)
class BotocoreSource:
    """Credentials that botocore finds.

    :ivar find_chain: returns botocore's credentials object, or None. Called until it returns one,
        and again after credentials were refused.
    """

    _find_chain: Callable[[], Any] = _find_chain
    _chain: Any = field(init=False, default=None, repr=False)

    def version(self) -> object:
        """Return None: changes are found by the age of the credentials only."""
        return None

    def load(self, *, renew: bool) -> Credentials:
        """Get the credentials from botocore."""
        if self._chain is None or renew:
            self._chain = self._find_chain()
        if self._chain is None:
            raise CredentialsError("no credentials and no role with credentials were found")
        frozen = self._chain.get_frozen_credentials()
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token or "")


def make_botocore_credentials(
    clock: IReactorTime, threads: Threads, find_chain: Callable[[], Any] = _find_chain
) -> LoadedCredentials:
    """Return credentials that botocore finds, refreshed before they expire.

    :param clock: for the age of the credentials.
    :param threads: runs botocore; closed with the credentials.
    :param find_chain: see :class:`BotocoreSource`.
    """
    return LoadedCredentials(clock, threads, BotocoreSource(find_chain), REFRESH_AFTER_S, MAX_AGE_S)
