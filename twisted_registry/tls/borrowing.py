"""A connection over TLS in the hands of a thread."""

from __future__ import annotations

from errno import ECONNABORTED
from typing import TYPE_CHECKING

from OpenSSL.SSL import Error, WantReadError, WantWriteError, ZeroReturnError
from zope.interface import implementer

from twisted_registry.securesocket import IBlockingTLSConnection
from twisted_registry.tls.losses import twisted_reason

# The most that a record holds: no call reads more.
_MAX_RECORD_BYTES = 16384

if TYPE_CHECKING:
    from collections.abc import Callable

    from OpenSSL.SSL import Connection


@implementer(IBlockingTLSConnection)
class BlockingTLSConnection:
    """As the interface says. OpenSSL works without the interpreter's lock.

    :ivar revoked: whether the thread shall come back at once.
    """

    def __init__(
        self, connection: Connection, descriptor: int, on_return: Callable[[], None]
    ) -> None:
        """Take what is lent.

        :param returned: called by :meth:`close`.
        """
        self.revoked = False
        self._connection = connection
        self._descriptor = descriptor
        self._on_return = on_return

    def fileno(self) -> int:
        """The socket's."""
        return self._descriptor

    def send(self, octets: memoryview) -> int:
        """See :class:`IBlockingTLSConnection`."""
        self._check_revoked()
        try:
            return self._connection.send(octets)
        except (WantReadError, WantWriteError):
            raise BlockingIOError from None
        except Error as error:
            raise ConnectionError(twisted_reason(error)) from error

    def recv_into(self, room: memoryview) -> int:
        """See :class:`IBlockingTLSConnection`."""
        self._check_revoked()
        try:
            return self._connection.recv_into(room, min(len(room), _MAX_RECORD_BYTES))
        except (WantReadError, WantWriteError):
            raise BlockingIOError from None
        except ZeroReturnError:
            return 0
        except Error as error:
            raise ConnectionError(twisted_reason(error)) from error

    def close(self) -> None:
        """Give the connection back."""
        self._on_return()

    def _check_revoked(self) -> None:
        if self.revoked:
            raise ConnectionAbortedError(ECONNABORTED, "the connection is to be closed")
