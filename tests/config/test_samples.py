"""Configurations of other projects start, or are refused in lines that say what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.support.certificates import Authority, encode_private_key, rsa_key
from twisted_registry.app.start_checks import check_start
from twisted_registry.config.document import ConfigurationError
from twisted_registry.config.loading import load_text

SAMPLES = yaml.safe_load((Path(__file__).parent / "samples.yml").read_text())
#: The file of the images of Distribution.
IMAGE = {
    "version": 0.1,
    "log": {"fields": {"service": "hub"}},
    "storage": {
        "cache": {"blobdescriptor": "inmemory"},
        "filesystem": {"rootdirectory": "{folder}/store"},
    },
    "http": {"addr": ":5000", "headers": {"X-Content-Type-Options": ["nosniff"]}},
    "health": {"storagedriver": {"enabled": True, "interval": "10s", "threshold": 3}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files that the samples name."""
    folder = tmp_path_factory.mktemp("samples")
    authority = Authority()
    authority.issue("hub.example.com").write(folder)
    (folder / "ca.pem").write_bytes(authority.pem)
    (folder / "users").write_bytes(b"ada:$2y$05$" + b"a" * 53 + b"\n")
    (folder / "rsa.pem").write_bytes(encode_private_key(rsa_key()))
    (folder / "jwks.json").write_text(json.dumps({"keys": []}))
    (folder / "store").mkdir()
    for secret in ("server.key", "users", "rsa.pem"):
        (folder / secret).chmod(0o600)
    return folder


def load_sample(sample, folder):
    text = json.dumps(sample.get("file", IMAGE)).replace("{folder}", str(folder))
    environ = {
        f"REGISTRY_{name}": value.replace("{folder}", str(folder))
        for name, value in sample.get("environ", {}).items()
    }
    return load_text(text, environ, "f")


def starting(sample):
    return "faults" not in sample


@pytest.mark.parametrize(
    "sample", list(filter(starting, SAMPLES)), ids=lambda sample: sample["name"]
)
def test_it_starts(sample, folder):
    loaded = load_sample(sample, folder)
    assert check_start(loaded.configuration, {}) == []
    warnings = sample.get("warnings", [])
    assert len(loaded.warnings) == len(warnings)
    for told, expected in zip(sorted(loaded.warnings), sorted(warnings), strict=True):
        assert told.startswith(expected)


@pytest.mark.parametrize(
    "sample",
    [sample for sample in SAMPLES if not starting(sample)],
    ids=lambda sample: sample["name"],
)
def test_it_is_refused_in_lines_that_say_what_to_do(sample, folder):
    with pytest.raises(ConfigurationError) as caught:
        load_sample(sample, folder)
    told = [str(fault).partition(" (")[0] for fault in caught.value.faults]
    assert told == sample["faults"]
