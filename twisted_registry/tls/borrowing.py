"""A connection over TLS in the hands of a thread."""

from __future__ import annotations

from errno import ECONNABORTED
from typing import TYPE_CHECKING

from OpenSSL.SSL import Error, WantReadError, WantWriteError, ZeroReturnError
from zope.interface import implementer

from twisted_registry.securesocket import IBorrowedSocket
from twisted_registry.tls.losses import reason_of

# The most that a record holds: no call reads more.
_RECORD = 16384

if TYPE_CHECKING:
    from collections.abc import Callable

    from OpenSSL.SSL import Connection


@implementer(IBorrowedSocket)
class BorrowedConnection:
    """As the interface says. OpenSSL works without the interpreter's lock.

    :ivar revoked: whether the thread shall come back at once.
    """

    def __init__(
        self, connection: Connection, descriptor: int, returned: Callable[[], None]
    ) -> None:
        """Take what is lent.

        :param returned: called by :meth:`close`.
        """
        self.revoked = False
        self._connection = connection
        self._descriptor = descriptor
        self._return = returned

    def fileno(self) -> int:
        """The socket's."""
        return self._descriptor

    def send(self, octets: memoryview) -> int:
        """See :class:`IBorrowedSocket`."""
        self._check()
        try:
            return self._connection.send(octets)
        except (WantReadError, WantWriteError):
            raise BlockingIOError from None
        except Error as error:
            raise ConnectionError(reason_of(error)) from error

    def recv_into(self, room: memoryview) -> int:
        """See :class:`IBorrowedSocket`."""
        self._check()
        try:
            return self._connection.recv_into(room, min(len(room), _RECORD))
        except (WantReadError, WantWriteError):
            raise BlockingIOError from None
        except ZeroReturnError:
            return 0
        except Error as error:
            raise ConnectionError(reason_of(error)) from error

    def close(self) -> None:
        """Give the connection back."""
        self._return()

    def _check(self) -> None:
        if self.revoked:
            raise ConnectionAbortedError(ECONNABORTED, "the connection is to be closed")
