"""What ``loglevel`` of the s3 driver adds to the log: requests, without secrets.

The levels are those of AWS's library for Go, which Distribution uses. Each includes ``debug``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import frozen
from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_registry.storage.s3.answer import S3Response
    from twisted_registry.storage.s3.errors import S3Error

log = Logger()

LOG_LEVELS: Final = (
    "off",
    "debug",
    "debugwithsigning",
    "debugwithhttpbody",
    "debugwithrequestretries",
    "debugwithrequesterrors",
    "debugwitheventstreambody",
)
#: Headers that let others do what we may.
_SECRET: Final = frozenset({"authorization", "x-amz-security-token"})


@frozen
class RequestLog:
    """Writes what was asked for, as ``info``: who sets the level wants to see it.

    :ivar level: one of :data:`LOG_LEVELS`; anything else is ``off``, as in Distribution.
    """

    level: str = "off"

    @property
    def is_on(self) -> bool:
        """Whether anything is written at all."""
        return self.level != "off" and self.level in LOG_LEVELS

    def log_request(self, method: str, url: str, headers: Mapping[str, str]) -> None:
        """A request goes out."""
        if self.level == "debugwithsigning":
            log.info(
                "s3 signs: {method} {url} with {names} at {date}",
                method=method,
                url=url,
                names=", ".join(sorted(headers)),
                date=headers["x-amz-date"],
            )
        elif self.level == "debugwithhttpbody":
            shown = {name: value for name, value in headers.items() if name not in _SECRET}
            log.info("s3 sends: {method} {url} {shown}", method=method, url=url, shown=shown)

    def log_response(self, response: S3Response, attempt: int, seconds: float) -> None:
        """The head of an answer is there."""
        if self.is_on:
            log.info(
                "s3: {what}: {status} after {seconds:.3f} s, attempt {attempt}, request {id}",
                what=response.what,
                status=response.status,
                seconds=seconds,
                attempt=attempt,
                id=response.header("x-amz-request-id") or "without an id",
            )

    def log_failure(self, error: S3Error, attempt: int, wait: float | None) -> None:
        """An attempt failed; ``wait`` is None if it was the last."""
        if wait is not None:
            if self.level == "debugwithrequestretries":
                log.info(
                    "s3: attempt {attempt} failed, another in {wait:.3f} s: {error}",
                    attempt=attempt,
                    wait=wait,
                    error=error,
                )
        elif self.level == "debugwithrequesterrors":
            log.info("s3: attempt {attempt} failed: {error}", attempt=attempt, error=error)
