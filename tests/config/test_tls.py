from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.config.test_checks import BASE, faults, loaded
from twisted_registry.config.http import TLS12_SUITES
from twisted_registry.config.loading import load_text

GOOD = "certificate: /c, key: /k"


def section(tls: str, addr: str = "':5000'") -> str:
    return BASE + f"http: {{addr: {addr}, tls: {{{tls}}}}}\n"


@pytest.mark.parametrize(
    ("tls", "said"),
    [
        ("certificate: /c", "key: got nothing, expected the file with the key of the certificate"),
        ("key: /k", "certificate: got nothing, expected a file, because http.tls.key is set"),
        ("clientcas: [/a]", ("certificate: got nothing, expected a file, because http.tls.clientcas"
         " is set")),
        ("clientauth: request-client-cert", ("certificate: got nothing, expected a file, because"
         " http.tls.clientauth is set")),
        (GOOD + ", clientauth: require-any-client-cert", ("clientcas: got nothing, expected files"
         " with authorities, for clientauth require-any-client-cert")),
        (GOOD + ", clientusers: [{}]", "clientusers: certificates are believed if they are"),
        (
            GOOD + ", clientcas: [/a], clientauth: require-any-client-cert, clientusers: [{}]",
            "clientusers: certificates are believed if they are",
        ),
        (
            GOOD + ", clientcas: [/a], clientusers: [{user: '{1}'}]",
            "clientusers[0].user: got '{1}', expected no group above 0",
        ),
        (
            GOOD + ", clientcas: [/a], clientusers: [{user: ''}]",
            "clientusers[0].user: got nothing, expected a name",
        ),
        ("clientusers: [{}]", "certificate: got nothing, expected a file"),
        (GOOD + ", clientauth: none", "clientauth: got 'none', expected"),
        (GOOD + ", minimumtls: tls1.1", "minimumtls: got 'tls1.1', expected , tls1.2 or tls1.3"),
        (GOOD + ", ciphersuites: [TLS_RSA_WITH_RC4_128_SHA]",
         "ciphersuites[0]: got 'TLS_RSA_WITH_RC4_128_SHA', expected TLS_"),
        (GOOD + ", ciphersuites: [TLS_AES_128_GCM_SHA256]", ("ciphersuites: got"
         " TLS_AES_128_GCM_SHA256, expected one of TLS 1.2 too, or http.tls.minimumtls tls1.3")),
        ("auto: {folder: /f}", "auto.hosts: got nothing, expected what clients call this registry"),
        ("auto: {hosts: [a]}", "auto.folder: got nothing, expected a folder, because the store"),
        (f"{GOOD}, auto: {{hosts: [a]}}", "auto: makes certificate and key: either it, or the"),
        ("auto: {hosts: [a_b.]}", "auto.hosts[0]: got 'a_b.', expected a host name or an"),
        ("auto: {hosts: [10.0.0.256]}", "auto.hosts[0]: got '10.0.0.256', expected a host name"),
        ("auto: {hosts: ['a:5000']}", "auto.hosts[0]: got 'a:5000', expected a host name"),
        ("auto: {host: [a]}", "auto.host: unknown; known are hosts, folder"),
        ("letsencrypt: {hosts: [a.b]}", "letsencrypt.cachefile: got nothing, expected a folder"),
        ("letsencrypt: {email: a@b.example}", "letsencrypt.cachefile: got nothing, expected a"),
        ("letsencrypt: {cachefile: /c}", ("letsencrypt.hosts: got nothing, expected what clients"
         " call this registry")),
        (f"{GOOD}, letsencrypt: {{cachefile: /c, hosts: [a.b]}}", ("letsencrypt: orders certificate"
         " and key: either it, or http.tls.auto, or the files")),
        ("letsencrypt: {cachefile: /c, hosts: [a.b]}, auto: {hosts: [a]}", "letsencrypt: orders"),
        ("letsencrypt: {cachefile: /c, hosts: [a.b], directoryurl: 'http://c'}",
         "letsencrypt.directoryurl: got 'http://c', expected a URL that begins with https://"),
        *(
            (f"letsencrypt: {{cachefile: /c, hosts: ['{host}']}}",
             f"letsencrypt.hosts[0]: got '{host}', expected a host name of the internet")
            for host in ("a", "*.a.example", "10.0.0.1", "a.example:443", "a/../b.c", "")
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_a_fault(tls: str, said: str):
    (line,) = faults(section(tls))
    assert line.startswith(f"http.tls.{said}")


def test_tls_is_for_one_of_two_places():
    (line,) = faults(section(GOOD, "'ssl:5000:privateKey=k'"))
    assert line == (
        "http.addr: got 'ssl:5000:privateKey=k',"
        " expected HOST:PORT, because http.tls has the certificate"
    )


def test_a_section_without_certificates_is_nothing():
    made = loaded(section("minimumtls: tls1.2, certificate: ''"))
    assert made.warnings == ()
    assert not made.configuration.http.tls.is_enabled


def test_hosts_are_names_and_addresses():
    said = "auto: {folder: /f, hosts: [Registry.LAN, '*.b.example', 10.0.0.1, '2001:DB8::1', a]}"
    made = loaded(section(said)).configuration.http.tls
    assert made.auto.hosts == ("registry.lan", "*.b.example", "10.0.0.1", "2001:db8::1", "a")
    assert made.is_enabled


def test_ciphers_have_the_names_of_openssl():
    named = ["TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", "TLS_AES_128_GCM_SHA256"]
    made = loaded(section(f"{GOOD}, ciphersuites: [{', '.join(named)}]")).configuration.http.tls
    assert made.is_enabled
    assert made.ciphers == ("ECDHE-RSA-AES128-SHA256",)
    default = loaded(section(GOOD)).configuration.http.tls.ciphers
    assert len(default) == 6
    assert all(name.startswith("ECDHE-") and "CBC" not in name for name in default)
    assert not any(name.endswith("-SHA") for name in default)


def test_the_example():
    path = Path(__file__).parents[2] / "conf" / "tls.yml"
    made = load_text(path.read_text(), {}, "conf/tls.yml")
    assert made.warnings == ()
    assert made.configuration.http.tls.auto.hosts == ("localhost", "127.0.0.1")
    text = path.read_text().replace("    auto:\n      hosts: [localhost, 127.0.0.1]\n", "")
    uncommented = re.sub(r"(?m)^(    )# (\w+:|- |  \w+:)", r"\1\2", text)
    ordering = r"    letsencrypt:\n(      .*\n)+"
    files = re.sub(ordering, "", uncommented)
    said = load_text(files, {}, "conf/tls.yml").configuration.http.tls
    assert said.clientusers[0].groups == ("robots",)
    assert said.certificate == "/etc/twisted-registry/chain.pem"
    ordered = re.sub(r"    (certificate|key): .*\n", "", uncommented)
    said = load_text(ordered, {}, "conf/tls.yml").configuration.http.tls
    assert said.letsencrypt.hosts == ("registry.example.com",)


def test_the_newest_tls_has_ciphers_of_its_own():
    suites = f"minimumtls: tls1.3, ciphersuites: [{next(iter(TLS12_SUITES))}]"
    made = loaded(section(f"{GOOD}, {suites}"))
    assert made.notices == ("http.tls.ciphersuites: no effect, TLS 1.3 offers all of its own",)
    assert made.configuration.http.tls.ciphers == ()


def test_certificates_by_acme():
    said = "letsencrypt: {cachefile: /c, email: a@b.example, hosts: [A.example, b.example]}"
    made = loaded(section(said, "':443'"))
    assert made.warnings == made.notices == ()
    tls = made.configuration.http.tls
    assert tls.is_enabled
    assert tls.letsencrypt.hosts == ("a.example", "b.example")
    assert tls.letsencrypt.directory == "https://acme-v02.api.letsencrypt.org/directory"
    own = said.replace("hosts", "directoryurl: 'https://ca.example/acme', hosts")
    tls = loaded(section(own)).configuration.http.tls
    assert tls.letsencrypt.directory == "https://ca.example/acme"


def test_acme_servers_come_to_443():
    said = "letsencrypt: {cachefile: /c, hosts: [a.example]}"
    (notice,) = loaded(section(said)).notices
    assert notice == (
        "http.tls.letsencrypt: servers of ACME connect to port 443 of a.example, which has to"
        " lead to http.addr"
    )
