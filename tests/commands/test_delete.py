"""The command ``delete``, while a registry serves the store."""

from __future__ import annotations

import json
import sys

import pytest

from tests.commands.image_push import push
from tests.commands.operator_shell import TRASH_CONFIGURATION, Operator
from tests.support.processes import SERVE, RegistryProcess, run, wait_until, write_configuration

IMMUTABLE = TRASH_CONFIGURATION.replace(
    "    gc:", "    retention: {{immutable: [{{repositories: [a], tags: [v*]}}]}}\n    gc:"
)
READ_ONLY = TRASH_CONFIGURATION.replace(
    "maintenance:", "maintenance:\n    readonly: {{enabled: true}}"
)


@pytest.fixture
def operator(tmp_path):
    write_configuration(tmp_path, TRASH_CONFIGURATION)
    with RegistryProcess(*SERVE, tmp_path / "registry.yml", cwd=tmp_path) as server:
        yield Operator(tmp_path, server)


def catalog(server):
    return json.loads(server.ask("GET", "/v2/_catalog")[1])["repositories"]


def test_a_deleted_repository_can_be_restored(operator):
    digest = push(operator.server, "v1", b"layer")
    push(operator.server, "v2", b"other")
    status, out, faults = operator.command("delete", "a")
    assert (status, faults) == (0, [])
    assert out.splitlines() == [
        "a: 2 tags, 2 manifests, 2 links to blobs deleted",
        "to restore it: twisted-registry trash restore a",
    ]
    assert operator.server.ask("GET", "/v2/a/tags/list")[0].status == 404
    assert catalog(operator.server) == []
    assert operator.command("delete", "a") == (
        1,
        "",
        ["twisted-registry: a: no such repository"],
    )
    assert operator.command("garbage-collect", "-q")[0] == 0
    assert operator.trash("restore", "a") == (0, "a: restored\n", [])
    wait_until(lambda: operator.digest_of("v1") == digest)
    assert operator.layer(b"layer") == b"layer"
    assert operator.layer(b"other") == b"other"
    assert catalog(operator.server) == ["a"]


def test_the_counts_are_printed_as_json(operator):
    push(operator.server, "v1", b"layer")
    status, out, faults = operator.command("delete", "a", "--json")
    assert (status, faults) == (0, [])
    assert json.loads(out) == {"repository": "a", "tags": 1, "manifests": 1, "blobs": 1}


@pytest.mark.parametrize(
    ("text", "name", "expected_status", "words"),
    [
        (TRASH_CONFIGURATION.replace("true", "false"), "a", 1, "storage.delete.enabled"),
        (READ_ONLY, "a", 1, "read-only"),
        ("version: 0.1\nstorage: inmemory\nhttp: {{addr: '{addr}'}}\n", "a", 1, "memory"),
        (TRASH_CONFIGURATION, "A", 2, "A: not a repository name; expected lower-case letters"),
        (TRASH_CONFIGURATION, "a:v1", 2, "a:v1: "),
    ],
)
def test_a_delete_that_is_not_possible_is_reported(tmp_path, text, name, expected_status, words):
    path = write_configuration(tmp_path, text)
    command = (sys.executable, "-m", "twisted_registry", "delete", name, path)
    status, out, (fault,) = run(*command, cwd=tmp_path)
    assert (status, out) == (expected_status, "")
    assert words in fault


def test_a_repository_with_an_immutable_tag_is_kept(tmp_path):
    write_configuration(tmp_path, IMMUTABLE)
    with RegistryProcess(*SERVE, tmp_path / "registry.yml", cwd=tmp_path) as server:
        push(server, "v1", b"layer")
        assert Operator(tmp_path, server).command("delete", "a") == (
            1,
            "",
            ["twisted-registry: a: DENIED: this tag is immutable here (tag v1)"],
        )
        assert server.ask("GET", "/v2/a/tags/list")[0].status == 200
