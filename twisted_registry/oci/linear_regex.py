r"""Regular expressions of the operator, for text of clients.

They are in the syntax of Go, and a search takes linear time, as it does there: both have the engine
RE2. The standard library's ``re`` takes exponential time for common patterns. Distribution's
documentation allows URLs by ``^https?://([^/]+\.)*example\.com/``, and with ``re`` a URL of forty
dots would block for hours.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence


@frozen(slots=False)
class LinearRegex:
    """A regular expression that is matched in linear time.

    It is compiled when it is first used: few configurations have one.

    :ivar source: in the syntax of RE2 (https://github.com/google/re2/wiki/Syntax).
    """

    source: str

    @classmethod
    def parse(cls, source: str) -> LinearRegex:
        """Compile a regular expression.

        :raises ValueError: if it is none, with the reason.
        """
        import re2  # noqa: PLC0415 - few configurations have patterns

        parsed = cls(source)
        try:
            _ = parsed._compiled
        except re2.error as error:
            (reason,) = error.args
            text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
            raise ValueError(text) from None
        return parsed

    @cached_property
    def _compiled(self) -> Any:
        import re2  # noqa: PLC0415 - as above

        options = re2.Options()
        options.log_errors = False  # it would write them to standard error
        return re2.compile(self.source, options)

    @property
    def groups(self) -> int:
        """The number of groups."""
        count: int = self._compiled.groups
        return count

    def is_found_in(self, text: str) -> bool:
        """Return whether any part of a text matches."""
        return self._compiled.search(_encodable(text)) is not None

    def match_all(self, text: str) -> Sequence[str] | None:
        """Return the text and its groups if all of it matches, else None.

        A group that takes no part in the match is empty.
        """
        match = self._compiled.fullmatch(_encodable(text))
        return None if match is None else (match[0], *match.groups(""))


def _encodable(text: str) -> str:
    """Replace lone surrogates, which JSON can contain and UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
