"""The ``http.tls`` section: which keys are needed together, and what they become."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.config.config_loading import MEMORY, fault_lines, load_config
from twisted_registry.config.loading import load_text
from twisted_registry.config.tls import TLS12_SUITES

GOOD = "certificate: /c, key: /k"


def section(tls: str, addr: str = "':5000'") -> str:
    return MEMORY + f"http: {{addr: {addr}, tls: {{{tls}}}}}\n"


@pytest.mark.parametrize(
    ("tls", "expected"),
    [
        ("certificate: /c", "key: not set, expected the file with the key of the certificate"),
        ("key: /k", "certificate: not set, expected a file, because http.tls.key is set"),
        ("clientcas: [/a]", ("certificate: not set, expected a file, because http.tls.clientcas"
         " is set")),
        ("clientauth: request-client-cert", ("certificate: not set, expected a file, because"
         " http.tls.clientauth is set")),
        (GOOD + ", clientauth: require-any-client-cert", ("clientcas: not set, expected files"
         " of certificate authorities, because clientauth is require-any-client-cert")),
        (GOOD + ", clientusers: [{}]", "clientusers: requires verified certificates"),
        (
            GOOD + ", clientcas: [/a], clientauth: require-any-client-cert, clientusers: [{}]",
            "clientusers: requires verified certificates",
        ),
        (
            GOOD + ", clientcas: [/a], clientusers: [{user: '{1}'}]",
            "clientusers[0].user: got '{1}', expected no group above 0",
        ),
        (
            GOOD + ", clientcas: [/a], clientusers: [{user: ''}]",
            "clientusers[0].user: got '', expected a name",
        ),
        ("clientusers: [{}]", "certificate: not set, expected a file"),
        (GOOD + ", clientauth: none", "clientauth: got 'none', expected"),
        (GOOD + ", minimumtls: tls1.1", "minimumtls: got 'tls1.1', expected empty, tls1.2 or"),
        (GOOD + ", ciphersuites: [TLS_RSA_WITH_RC4_128_SHA]",
         "ciphersuites[0]: got 'TLS_RSA_WITH_RC4_128_SHA', expected TLS_"),
        (GOOD + ", ciphersuites: [TLS_AES_128_GCM_SHA256]", ("ciphersuites: got"
         " TLS_AES_128_GCM_SHA256, expected a cipher suite of TLS 1.2 as well")),
        ("auto: {folder: /f}", "auto.hosts: not set, expected the host names"),
        ("auto: {hosts: [a]}", "auto.folder: not set, expected a directory, because the store"),
        (f"{GOOD}, auto: {{hosts: [a]}}", "auto: cannot be used with http.tls.certificate"),
        ("auto: {hosts: [a_b.]}", "auto.hosts[0]: got 'a_b.', expected a host name or an"),
        ("auto: {hosts: [10.0.0.256]}", "auto.hosts[0]: got '10.0.0.256', expected a host name"),
        ("auto: {hosts: ['a:5000']}", "auto.hosts[0]: got 'a:5000', expected a host name"),
        ("auto: {host: [a]}", "auto.host: unknown key, expected one of hosts"),
        ("letsencrypt: {hosts: [a.b]}", "letsencrypt.cachefile: not set, expected a directory"),
        ("letsencrypt: {email: a@b.example}", "letsencrypt.cachefile: not set, expected a"),
        ("letsencrypt: {cachefile: /c}", ("letsencrypt.hosts: not set, expected the host"
         " names of this registry")),
        (f"{GOOD}, letsencrypt: {{cachefile: /c, hosts: [a.b]}}", ("letsencrypt: cannot be used"
         " with http.tls.auto, http.tls.certificate or http.tls.key")),
        ("letsencrypt: {cachefile: /c, hosts: [a.b]}, auto: {hosts: [a]}", "letsencrypt: cannot"),
        ("letsencrypt: {cachefile: /c, hosts: [a.b], directoryurl: 'http://c'}",
         "letsencrypt.directoryurl: got 'http://c', expected a URL that begins with https://"),
        *(
            (f"letsencrypt: {{cachefile: /c, hosts: ['{host}']}}",
             f"letsencrypt.hosts[0]: got '{host}', expected a public host name")
            for host in ("a", "*.a.example", "10.0.0.1", "a.example:443", "a/../b.c", "")
        ),
    ],
)  # fmt: skip
def test_contradicting_keys_are_a_fault(tls: str, expected: str):
    (line,) = fault_lines(section(tls))
    assert line.startswith(f"http.tls.{expected}")


def test_an_ssl_endpoint_excludes_the_tls_section():
    (line,) = fault_lines(section(GOOD, "'ssl:5000:privateKey=k'"))
    assert line == (
        "http.addr: got 'ssl:5000:privateKey=k',"
        " expected HOST:PORT, because http.tls has the certificate (f line 3)"
    )


@pytest.mark.parametrize(
    ("tls", "expected"),
    [
        ("certificate: ''", ("certificate: not set, expected a file; to serve plain HTTP, remove"
         " http.tls.certificate (f line 3)")),
        ("certificate: ", "certificate: not set, expected a file"),
        ("minimumtls: tls1.2, certificate: ''", "certificate: not set, expected a file"),
        ("certificate: '', key: ''", "certificate: not set, expected a file"),
        ("key: ", "certificate: not set, expected a file; to serve plain HTTP, remove http.tls.k"),
        ("auto: ", "auto.hosts: not set, expected the host names of this registry; to serve plain"),
        ("auto: {}", "auto.hosts: not set, expected the host names of this registry"),
        ("auto: {hosts: []}", "auto.hosts: not set, expected the host names of this registry"),
        ("letsencrypt: ", "letsencrypt.cachefile: not set, expected a directory; to serve plain"),
        ("letsencrypt: {}", "letsencrypt.cachefile: not set, expected a directory"),
        ("letsencrypt: {cachefile: '', hosts: []}", "letsencrypt.cachefile: not set, expected"),
        ("letsencrypt: {directoryurl: 'https://c'}", "letsencrypt.cachefile: not set, expected"),
    ],
)  # fmt: skip
def test_a_source_of_certificates_without_a_value_is_a_fault(tls: str, expected: str):
    (line,) = fault_lines(section(tls))
    assert line.startswith(f"http.tls.{expected}")


@pytest.mark.parametrize("text", ["tls: ", "tls: {}", "tls: {minimumtls: tls1.2, ciphersuites: }"])
def test_a_section_that_names_no_source_of_certificates_is_a_warning(text: str):
    made = load_config(f"{MEMORY}http: {{{text}}}\n")
    assert made.warnings == (
        "http.tls: has no certificate, auto or letsencrypt; the registry serves plain HTTP",
    )
    assert not made.configuration.http.tls.is_enabled
    assert load_config(MEMORY + "http: {addr: ':5000'}\n").warnings == ()


@pytest.mark.parametrize("text", ["", section(GOOD).removeprefix(MEMORY)])
def test_empty_variables_switch_tls_off_with_a_warning(text: str):
    made = load_config(MEMORY + text, HTTP_TLS_CERTIFICATE="", HTTP_TLS_KEY="")
    assert made.warnings == (
        "http.tls: has no certificate, auto or letsencrypt; the registry serves plain HTTP",
    )
    assert not made.configuration.http.tls.is_enabled
    made = load_config(MEMORY, HTTP_TLS_LETSENCRYPT_CACHEFILE="")
    assert len(made.warnings) == 1
    # What else is set in the section is a fault as before.
    (line,) = fault_lines(section(GOOD), HTTP_TLS_CERTIFICATE="")
    assert line.startswith("http.tls.certificate: not set, expected a file, because http.tls.key")


def test_an_empty_source_beside_a_certificate_is_ignored():
    made = load_config(section(GOOD + ", letsencrypt: {}, auto: "))
    assert made.warnings == ()
    assert made.configuration.http.tls.is_enabled


def test_hosts_are_domain_names_and_ip_addresses():
    text = "auto: {folder: /f, hosts: [Registry.LAN, '*.b.example', 10.0.0.1, '2001:DB8::1', a]}"
    made = load_config(section(text)).configuration.http.tls
    assert made.auto.hosts == ("registry.lan", "*.b.example", "10.0.0.1", "2001:db8::1", "a")
    assert made.is_enabled


def test_ciphers_are_names_of_openssl():
    named = ["TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", "TLS_AES_128_GCM_SHA256"]
    made = load_config(
        section(f"{GOOD}, ciphersuites: [{', '.join(named)}]")
    ).configuration.http.tls
    assert made.is_enabled
    assert made.ciphers == ("ECDHE-RSA-AES128-SHA256",)
    default = load_config(section(GOOD)).configuration.http.tls.ciphers
    assert len(default) == 6
    assert all(name.startswith("ECDHE-") and "CBC" not in name for name in default)
    assert not any(name.endswith("-SHA") for name in default)


def test_the_example_is_valid_with_each_kind_of_certificate():
    path = Path(__file__).parents[2] / "conf" / "tls.yml"
    made = load_text(path.read_text(), {}, "conf/tls.yml")
    assert made.warnings == ()
    assert made.configuration.http.tls.auto.hosts == ("localhost", "127.0.0.1")
    text = path.read_text().replace("    auto:\n      hosts: [localhost, 127.0.0.1]\n", "")
    uncommented = re.sub(r"(?m)^(    )# (\w+:|- |  \w+:)", r"\1\2", text)
    ordering = r"    letsencrypt:\n(      .*\n)+"
    files = re.sub(ordering, "", uncommented)
    tls = load_text(files, {}, "conf/tls.yml").configuration.http.tls
    assert tls.clientusers[0].groups == ("robots",)
    assert tls.certificate == "/etc/twisted-registry/chain.pem"
    ordered = re.sub(r"    (certificate|key): .*\n", "", uncommented)
    tls = load_text(ordered, {}, "conf/tls.yml").configuration.http.tls
    assert tls.letsencrypt.hosts == ("registry.example.com",)


def test_cipher_suites_have_no_effect_on_tls_1_3():
    suites = f"minimumtls: tls1.3, ciphersuites: [{next(iter(TLS12_SUITES))}]"
    made = load_config(section(f"{GOOD}, {suites}"))
    assert made.notices == (
        "http.tls.ciphersuites: no effect, the suites of TLS 1.3 are always offered",
    )
    assert made.configuration.http.tls.ciphers == ()


def test_acme_hosts_and_directory():
    letsencrypt = "letsencrypt: {cachefile: /c, email: a@b.example, hosts: [A.example, b.example]}"
    made = load_config(section(letsencrypt, "':443'"))
    assert made.warnings == made.notices == ()
    tls = made.configuration.http.tls
    assert tls.is_enabled
    assert tls.letsencrypt.hosts == ("a.example", "b.example")
    assert tls.letsencrypt.directory == "https://acme-v02.api.letsencrypt.org/directory"
    own = letsencrypt.replace("hosts", "directoryurl: 'https://ca.example/acme', hosts")
    tls = load_config(section(own)).configuration.http.tls
    assert tls.letsencrypt.directory == "https://ca.example/acme"


def test_acme_on_another_port_adds_a_notice():
    letsencrypt = "letsencrypt: {cachefile: /c, hosts: [a.example]}"
    (notice,) = load_config(section(letsencrypt)).notices
    assert notice == (
        "http.tls.letsencrypt: ACME servers connect to port 443 of a.example; it must forward to"
        " http.addr"
    )
