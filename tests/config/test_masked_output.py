"""The effective configuration as YAML: masked secrets, and the shape of the file."""

from __future__ import annotations

import attrs
import pytest
import yaml

from tests.config.config_loading import MEMORY
from twisted_registry.config.loading import effective_yaml, load_text, masked_data
from twisted_registry.config.reference import reference

FULL = """
version: 0.1
log:
  level: debug
  fields: {service: registry, zip: '0123'}
  hooks:
    - type: mail
      options: {smtp: {addr: 'mail:25', username: me, password: hunter2}, from: a@b, to: [c@d]}
storage:
  filesystem: {rootdirectory: /data, maxthreads: 50}
  delete: {enabled: true}
  cache: {blobdescriptor: inmemory}
  maintenance:
    uploadpurging: {enabled: true, age: 168h, interval: 1h30m, dryrun: false}
http:
  addr: unix:/run/registry.sock
  prefix: /r/
  host: https://registry.example
  secret: hunter2
  draintimeout: 1m30s
  headers: {X-A: [b, c]}
  h2c: {enabled: true}
redis:
  addr: redis:6379
  password: hunter2
  sentinelpassword: hunter2
  pool: {maxidle: 3}
health:
  http: [{uri: 'https://u:hunter2@a/', headers: {Authorization: [hunter2]}}]
notifications:
  endpoints:
    - name: a
      url: 'https://u:hunter2@a/'
      headers: {Authorization: [Bearer hunter2]}
      secret: hunter2
proxy: {username: me, password: hunter2}
validation: {manifests: {urls: {allow: ['^https://'], deny: [x]}}}
policy: {repository: {classes: [image]}}
middleware:
  storage: [{name: cloudfront, options: {privatekey: hunter2}, disabled: true}]
reporting: {newrelic: {licensekey: hunter2}}
"""


def test_secrets_are_masked():
    result = load_text(FULL, {}, "f")
    output = effective_yaml(result.configuration)
    assert "hunter2" not in output
    assert "hunter2" not in repr(result)
    data = masked_data(result.configuration)
    assert data["http"]["secret"] == "******"
    assert data["redis"]["password"] == data["redis"]["sentinelpassword"] == "******"
    assert data["proxy"]["password"] == "******"
    assert data["notifications"]["endpoints"][0]["headers"] == {"Authorization": ["******"]}
    assert data["health"]["http"][0]["uri"] == "https://******@a/"
    assert data["log"]["hooks"][0]["options"]["smtp"]["password"] == "******"
    assert data["reporting"] == {"newrelic": {"licensekey": "******"}}


def test_the_output_has_the_shape_of_the_file():
    data = yaml.safe_load(effective_yaml(load_text(FULL, {}).configuration))
    assert data["version"] == "0.1"
    assert data["storage"]["filesystem"] == {
        "rootdirectory": "/data",
        "maxthreads": 50,
        "reserve": 16 * 2**20,
    }
    assert data["storage"]["maintenance"]["uploadpurging"]["interval"] == "1h30m"
    assert data["http"]["draintimeout"] == "1m30s"
    assert data["http"]["headers"] == {"X-A": ["b", "c"]}
    assert data["http"]["limits"]["manifestbytes"] == 4 * 2**20
    assert data["log"]["hooks"][0]["options"]["from"] == "a@b"
    assert data["validation"]["manifests"]["urls"] == {"allow": ["^https://"], "deny": ["x"]}
    assert "password" not in masked_data(load_text(MEMORY, {}).configuration)["proxy"]
    assert masked_data(load_text(MEMORY, {}).configuration)["storage"]["inmemory"] == {}


@pytest.mark.parametrize("text", [MEMORY, FULL.replace("u:hunter2@", "").replace("hunter2", "x")])
def test_the_output_loads_as_the_same_configuration(text: str):
    first = load_text(text, {})
    output = effective_yaml(first.configuration)
    again = load_text(output, {})
    assert effective_yaml(again.configuration) == output
    assert again.warnings == first.warnings
    if "******" not in output:
        assert again.configuration == first.configuration


def test_configurations_are_frozen_and_compared_by_value():
    one, two = load_text(MEMORY, {}).configuration, load_text(MEMORY, {}).configuration
    assert one == two
    assert hash(one) == hash(two)
    assert one != load_text(MEMORY + "http: {secret: a}\n", {}).configuration
    assert one != one.http
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        one.http.addr = "x"  # type: ignore[misc]


def test_the_reference_has_keys_defaults_and_extensions():
    output = reference()
    assert "``http.addr``\n    The address to listen on: " in output
    assert "``notifications.endpoints[].url``" in output
    assert "``http.limits.manifestbytes``  (*extension*)" in output
    assert "Default: ``127.0.0.1:5000``." in output
    assert "Default: ``168h``." in output
