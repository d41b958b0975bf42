"""Patterns of requests, for faults and for the journal."""

from __future__ import annotations

import re

from attrs import frozen

_METHOD_RE = re.compile(r"[A-Z]+|\*")


@frozen
class RequestPattern:
    """Which requests a fault applies to, or are looked for.

    :ivar method: the method in upper case; ``*`` for any.
    :ivar path: segments of the path that follow each other anywhere in it, such as ``manifests``,
        ``blobs/uploads`` or ``app/manifests/1``; with a leading slash the whole path, such as
        ``/v2/``. ``*`` matches any part of a segment. Empty for any path.
    """

    method: str
    path: str
    _path_re: re.Pattern[str]

    @classmethod
    def make(cls, method: str, path: str) -> RequestPattern:
        """Make a pattern.

        :raises ValueError: for a method that is not in upper case, or a path with a query.
        """
        if _METHOD_RE.fullmatch(method) is None:
            raise ValueError(f"method {method!r}: expected one such as 'GET', or '*' for any")
        if "?" in path or "//" in path:
            raise ValueError(
                f"path {path!r}: expected segments such as 'manifests' or 'app/blobs', or a whole"
                " path such as '/v2/', without a query"
            )
        segments = path.strip("/")
        middle = "[^/]*".join(map(re.escape, segments.split("*")))
        if path.startswith("/"):
            expression = rf"/{middle}/?"
        elif segments:
            expression = rf"(?:.*/)?{middle}(?:/.*)?"
        else:
            expression = ".*"
        return cls(method, path, re.compile(expression, re.DOTALL))

    def matches(self, method: str, path: str) -> bool:
        """Return whether a request matches.

        :param path: the path without the query.
        """
        return self.method in {"*", method} and self._path_re.fullmatch(path) is not None
