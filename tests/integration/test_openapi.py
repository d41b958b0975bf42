"""Requests made from ``docs/openapi.yaml`` by schemathesis, and their responses.

The long form, marked ``nightly``, makes them for eight minutes.
"""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.support.manifests import OCI_IMAGE, descriptor, digest_of, image
from tests.support.passwords import basic_header, password_lines
from tests.support.process_usage import usage
from tests.support.processes import ROOT, SERVE, RegistryProcess, write_configuration

pytestmark = pytest.mark.integration

FILE = ROOT / "docs" / "openapi.yaml"
CONFIGURATION = """\
version: 0.1
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
http:
  addr: "{addr}"
  secret: do-not-tell
auth:
  htpasswd: {{realm: here, path: {root}-users}}
access:
  rules:
  - {{repositories: ['**', '!app'], anonymous: true, allow: [push, delete]}}
  - {{repositories: [app], anonymous: true, allow: [push]}}
  tokens: {{}}
"""
#: What the registry refuses, and whether it does, is not all in the schemas: a manifest has to have
#: its blobs, and a digest to be that of the body.
CHECKS = [
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "unsupported_method",
    "allow_header_conformance",
]  # fmt: skip
#: In a line of the access log.
STATUS = re.compile(r'"[A-Z]+ [^"]*" (\d{3}) ')
METHODS = {"get", "head", "post", "put", "patch", "delete", "options"}
LAYER, CONFIG = b"layer", b"{}"
IMAGE = image(CONFIG, LAYER)
REFERRER = image(CONFIG, LAYER, subject=descriptor(IMAGE, OCI_IMAGE))


@pytest.fixture
def schemathesis():
    """The command of the program."""
    program = Path(sys.prefix) / "bin" / "schemathesis"
    if not program.exists():
        reason = "no schemathesis: pip install -r tests/integration/requirements.txt"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    return str(program)


def test_the_description_is_valid_openapi():
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def push(registry):
    """Push what requests find: two images, one of which refers to the other, and an upload."""
    for name in ("app", "other"):
        for blob in (LAYER, CONFIG):
            target = f"/v2/{name}/blobs/uploads/?digest={digest_of(blob)}"
            assert registry.ask("POST", target, blob)[0].status == 201
        for tag, content in (("latest", IMAGE), ("refers", REFERRER)):
            target = f"/v2/{name}/manifests/{tag}"
            response, _ = registry.ask("PUT", target, content, {"Content-Type": OCI_IMAGE})
            assert response.status == 201
    begun, _ = registry.ask("POST", "/v2/app/blobs/uploads/")
    return begun.headers["Docker-Upload-UUID"]


def narrowed(upload):
    """Return the description, in which what exists is often chosen."""
    document = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    del document["paths"]["/ca.crt"]  # this registry has no authority
    schemas = document["components"]["schemas"]
    existing = {
        "Name": ["app", "other"],
        "Tag": ["latest", "refers"],
        "Digest": [digest_of(content) for content in (LAYER, CONFIG, IMAGE, REFERRER)],
    }
    for name, values in existing.items():
        schemas[name] = {"anyOf": [{"enum": values}, copy.deepcopy(schemas[name])]}
    paths, shared = document["paths"], document["components"]["parameters"]
    parameters = [
        *paths["/v2/{name}/blobs/uploads/{upload}"]["parameters"],
        *paths["/v2/{name}/blobs/{digest}"]["get"]["parameters"],
        shared["ifNoneMatch"],
    ]
    found = {
        "upload": [upload],
        "Range": ["bytes=0-1", "bytes=-1", "bytes=9-"],
        "If-None-Match": [f'"{digest}"' for digest in existing["Digest"]],
    }
    for parameter in parameters:
        if values := found.get(parameter.get("name")):
            parameter["schema"] = {"anyOf": [{"enum": values}, parameter["schema"]]}
    return document


def run_to_its_end(command, folder, registry, say):
    """Run schemathesis; say twice a minute how much was answered; return its report."""
    with (folder / "report.txt").open("w+", encoding="utf-8") as report:
        process = subprocess.Popen(command, cwd=folder, stdout=report, stderr=subprocess.STDOUT)
        begun = time.monotonic()
        while True:
            try:
                status = process.wait(30)
                break
            except subprocess.TimeoutExpired:
                answered = len(STATUS.findall(registry.output))
                say(f"{time.monotonic() - begun:.0f} s: {answered} responses")
        report.seek(0)
        text = report.read()
    assert status == 0, text
    return text


@pytest.mark.parametrize(
    "length",
    [
        pytest.param(["--max-examples", "3"], id="short"),
        # It begins again, with another seed, until the time is over.
        pytest.param(
            ["--max-examples", "50", "--max-time", "480"],
            id="long",
            marks=[pytest.mark.nightly, pytest.mark.timeout(1200)],
        ),
    ],
)
def test_responses_are_as_described(tmp_path, schemathesis, length, capsys):
    def say(line):
        with capsys.disabled():
            print(f"\nschemathesis: {line}", end="", flush=True)

    (tmp_path / "store-users").write_bytes(password_lines(ada="ada-knows-this"))
    path = write_configuration(tmp_path, CONFIGURATION)
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as registry:
        document = narrowed(push(registry))
        description = tmp_path / "openapi.yaml"
        description.write_text(yaml.safe_dump(document))
        sockets = usage(registry.process.pid).connections
        command = [
            schemathesis, "run", description, "--url", f"http://127.0.0.1:{registry.port}",
            "--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing", "--continue-on-failure",
            *length, "--seed", "1", "--no-color", "--warnings", "off",
            "--suppress-health-check", "all", "--generation-database", "none",
            "--header", f"Authorization: {basic_header('ada', 'ada-knows-this')}",
        ]  # fmt: skip
        report = run_to_its_end(command, tmp_path, registry, say)
        assert usage(registry.process.pid).connections <= sockets
        status, output, lines = registry.stop()
    assert status == 0
    fuzzed = re.search(r"Fuzzing \(.*\n\s+\W+ (\d+) passed\n", report)
    operations = sum(len(METHODS & set(path)) for path in document["paths"].values())
    assert fuzzed is not None, report
    assert int(fuzzed[1]) == operations, report
    served = set(STATUS.findall(output))
    assert served >= {"200", "201", "202", "204", "206", "304", "400", "401", "404", "405"}
    assert not {each for each in served if each >= "500"} - {"501", "505"}
    assert not [line for line in lines if "Traceback" in line or "level=error" in line]
