"""Why a connection over TLS is lost, and how the next one is not."""

from __future__ import annotations

from contextlib import suppress

from OpenSSL.SSL import TLS_METHOD, Context, Error, SysCallError
from twisted.internet.main import CONNECTION_LOST

_SCRATCH_CONTEXT = Context(TLS_METHOD)


def twisted_reason(error: Error) -> Exception:
    """What an error means; that the peer left without a goodbye is said in Twisted's way.

    To be called on the thread that got the error, and for each.
    """
    if isinstance(error, SysCallError):
        _clear_error_queue()
        return CONNECTION_LOST
    queue = error.args[0] if error.args else ()
    # OpenSSL 4 has no words for it.
    if not queue or queue[-1][-1].casefold().startswith("unexpected eof"):
        return CONNECTION_LOST
    return error


def _clear_error_queue() -> None:
    """Empty OpenSSL's list of this thread's errors.

    It says more of a failed system call than pyOpenSSL asks for, and older releases take what is
    left there for an error of the next connection. pyOpenSSL empties it when another call fails.
    """
    with suppress(Error):
        _SCRATCH_CONTEXT.set_cipher_list(b"NO-SUCH-CIPHER")
