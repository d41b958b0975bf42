"""URLs behind proxies, and the caller of a request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.web.http_headers import Headers
from zope.interface import implementer

from twisted_registry.api.context import URLBuilder, get_caller, get_header_fields
from twisted_registry.tls.interfaces import ClientCertificate, IClientCertificateTransport

#: On a private address, so that its headers are believed.
PROXY = IPv4Address("TCP", "10.0.0.2", 1234)
CLIENT = IPv4Address("TCP", "192.0.2.7", 1234)


class FakeRequest:
    """The part of a request that URLs and callers use."""

    transport = None

    def __init__(self, headers=None, *, secure=False, prepath=(b"v2",), address=None):
        self.prepath = list(prepath)
        self.requestHeaders = Headers()
        for name, value in (headers or {}).items():
            self.requestHeaders.addRawHeader(name, value)
        self._secure = secure
        self._address = address or PROXY

    def getAllHeaders(self):
        pairs = self.requestHeaders.getAllRawHeaders()
        return {name.lower(): values[-1] for name, values in pairs}

    def isSecure(self):
        return self._secure

    def getClientAddress(self):
        return self._address


def caller_of(request):
    return get_caller(request, get_header_fields(request))


@pytest.mark.parametrize(
    ("headers", "secure", "expected"),
    [
        ({}, False, ""),
        ({"Host": "r.example"}, False, "http://r.example"),
        ({"Host": "r.example:5000"}, True, "https://r.example:5000"),
        ({"Host": "[2001:db8::1]:5000"}, False, "http://[2001:db8::1]:5000"),
        ({"Host": "r", "X-Forwarded-Proto": "https"}, False, "https://r"),
        ({"Host": "r", "X-Forwarded-Proto": "HTTPS, http"}, False, "https://r"),
        ({"Host": "r", "X-Forwarded-Proto": "http"}, True, "http://r"),
        ({"Host": "r", "X-Forwarded-Proto": "javascript"}, False, "http://r"),
        ({"Host": "r", "X-Forwarded-Host": "f.example, g"}, False, "http://f.example"),
        ({"Host": "r", "Forwarded": "for=1.2.3.4;host=f.example;proto=https"}, False,
         "https://f.example"),
        ({"Host": "r", "Forwarded": 'Host="f.example:99"; Proto=https, host=g'}, False,
         "https://f.example:99"),
        ({"Host": "r", "Forwarded": "nonsense;;=;host"}, False, "http://r"),
        ({"Host": "r", "Forwarded": "host=f", "X-Forwarded-Host": "x"}, False, "http://x"),
        ({"Host": "r", "X-Forwarded-Host": "evil/path"}, False, ""),
        ({"Host": "r", "X-Forwarded-Host": 'x"><script>'}, False, ""),
    ],
)  # fmt: skip
def test_the_origin_is_that_of_the_client_facing_proxy(headers, secure, expected):
    assert URLBuilder().origin(FakeRequest(headers, secure=secure)) == expected


@pytest.mark.parametrize(
    "host",
    ["a b", "a/b", "a?b", "a#b", "user@host", "a\\b", "a:port", "a:123456", "[::1", "%41", "a,b",
     '"', "<>", "é", ""],
)  # fmt: skip
def test_a_malformed_host_is_not_repeated(host):
    caller = caller_of(FakeRequest({"Host": host}))
    assert (caller.host, caller.secure) == ("", False)
    assert URLBuilder().url(FakeRequest({"Host": host}), "a") == "/v2/a"


@given(st.text(alphabet=st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=40))
def test_no_host_adds_url_delimiters(host):
    origin = URLBuilder().origin(FakeRequest({"Host": host}))
    assert not set(origin.removeprefix("http://")) & set(" /?#@\\\"<>'")


def test_a_configured_host_overrides_headers():
    urls = URLBuilder(host="https://registry.example/")
    request = FakeRequest({"Host": "r", "X-Forwarded-Host": "x", "X-Forwarded-Proto": "http"})
    assert urls.url(request, "a", "blobs", "sha256:ab") == (
        "https://registry.example/v2/a/blobs/sha256:ab"
    )


def test_relative_urls_are_paths():
    urls = URLBuilder(host="https://registry.example", relative=True)
    assert urls.url(
        FakeRequest({"Host": "r"}), "a/b", "tags", query=[("n", "1"), ("last", "ä&")]
    ) == ("/v2/a/b/tags?n=1&last=%C3%A4%26")


def test_urls_begin_with_the_mount_path():
    request = FakeRequest({"Host": "r"}, prepath=[b"deep", b"", b"a b", b"v2"])
    assert URLBuilder().url(request, "x") == "http://r/deep/a%20b/v2/x"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, "10.0.0.2"),
        ({"X-Forwarded-For": "198.51.100.1, 10.0.0.1"}, "198.51.100.1"),
        ({"X-Real-IP": "198.51.100.2"}, "198.51.100.2"),
        ({"X-Forwarded-For": "", "X-Real-IP": "198.51.100.2"}, "198.51.100.2"),
        ({"X-Forwarded-For": "x" * 65}, "10.0.0.2"),
        ({"X-Forwarded-For": "a\x1b[31m"}, "10.0.0.2"),
    ],
)
def test_the_address_is_that_of_the_client_before_the_proxy(headers, expected):
    caller = caller_of(FakeRequest(headers))
    assert (caller.address, caller.peer) == (expected, "10.0.0.2")


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "198.51.100.1", "X-Forwarded-Host": "f", "X-Forwarded-Proto": "https"},
        {"Forwarded": "for=198.51.100.1;host=f;proto=https"},
        {"X-Real-IP": "198.51.100.1"},
    ],
)
def test_headers_of_a_client_that_is_no_proxy_are_not_believed(headers):
    request = FakeRequest({"Host": "r", **headers}, address=CLIENT)
    caller = caller_of(request)
    assert (caller.address, caller.peer) == ("192.0.2.7", "192.0.2.7")
    assert (caller.host, caller.scheme, caller.secure) == ("r", "", False)
    assert URLBuilder().origin(request) == "http://r"


def test_log_lines_have_the_proxy_beside_the_client_that_it_reports():
    reported = caller_of(FakeRequest({"X-Forwarded-For": "198.51.100.1"}))
    assert reported.log_fields == {
        "http.request.remoteaddr": "198.51.100.1",
        "http.request.peer": "10.0.0.2",
    }
    assert caller_of(FakeRequest()).log_fields == {"http.request.remoteaddr": "10.0.0.2"}


def test_a_client_on_a_unix_socket_has_no_address():
    assert caller_of(FakeRequest(address=UNIXAddress(b"/s"))).address == ""


def test_a_too_long_host_is_not_repeated():
    assert URLBuilder().origin(FakeRequest({"Host": "a" * 260})) == "http://" + "a" * 260
    assert URLBuilder().origin(FakeRequest({"Host": "a" * 261})) == ""


@implementer(IClientCertificateTransport)
class TransportWithCertificate:
    """A TLS transport with a client certificate."""

    certificate = ClientCertificate("CN=a")


def test_the_caller_has_the_certificate_of_the_transport():
    request = FakeRequest(secure=True)
    assert get_caller(request, {}).certificate is None
    request.transport = TransportWithCertificate()
    assert get_caller(request, {}).certificate.subject == "CN=a"
