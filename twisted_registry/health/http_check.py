"""Check of an HTTP server."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urlsplit

from attrs import define, field
from twisted.web.client import RedirectAgent
from twisted.web.http_headers import Headers
from zope.interface import implementer

from twisted_registry.health.interfaces import CheckFailed, ICheck
from twisted_registry.http.client import describe_error, make_agent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.web.iweb import IAgent


@implementer(ICheck)
@define(eq=False)
class HTTPCheck:
    """Fails while an HTTP server answers HEAD with another status than the expected one.

    Redirects are followed, as by Distribution.

    :ivar name: the URL without user and password.
    """

    name: str
    _url: bytes = field(repr=False)
    _headers: Headers = field(repr=False)
    _status: int
    _agent: IAgent

    @classmethod
    def make(
        cls,
        reactor: Any,
        url: str,
        headers: Mapping[str, Sequence[str]],
        status: int,
        timeout_s: float,
    ) -> HTTPCheck:
        """Make the check of a URL.

        :param url: an absolute http or https URL in ASCII. A user and a password in it are sent for
            Basic authentication.
        :param headers: of the request, by name.
        :param status: the expected status.
        :param timeout_s: seconds for one attempt to connect.
        """
        parts = urlsplit(url)
        userinfo, _, host = parts.netloc.rpartition("@")
        plain = parts._replace(netloc=host, fragment="").geturl()
        sent = Headers({name: list(values) for name, values in headers.items()})
        if userinfo and not sent.hasHeader("authorization"):
            credentials = b64encode(unquote_to_bytes(userinfo))
            sent.setRawHeaders(b"authorization", [b"Basic " + credentials])
        agent = RedirectAgent(make_agent(reactor, timeout_s))
        return cls(plain, plain.encode("ascii"), sent, status, agent)

    async def run(self) -> None:
        """Send one request."""
        try:
            response = await self._agent.request(b"HEAD", self._url, self._headers.copy())
        except Exception as error:
            raise CheckFailed(describe_error(error)) from error
        if response.code != self._status:
            raise CheckFailed(f"status {response.code} instead of {self._status}")
