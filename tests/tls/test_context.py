"""Contexts as clients see them: Python's ssl module, in memory."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL

from tests.support.certificates import Authority, Issued, encode_private_key, rsa_key
from twisted_registry.config.tls import TLS12_SUITES
from twisted_registry.tls.context import ClientAuth, TLSOptions, make_context, missing_ciphers
from twisted_registry.tls.interfaces import CertificateBundle, CertificateError

AUTHORITY = Authority()
STRANGER = Authority("stranger")
SERVER = AUTHORITY.issue("localhost")


def bundle(issued=SERVER, authorities=()):
    return CertificateBundle(
        issued.certificate, issued.key, tuple((f"/{ca.name}.pem", ca.pem) for ca in authorities)
    )


def handshake(context, client, *, protocols=()):
    """Both ends of a connection in memory, when their handshake is over."""
    if protocols:
        client.set_alpn_protocols(protocols)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client.wrap_bio(incoming, outgoing, server_hostname="localhost")
    ours = SSL.Connection(context, None)
    ours.set_accept_state()
    done = set()
    for _ in range(6):
        for end, error in ((theirs, ssl.SSLWantReadError), (ours, SSL.WantReadError)):
            try:
                end.do_handshake()
                done.add(end)
            except error:
                pass
            if outgoing.pending:
                ours.bio_write(outgoing.read())
            with contextlib.suppress(SSL.WantReadError):
                incoming.write(ours.bio_read(65536))
    assert done == {ours, theirs}
    return ours, theirs


def speak(options, client, **more):
    """The client's end after a handshake."""
    return handshake(make_context(bundle(), options), client, **more)[1]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_minimum_version_is_tls_1_2():
    assert speak(TLSOptions(), AUTHORITY.client()).version() == "TLSv1.3"
    older = AUTHORITY.client(maximum_version=ssl.TLSVersion.TLSv1_2)
    assert speak(TLSOptions(), older).version() == "TLSv1.2"
    oldest = AUTHORITY.client(
        minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1
    )
    oldest.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(SSL.Error, match="unsupported protocol"):
        speak(TLSOptions(), oldest)


def test_configured_minimum_version():
    older = AUTHORITY.client(maximum_version=ssl.TLSVersion.TLSv1_2)
    with pytest.raises(SSL.Error, match="unsupported protocol"):
        speak(TLSOptions("tls1.3"), older)


def test_configured_ciphers():
    older = AUTHORITY.client(maximum_version=ssl.TLSVersion.TLSv1_2)
    options = TLSOptions(ciphers=["ECDHE-ECDSA-CHACHA20-POLY1305"])
    assert speak(options, older).cipher()[0] == "ECDHE-ECDSA-CHACHA20-POLY1305"
    older.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    with pytest.raises(SSL.Error, match="no shared cipher"):
        speak(options, older)


@pytest.mark.skipif(
    not hasattr(SSL.Context, "set_tls13_ciphersuites"), reason="needs a newer pyOpenSSL"
)
def test_fastest_tls_1_3_cipher_is_preferred():
    assert speak(TLSOptions(), AUTHORITY.client()).cipher()[0] == "TLS_AES_128_GCM_SHA256"


def test_missing_ciphers_are_reported():
    assert missing_ciphers(["AES128-SHA", "NO-SUCH-CIPHER"]) == ["NO-SUCH-CIPHER"]
    triple = {"ECDHE-RSA-DES-CBC3-SHA", "DES-CBC3-SHA"}
    assert set(missing_ciphers(tuple(TLS12_SUITES.values()))) <= triple


def test_http_1_1_is_negotiated():
    said = speak(TLSOptions(), AUTHORITY.client(), protocols=["h2", "http/1.1"])
    assert said.selected_alpn_protocol() == "http/1.1"
    assert (
        speak(TLSOptions(), AUTHORITY.client(), protocols=["h2"]).selected_alpn_protocol() is None
    )


def test_sessions_have_no_tickets():
    older = AUTHORITY.client(maximum_version=ssl.TLSVersion.TLSv1_2)
    assert not speak(TLSOptions(), older).session.has_ticket


def test_the_whole_chain_is_sent():
    context = make_context(
        bundle(Issued(SERVER.certificate + STRANGER.pem, SERVER.key)), TLSOptions()
    )
    client = AUTHORITY.client()
    _, theirs = handshake(context, client)
    shown = getattr(theirs, "get_unverified_chain", None)
    assert theirs.getpeercert()["subjectAltName"] == (("DNS", "localhost"),)
    if shown is not None:  # newer Pythons
        assert len(shown()) == 2


def test_rsa_key():
    key = rsa_key()
    context = make_context(bundle(AUTHORITY.issue("localhost", key=key)), TLSOptions())
    assert handshake(context, AUTHORITY.client())[1].version() == "TLSv1.3"


@pytest.mark.parametrize(
    ("issued", "said"),
    [
        (Issued(b"", SERVER.key), "certificate: contains no certificate in PEM"),
        (Issued(SERVER.key, SERVER.key), "certificate: contains no certificate in PEM"),
        (Issued(SERVER.certificate, b"x"), "key: contains no private key in PEM"),
        (Issued(SERVER.certificate, SERVER.certificate), "key: contains no private key in PEM"),
        (
            Issued(
                SERVER.certificate,
                encode_private_key(load_pem_private_key(SERVER.key, None), b"secret"),
            ),
            "key: must not have a passphrase",
        ),
        (
            Issued(SERVER.certificate, STRANGER.issue().key),
            "key: does not match the certificate",
        ),
    ],
)
def test_unusable_certificate_and_key_are_errors(issued, said):
    with pytest.raises(CertificateError) as caught:
        make_context(bundle(issued), TLSOptions())
    assert str(caught.value) == said


def test_unusable_authority_is_an_error():
    broken = CertificateBundle(SERVER.certificate, SERVER.key, (("/ca.pem", b"no"),))
    with pytest.raises(CertificateError) as caught:
        make_context(broken, TLSOptions(client_auth=ClientAuth.REQUIRE))
    assert str(caught.value) == "clientcas: /ca.pem: contains no certificate in PEM"


def test_key_is_not_in_the_repr():
    assert "PRIVATE" not in repr(bundle())


YES, NO = True, False


@pytest.mark.parametrize(
    ("asked", "none", "good", "strange"),
    [
        (ClientAuth.NONE, YES, YES, YES),
        (ClientAuth.REQUEST, YES, YES, YES),
        (ClientAuth.REQUIRE_ANY, NO, YES, YES),
        (ClientAuth.VERIFY_IF_GIVEN, YES, YES, NO),
        (ClientAuth.REQUIRE, NO, YES, NO),
    ],
)
def test_client_auth(tmp_path, asked, none, good, strange):
    context = make_context(bundle(authorities=[AUTHORITY]), TLSOptions(client_auth=asked))
    shown = {
        "none": (None, none),
        "good": (AUTHORITY.issue(client=True), good),
        "strange": (STRANGER.issue(client=True), strange),
    }
    for name, (issued, expected) in shown.items():
        paths = issued and issued.write(tmp_path, name)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            client = AUTHORITY.client(paths, maximum_version=version)
            try:
                ours, _ = handshake(context, client)
            except SSL.Error:
                assert not expected, name
            else:
                assert expected, name
                certificate = ours.get_peer_certificate()
                assert (certificate is None) == (issued is None or asked is ClientAuth.NONE)


@pytest.mark.parametrize("client_auth", [ClientAuth.NONE, ClientAuth.REQUIRE])
def test_acme_challenge_is_answered(client_auth):
    answer = AUTHORITY.issue("localhost", subject="answer")
    asked = []

    def challenge_certificate(host):
        asked.append(host)
        return CertificateBundle(answer.certificate, answer.key) if host == "localhost" else None

    context = make_context(
        bundle(authorities=[AUTHORITY]),
        TLSOptions(client_auth=client_auth, challenge_certificate=challenge_certificate),
    )
    _, theirs = handshake(context, AUTHORITY.client(), protocols=["acme-tls/1"])
    assert theirs.selected_alpn_protocol() == "acme-tls/1"
    assert theirs.getpeercert()["subject"] == ((("commonName", "answer"),),)
    assert asked == ["localhost"]
    # Other clients do not see it.
    if client_auth is ClientAuth.NONE:
        _, theirs = handshake(context, AUTHORITY.client(), protocols=["http/1.1"])
        assert theirs.getpeercert()["subject"] == ((("commonName", "server"),),)


def test_unknown_acme_challenge_gets_no_protocol():
    asked = []
    context = make_context(bundle(), TLSOptions(challenge_certificate=asked.append))
    for settings in ({}, {"maximum_version": ssl.TLSVersion.TLSv1_2}):
        _, theirs = handshake(context, AUTHORITY.client(**settings), protocols=["acme-tls/1"])
        assert theirs.selected_alpn_protocol() is None
    # With TLS 1.2 the certificate has been chosen before.
    assert asked == ["localhost"]
