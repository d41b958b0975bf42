"""The command ``doctor``, and ``check`` for what ``serve`` would refuse."""

from __future__ import annotations

import json
import os
import sys

import pytest

from tests.logs.smtp_server import smtp_server
from tests.support.certificates import Authority
from tests.support.processes import (
    CONFIGURATION,
    SERVE,
    RegistryProcess,
    free_port,
    run,
    write_configuration,
)
from twisted_registry.cli import main

COMMAND = (sys.executable, "-m", "twisted_registry")
SECRET = "do-not-tell"
BUCKET = """
version: 0.1
storage:
  s3: {{bucket: {bucket}, region: us-east-1, regionendpoint: '{endpoint}', secure: false,
       accesskey: {access}, secretkey: hunter2}}
  cache: {{blobdescriptor: inmemory}}
http: {{addr: '127.0.0.1:{port}'}}
"""


def doctor(tmp_path, path, *words, **environ):
    """Run the command; return its exit status and its document."""
    status, out, lines = run(*COMMAND, "doctor", "--json", *words, path, cwd=tmp_path, **environ)
    assert lines == []
    return status, json.loads(out)


def subjects(document, level="problem"):
    return [each["subject"] for each in document["findings"] if each["level"] == level]


def test_a_registry_that_serves_has_no_problems(tmp_path):
    path = write_configuration(tmp_path, addr=f"127.0.0.1:{free_port()}")
    assert doctor(tmp_path, path)[0] == 0
    with RegistryProcess(*SERVE, path, cwd=tmp_path):
        status, document = doctor(tmp_path, path)
    assert (status, subjects(document)) == (0, [])
    assert document["configuration"] == path
    assert {"start", "store", "space", "descriptors", "http.addr"} <= set(document["checks"])


def test_problems_are_one_line_each_without_secrets(tmp_path):
    made = Authority().issue("other.lan", days=-1)
    more = f"  host: https://registry.lan\n{made.section(tmp_path)}"
    more += f"health: {{tcp: [{{addr: '127.0.0.1:{free_port()}'}}]}}\n"
    path = write_configuration(tmp_path, addr=f"127.0.0.1:{free_port()}", more=more)
    (tmp_path / "server.key").chmod(0o644)
    status, out, lines = run(*COMMAND, "check", "--full", path, cwd=tmp_path)
    assert (status, lines) == (1, [])
    *found, summary = out.splitlines()
    assert summary.startswith("3 problems, 1 warning in ")
    for level, text in [
        ("problem", "http.tls.certificate: certificate for other.lan expired at"),
        ("problem", "http.tls.certificate: the certificate is not for registry.lan of http.host"),
        ("problem", "health.tcp[0].addr: 127.0.0.1:"),
        ("warning", f"http.tls.key: {tmp_path}/server.key can be read by every user"),
    ]:
        (line,) = [line for line in found if text in line]
        assert line.startswith(f"{level}: ")
        assert " (" in line
        assert "); " in line
    assert SECRET not in out


def test_faults_of_the_configuration_are_findings(tmp_path):
    path = write_configuration(tmp_path, CONFIGURATION + "  net: udp\n")
    status, document = doctor(tmp_path, path)
    assert (status, subjects(document)) == (1, ["http.net"])
    assert document["checks"] == ["configuration"]
    status, out, lines = run(*COMMAND, "doctor", "--json-lines", path, cwd=tmp_path)
    assert (status, json.loads(out), lines) == (1, *document["findings"], [])


def test_unknown_keys_are_warnings(tmp_path):
    path = write_configuration(tmp_path, CONFIGURATION + "  prefixx: /a/\n")
    status, document = doctor(tmp_path, path)
    assert (status, subjects(document, "warning")) == (0, ["http.prefixx"])


def test_wrong_users_are_wrong_usage(tmp_path):
    path = write_configuration(tmp_path)
    status, out, lines = run(*COMMAND, "doctor", "--user", "no-such-user", path, cwd=tmp_path)
    assert (status, out, lines) == (2, "", ["twisted-registry: --user no-such-user: no such user"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have the rights of others")
def test_files_are_checked_with_the_rights_of_the_user(tmp_path):
    path = write_configuration(tmp_path)
    (tmp_path / "registry.yml").chmod(0o600)
    status, document = doctor(tmp_path, path, "--user", "nobody")
    assert status == 1
    assert document["user"] == "nobody"
    assert {"configuration", "storage.filesystem.rootdirectory"} <= set(subjects(document))
    (found,) = [each for each in document["findings"] if each["subject"] == "configuration"]
    assert found["problem"] == f"nobody may not read {path}"


UNIT = """\
#!/bin/sh
echo "ExecStart={{ argv[]=/opt/bin/twisted-registry serve {path} ; }}"
echo "User={user}"
echo "WorkingDirectory={folder}"
echo "ProtectSystem=strict"
echo "LimitNOFILE=512"
"""


def test_the_systemd_unit_is_taken_into_account(tmp_path):
    text = CONFIGURATION.replace("{root}", "store") + "log: {{audit: audit.log}}\n"
    path = write_configuration(tmp_path, text)
    folder = tmp_path / "work"
    folder.mkdir()
    programs = tmp_path / "bin"
    programs.mkdir()
    systemctl = programs / "systemctl"
    systemctl.write_text(UNIT.format(path=path, user="no-such-user", folder=folder))
    systemctl.chmod(0o755)
    status, document = doctor(tmp_path, path, PATH=f"{programs}:{os.environ['PATH']}")
    assert status == 1
    problems = {each["subject"]: each["problem"] for each in document["findings"]}
    assert problems["user"] == "there is no user no-such-user"
    key = "storage.filesystem.rootdirectory"
    assert problems[key] == f"the service may not write {folder}/store"
    assert problems["log.audit"] == f"the service may not write {folder}"
    assert problems["descriptors"] == "only 256 connections at the same time"


def test_a_user_that_systemd_makes_for_each_start_is_named(tmp_path):
    path = write_configuration(tmp_path, addr=f"127.0.0.1:{free_port()}")
    programs = tmp_path / "bin"
    programs.mkdir()
    systemctl = programs / "systemctl"
    text = UNIT.format(path=path, user="no-such-user", folder=tmp_path)
    systemctl.write_text(f"{text}echo ProtectSystem=no\necho DynamicUser=yes\n")
    systemctl.chmod(0o755)
    status, document = doctor(tmp_path, path, PATH=f"{programs}:{os.environ['PATH']}")
    assert (status, subjects(document)) == (0, [])
    assert "user" in subjects(document, "warning")


def test_a_bucket(tmp_path, object_stores):
    store = object_stores.get("moto")
    settings = {"endpoint": store.endpoint, "access": store.access_key, "port": free_port()}
    path = write_configuration(tmp_path, "")
    (tmp_path / "registry.yml").write_text(BUCKET.format(bucket="registry", **settings))
    status, document = doctor(tmp_path, path)
    assert (status, subjects(document)) == (0, [])
    assert "storage.s3" in document["checks"]
    (tmp_path / "registry.yml").write_text(BUCKET.format(bucket="nowhere", **settings))
    status, document = doctor(tmp_path, path)
    assert (status, subjects(document)) == (1, ["storage.s3"])
    assert "NoSuchBucket" in document["findings"][0]["evidence"]
    assert "hunter2" not in json.dumps(document)


def test_a_redis_that_is_down(tmp_path):
    text = CONFIGURATION.replace("http:", "  cache: {{blobdescriptor: redis}}\nhttp:")
    more = f"redis: {{addr: '127.0.0.1:{free_port()}', password: hunter2}}\n"
    path = write_configuration(tmp_path, text, more=more)
    status, document = doctor(tmp_path, path)
    assert (status, subjects(document)) == (1, ["redis"])
    assert "hunter2" not in json.dumps(document)


def test_the_mail_server_of_a_hook(tmp_path):
    hook = "log: {{hooks: [{{type: mail, levels: [error], options: {{smtp: {{addr: '127.0.0.1:{}',\
 username: me, password: hunter2}}, from: a@x, to: [b@x]}}}}]}}\n"
    with smtp_server() as server:
        path = write_configuration(tmp_path, more=hook.format(server.port))
        assert doctor(tmp_path, path)[0] == 0
        server.refuse_login = "535 no"
        status, document = doctor(tmp_path, path)
    assert (server.logins, server.messages) == (["\0me\0hunter2"] * 2, [])
    assert "log.hooks[0].options.smtp" in document["checks"]
    assert (status, subjects(document)) == (1, ["log.hooks[0].options.smtp.password"])
    assert "hunter2" not in json.dumps(document)


def test_check_finds_what_serve_refuses(tmp_path, capsys):
    path = write_configuration(tmp_path, more="  tls: {certificate: no.pem, key: no.key}\n")
    assert main(["check", path]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if "does not exist" in line]
    assert len(lines) == 2
    assert all(line.startswith(f"twisted-registry: {path}: http.tls.") for line in lines)
