"""What is wrong with a configuration: every fault at once, one line each, no secret in any.

A fault names the key, shows what stands there and says what was expected. Values of secret
keys, and user names and passwords inside URLs, are replaced by asterisks before a line is
made, so that whatever prints a line needs no care.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attrs import frozen


if TYPE_CHECKING:
    from collections.abc import Iterable

MASK = "******"
#: A value longer than this is cut in a fault line.
MAX_VALUE_CHARS = 80

_USERINFO = r"//[^/@\s]*(?:@[^/@\s]*)*@"


def mask_url(text: str) -> str:
    """*text* with user name and password of any URL in it replaced (``//******@host``)."""
    return re.sub(_USERINFO, f"//{MASK}@", text)


def printable(text: str) -> str:
    """*text* on one line: as it is, or quoted and escaped if it holds control characters."""
    return text if text.isprintable() else ascii(text)


def quote_value(text: str) -> str:
    """*text* as a fault line shows a value: quoted, on one line, cut when long."""
    masked = mask_url(text)
    return repr(masked if len(masked) <= MAX_VALUE_CHARS else masked[:MAX_VALUE_CHARS] + "...")


@frozen
class Fault:
    """One thing that keeps a configuration from being used.

    :ivar path: the key, as in ``http.tls.clientcas[0]``.
    :ivar value: what stands there, ready to print; None if the sentence needs no value.
    :ivar expected: what should stand there; a whole sentence if *value* is None.
    :ivar origin: where it was written: a line of the file or an environment variable.
    """

    path: str
    value: str | None
    expected: str
    origin: str = ""

    def __str__(self) -> str:
        said = self.expected if self.value is None else f"{self.value}, expected {self.expected}"
        where = f" ({self.origin})" if self.origin and self.origin != self.path else ""
        return f"{printable(self.path) or 'configuration'}: {said}{printable(where)}"


class ConfigurationError(Exception):
    """The configuration can not be used.

    :ivar faults: everything that was found, in the order of the file.
    :ivar warnings: what would have been warned of, had it been usable.
    """

    def __init__(self, faults: tuple[Fault, ...], warnings: tuple[str, ...] = ()) -> None:
        super().__init__(faults, warnings)
        self.faults = faults
        self.warnings = warnings

    def __str__(self) -> str:
        return "\n".join(str(fault) for fault in self.faults)

    def lines(self) -> list[str]:
        """What an operator should read: a line for each fault, then for each warning."""
        return [*map(str, self.faults), *(f"warning: {warning}" for warning in self.warnings)]


class Report:
    """What is found while a configuration is read."""

    def __init__(
        self,
        faults: list[Fault] | None = None,
        warnings: list[str] | None = None,
        notices: list[str] | None = None,
    ) -> None:
        self.faults = [] if faults is None else faults
        self.warnings = [] if warnings is None else warnings
        self.notices = [] if notices is None else notices

    def fault(self, path: str, value: str | None, expected: str, origin: str = "") -> None:
        """Remember one fault."""
        self.faults.append(Fault(path, value, expected, origin))

    def warn(self, path: str, sentence: str, origin: str = "") -> None:
        """Remember one warning about the key *path*."""
        where = f" ({origin})" if origin else ""
        self.warnings.append(f"{printable(path)}: {printable(sentence + where)}")

    def unknown(self, path: str, name: str, known: Iterable[str], origin: str) -> None:
        """Warn that the key *path*, whose last part is *name*, is none of *known*."""
        from difflib import get_close_matches  # noqa: PLC0415 - most files need no such help

        near = get_close_matches(name, list(known), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        self.warn(path, f"unknown key, ignored{hint}", origin)

    def raise_faults(self) -> None:
        """Do nothing if all is well.

        :raise ConfigurationError: with every fault found so far.
        """
        if self.faults:
            raise ConfigurationError(tuple(self.faults), tuple(self.warnings))
