"""The command ``trash``, while a registry serves the store."""

from __future__ import annotations

import json
import sys

import pytest

from tests.commands.image_push import push
from tests.commands.operator_shell import TRASH_CONFIGURATION, Operator
from tests.support.processes import SERVE, RegistryProcess, run, wait_until, write_configuration
from twisted_registry.commands.trash import TrashTarget, parse_time
from twisted_registry.frame.errors import CommandFailed
from twisted_registry.oci.digest import Digest


@pytest.fixture
def operator(tmp_path):
    write_configuration(tmp_path, TRASH_CONFIGURATION)
    with RegistryProcess(*SERVE, tmp_path / "registry.yml", cwd=tmp_path) as server:
        yield Operator(tmp_path, server)


def test_a_collected_image_is_listed_and_restored(operator):
    first = push(operator.server, "v1", b"first layer")
    assert operator.trash("list") == (0, "", []), "nothing was removed yet"
    second = push(operator.server, "v1", b"second layer")
    operator.delete(f"manifests/{first}")
    operator.delete(f"manifests/{second}")
    assert operator.command("garbage-collect", "-q")[0] == 0
    kinds = [(facts["kind"], facts["cause"]) for facts in operator.trash_documents("list")]
    assert kinds.count(("blob", "collected")) == 4
    assert kinds.count(("manifest", "deleted")) == 2
    assert kinds.count(("layer", "collected")) == 2
    changes = operator.trash_documents("history", "a:v1")
    assert [(change["before"], change["now"]) for change in changes] == [
        (None, first),
        (first, second),
        (second, None),
    ]
    status, out, faults = operator.trash("restore", "a:v1")
    assert (status, out, faults) == (0, "a:v1: restored\n", [])
    wait_until(lambda: operator.digest_of("v1") == second)
    assert operator.layer(b"second layer") == b"second layer"
    assert operator.trash("restore", "a:v1", "--at", changes[2]["time"])[0] == 1
    moment = changes[0]["time"]
    assert operator.trash("restore", "a:v1", "--at", moment)[::2] == (0, [])
    assert operator.digest_of("v1") == first
    assert operator.layer(b"first layer") == b"first layer"


def test_an_emptied_trash_restores_nothing(operator):
    digest = push(operator.server, "v1", b"layer")
    operator.delete(f"manifests/{digest}")
    assert operator.command("garbage-collect", "-q")[0] == 0
    assert operator.trash("empty", "--older-than", "1h")[1].startswith("0 items")
    assert operator.trash("restore", f"a@{digest}")[0] == 0
    # The registry may treat it as condemned until it reads the list again.
    wait_until(lambda: operator.digest_of(digest, "HEAD") == digest)
    operator.delete(f"manifests/{digest}")
    assert operator.command("garbage-collect", "-q")[0] == 0
    emptied = json.loads(operator.trash("empty", "--json")[1])
    assert emptied["removed"] >= 4
    assert operator.trash("list") == (0, "", [])
    status, out, (fault,) = operator.trash("restore", f"a@{digest}")
    assert (status, out) == (1, "")
    assert "no longer exists" in fault


@pytest.mark.parametrize("text", ["A:v1", "a@", "a@sha256:12", "a:-", "", ":v1", "a/"])
def test_invalid_targets_are_rejected(text):
    with pytest.raises(CommandFailed):
        TrashTarget.parse(text)


def test_a_target_is_a_tag_a_digest_or_a_repository():
    digest = Digest.of(b"")
    for text, name, tag, found in (
        ("a/b:v1", "a/b", "v1", None),
        ("a/b", "a/b", "", None),
        (f"a@{digest}", "a", "", digest),
    ):
        wanted = TrashTarget.parse(text)
        assert (wanted.repository, wanted.tag, wanted.digest) == (name, tag, found)


def test_times_are_iso_8601_in_utc():
    assert parse_time(None) is None
    assert parse_time("1970-01-02") == 86_400.0
    assert parse_time("1970-01-01T00:00:01.5Z") == 1.5
    assert parse_time("1970-01-01T01:00:00+01:00") == 0.0
    with pytest.raises(CommandFailed, match="--at noon"):
        parse_time("noon")


def test_a_store_in_memory_is_rejected(tmp_path):
    path = write_configuration(
        tmp_path, "version: 0.1\nstorage: inmemory\nhttp: {{addr: '{addr}'}}\n"
    )
    status, _, faults = run(
        sys.executable, "-m", "twisted_registry", "trash", "list", path, cwd=tmp_path
    )
    assert status == 1
    assert "memory" in faults[-1]
