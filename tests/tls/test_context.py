"""What OpenSSL is told, seen by clients: Python's ssl module, in memory."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL

from tests.support.certificates import Authority, Issued, private, rsa_key
from twisted_registry.config.http import TLS12_SUITES
from twisted_registry.tls.context import (
    CertificateBundle,
    CertificateError,
    ClientAuth,
    TLSOptions,
    make_context,
    missing_ciphers,
)

AUTHORITY = Authority()
STRANGER = Authority("stranger")
SERVER = AUTHORITY.issue("localhost")


def material(issued=SERVER, authorities=()):
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


def speak(terms, client, **more):
    """The client's end after a handshake."""
    return handshake(make_context(material(), terms), client, **more)[1]


def test_the_version_is_at_least_1_2():
    assert speak(TLSOptions(), AUTHORITY.client()).version() == "TLSv1.3"
    older = AUTHORITY.client(maximum_version=ssl.TLSVersion.TLSv1_2)
    assert speak(TLSOptions(), older).version() == "TLSv1.2"
    oldest = AUTHORITY.client(
        minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1
    )
    oldest.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(SSL.Error, match="unsupported protocol"):
        speak(TLSOptions(), oldest)


def test_the_version_is_at_least_what_was_configured():
    older = AUTHORITY.client(maximum_version=ssl.TLSVersion.TLSv1_2)
    with pytest.raises(SSL.Error, match="unsupported protocol"):
        speak(TLSOptions("tls1.3"), older)


def test_ciphers_are_those_that_were_configured():
    older = AUTHORITY.client(maximum_version=ssl.TLSVersion.TLSv1_2)
    terms = TLSOptions(ciphers=["ECDHE-ECDSA-CHACHA20-POLY1305"])
    assert speak(terms, older).cipher()[0] == "ECDHE-ECDSA-CHACHA20-POLY1305"
    older.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    with pytest.raises(SSL.Error, match="no shared cipher"):
        speak(terms, older)


@pytest.mark.skipif(
    not hasattr(SSL.Context, "set_tls13_ciphersuites"), reason="an older pyOpenSSL can not"
)
def test_the_quickest_of_the_newer_ciphers_is_the_first():
    assert speak(TLSOptions(), AUTHORITY.client()).cipher()[0] == "TLS_AES_128_GCM_SHA256"


def test_every_cipher_that_go_has_is_known_or_said_to_be_missing():
    assert missing_ciphers(["AES128-SHA", "NO-SUCH-CIPHER"]) == ["NO-SUCH-CIPHER"]
    triple = {"ECDHE-RSA-DES-CBC3-SHA", "DES-CBC3-SHA"}
    assert set(missing_ciphers(tuple(TLS12_SUITES.values()))) <= triple


def test_the_protocol_is_agreed_upon():
    said = speak(TLSOptions(), AUTHORITY.client(), protocols=["h2", "http/1.1"])
    assert said.selected_alpn_protocol() == "http/1.1"
    assert (
        speak(TLSOptions(), AUTHORITY.client(), protocols=["h2"]).selected_alpn_protocol() is None
    )


def test_there_are_no_sessions_to_resume():
    older = AUTHORITY.client(maximum_version=ssl.TLSVersion.TLSv1_2)
    assert not speak(TLSOptions(), older).session.has_ticket


def test_the_whole_chain_is_shown():
    context = make_context(
        material(Issued(SERVER.certificate + STRANGER.pem, SERVER.key)), TLSOptions()
    )
    client = AUTHORITY.client()
    _, theirs = handshake(context, client)
    shown = getattr(theirs, "get_unverified_chain", None)
    assert theirs.getpeercert()["subjectAltName"] == (("DNS", "localhost"),)
    if shown is not None:  # newer Pythons
        assert len(shown()) == 2


def test_keys_of_other_kinds():
    key = rsa_key()
    context = make_context(material(AUTHORITY.issue("localhost", key=key)), TLSOptions())
    assert handshake(context, AUTHORITY.client())[1].version() == "TLSv1.3"


@pytest.mark.parametrize(
    ("issued", "said"),
    [
        (Issued(b"", SERVER.key), "certificate: holds no certificate in PEM"),
        (Issued(SERVER.key, SERVER.key), "certificate: holds no certificate in PEM"),
        (Issued(SERVER.certificate, b"x"), "key: holds no private key in PEM"),
        (Issued(SERVER.certificate, SERVER.certificate), "key: holds no private key in PEM"),
        (
            Issued(SERVER.certificate, private(load_pem_private_key(SERVER.key, None), b"secret")),
            "key: has a passphrase, and must have none",
        ),
        (
            Issued(SERVER.certificate, STRANGER.issue().key),
            "key: is not that of the certificate",
        ),
    ],
)
def test_what_can_not_be_used(issued, said):
    with pytest.raises(CertificateError) as caught:
        make_context(material(issued), TLSOptions())
    assert str(caught.value) == said


def test_authorities_that_can_not_be_used():
    broken = CertificateBundle(SERVER.certificate, SERVER.key, (("/ca.pem", b"no"),))
    with pytest.raises(CertificateError) as caught:
        make_context(broken, TLSOptions(clients=ClientAuth.REQUIRE))
    assert str(caught.value) == "clientcas: /ca.pem: holds no certificate in PEM"


def test_a_key_is_not_shown():
    assert "PRIVATE" not in repr(material())


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
def test_what_is_asked_of_clients(tmp_path, asked, none, good, strange):
    context = make_context(material(authorities=[AUTHORITY]), TLSOptions(clients=asked))
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


@pytest.mark.parametrize("clients", [ClientAuth.NONE, ClientAuth.REQUIRE])
def test_challenges_of_acme_servers_are_answered(clients):
    answer = AUTHORITY.issue("localhost", subject="answer")
    asked = []

    def challenge_certificate(host):
        asked.append(host)
        return CertificateBundle(answer.certificate, answer.key) if host == "localhost" else None

    context = make_context(
        material(authorities=[AUTHORITY]),
        TLSOptions(clients=clients, challenge_certificate=challenge_certificate),
    )
    _, theirs = handshake(context, AUTHORITY.client(), protocols=["acme-tls/1"])
    assert theirs.selected_alpn_protocol() == "acme-tls/1"
    assert theirs.getpeercert()["subject"] == ((("commonName", "answer"),),)
    assert asked == ["localhost"]
    # Nobody else sees it.
    if clients is ClientAuth.NONE:
        _, theirs = handshake(context, AUTHORITY.client(), protocols=["http/1.1"])
        assert theirs.getpeercert()["subject"] == ((("commonName", "server"),),)


def test_challenges_that_can_not_be_answered_are_seen_as_such():
    asked = []
    context = make_context(material(), TLSOptions(challenge_certificate=asked.append))
    for settings in ({}, {"maximum_version": ssl.TLSVersion.TLSv1_2}):
        _, theirs = handshake(context, AUTHORITY.client(**settings), protocols=["acme-tls/1"])
        assert theirs.selected_alpn_protocol() is None
    # With 1.2 the certificate has been chosen by then.
    assert asked == ["localhost"]
