"""What ``check`` finds because ``serve`` would end at its start."""

from __future__ import annotations

import sys

import pytest

from tests.support.certificates import Authority
from twisted_registry.app.start_checks import check_start
from twisted_registry.config.loading import load_text

AUTHORITY = Authority()
TOKEN = "auth: {{token: {{realm: 'http://a', service: s, issuer: i, "


def check(tmp_path, text, storage="filesystem: {{rootdirectory: {0}/store}}"):
    whole = f"version: 0.1\nstorage:\n  {storage}\n{text}".format(tmp_path)
    return check_start(load_text(whole, {}).configuration, {})


def subjects(found):
    return [(each.subject, each.is_warning) for each in found]


def test_a_registry_that_starts_has_no_findings(tmp_path):
    (tmp_path / "users").write_bytes(b"ada:$2y$05$" + b"a" * 53 + b"\n")
    (tmp_path / "users").chmod(0o640)
    text = "auth: {{htpasswd: {{realm: r, path: {0}/users}}}}\nlog: {{audit: {0}/audit.log}}\n"
    assert check(tmp_path, text) == []
    assert {each.name for each in tmp_path.iterdir()} == {"users"}


@pytest.mark.parametrize(
    ("text", "module", "key", "package"),
    [
        ("http: {{debug: {{addr: ':1', prometheus: {{enabled: true}}}}}}", "prometheus_client",
         "http.debug.prometheus.enabled", "prometheus-client"),
        (TOKEN + "jwks: x}}}}", "jwt",
         "auth.token", "pyjwt"),
        ("access: {{anonymous: [pull], tokens: {{}}}}", "jwt", "access.tokens", "pyjwt"),
        ("http: {{tls: {{letsencrypt: {{cachefile: {0}/acme, hosts: [a.example.com]}}}}}}", "acme",
         "http.tls.letsencrypt", "acme"),
    ],
)  # fmt: skip
def test_a_missing_extra_comes_with_the_command(tmp_path, monkeypatch, text, module, key, package):
    monkeypatch.setitem(sys.modules, module, None)
    (found,) = check(tmp_path, text)
    assert found.subject == key
    assert " install " in found.advice
    assert package in found.advice.lower()


def test_a_missing_extra_of_redis(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "txredisapi", None)
    storage = "filesystem: {{rootdirectory: {0}}}\n  cache: {{blobdescriptor: redis}}"
    (found,) = check(tmp_path, "redis: {{addr: 'localhost:1'}}", storage)
    assert found.subject == "storage.cache.blobdescriptor"
    assert "txredisapi" in found.advice


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http: {{tls: {{certificate: {0}/c.pem, key: {0}/k.pem}}}}",
         ["http.tls.certificate", "http.tls.key"]),
        (TOKEN + "rootcertbundle: {0}/b, jwks: {0}/j}}}}",
         ["auth.token.rootcertbundle", "auth.token.jwks"]),
        ("access: {{anonymous: [pull], tokens: {{keyfile: {0}/keys}}}}",
         ["access.tokens.keyfile"]),
        ("log: {{audit: {0}/no/audit.log}}", ["log.audit"]),
        ("http: {{net: unix, addr: {0}/no/socket}}", ["http.addr"]),
        ("listeners: [{{name: no-such-plugin}}]", ["listeners[0].name"]),
    ],
)  # fmt: skip
def test_files_and_plugins_that_are_missing(tmp_path, text, expected):
    found = check(tmp_path, text)
    assert subjects(found) == [(key, False) for key in expected]
    assert all(each.advice for each in found)


@pytest.mark.parametrize(
    ("name", "text", "subject"),
    [
        ("users", "auth: {{htpasswd: {{realm: r, path: {0}/users}}}}", "auth.htpasswd.path"),
        ("keys", "access: {{anonymous: [pull], tokens: {{keyfile: {0}/keys}}}}",
         "access.tokens.keyfile"),
        ("jwks", TOKEN + "jwks: {0}/jwks}}}}",
         "auth.token.jwks"),
    ],
)  # fmt: skip
def test_content_that_is_not_what_it_should_be(tmp_path, name, text, subject):
    (tmp_path / name).write_text("hunter2\n")
    (tmp_path / name).chmod(0o600)
    (found,) = check(tmp_path, text)
    assert (found.subject, found.is_warning) == (subject, False)
    assert f"{tmp_path}/{name}" in found.problem
    assert "hunter2" not in str(found)


def test_a_key_of_another_certificate(tmp_path):
    AUTHORITY.issue("a").write(tmp_path)
    (tmp_path / "server.key").write_bytes(AUTHORITY.issue("a").key)
    (tmp_path / "server.key").chmod(0o600)
    text = "http: {{tls: {{certificate: {0}/server.pem, key: {0}/server.key}}}}"
    (found,) = check(tmp_path, text)
    assert found.subject == "http.tls.key"
    assert found.problem == f"{tmp_path}/server.key does not match the certificate"


@pytest.mark.parametrize("key", ["addr: '{}'", "debug: {{addr: '{}'}}"])
def test_an_endpoint_of_no_plugin(tmp_path, key):
    def of(address):
        http = key.format(address).replace("{", "{{").replace("}", "}}")
        return check(tmp_path, f"http: {{{{{http}}}}}")

    (found,) = of("nothing:tcp:5000")
    assert found.subject == ("http.addr" if key.startswith("addr") else "http.debug.addr")
    assert found.problem.startswith("nothing:tcp:5000 begins with 'nothing', which is no")
    assert of("haproxy:tcp:5001") == of("tcp:5001") == of(":5001") == []


def test_a_socket_that_cannot_be_made(tmp_path):
    text = "http: {{net: unix, addr: {0}/%s}}"
    (tmp_path / "file").write_text("")
    (found,) = check(tmp_path, text % "file")
    assert found.problem == f"{tmp_path}/file exists, and is not a socket"
    (found,) = check(tmp_path, text % ("a" * 108))
    assert found.problem.endswith(" is longer than the 107 bytes of a socket's path")
    assert check(tmp_path, text % "socket") == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("ada:secret\nbob:{{SHA}}x\n", "{0}/users: ignored: lines 1, 2"),
        ("# nobody\n", "{0}/users has no users, so that nobody can log in"),
    ],
)
def test_users_who_cannot_log_in_are_a_warning(tmp_path, content, problem):
    (tmp_path / "users").write_text(content)
    (tmp_path / "users").chmod(0o600)
    (found,) = check(tmp_path, "auth: {{htpasswd: {{realm: r, path: {0}/users}}}}")
    assert (found.problem, found.is_warning) == (problem.format(tmp_path), True)


def test_certificates_of_redis(tmp_path):
    storage = "filesystem: {{rootdirectory: {0}}}\n  cache: {{blobdescriptor: redis}}"
    text = (
        "redis: {{addr: 'localhost:1', tls: {{certificate: {0}/c, key: {0}/k, rootcas: [{0}/r]}}}}"
    )
    found = [each.subject for each in check(tmp_path, text, storage)]
    assert found == ["redis.tls.certificate", "redis.tls.key", "redis.tls.rootcas[0]"]


def test_a_root_directory_that_is_a_file(tmp_path):
    (tmp_path / "store").write_text("")
    assert subjects(check(tmp_path, "")) == [("storage.filesystem.rootdirectory", False)]
    storage = (
        "filesystem: {{rootdirectory: {0}/none}}\n  maintenance: {{readonly: {{enabled: true}}}}"
    )
    assert subjects(check(tmp_path, "", storage)) == [("storage.filesystem.rootdirectory", False)]


def test_the_key_of_cloudfront(tmp_path):
    text = (
        "middleware: {{storage: [{{name: cloudfront, options: {{baseurl: 'https://c',"
        " privatekey: {0}/k, keypairid: K}}}}]}}"
    )
    found = check(
        tmp_path, text, "s3: {{bucket: b, region: us-east-1, accesskey: a, secretkey: s}}"
    )
    assert subjects(found) == [("middleware.storage[0].options.privatekey", False)]
