"""``REGISTRY_*`` variables: which key they set, and what happens if there is none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.config.config_loading import MEMORY, fault_lines, load_config
from twisted_registry.config.document import Node, Report
from twisted_registry.config.environment import apply_overrides
from twisted_registry.config.kinds import text, to_plain_data
from twisted_registry.config.loading import load_text, masked_data
from twisted_registry.config.parsing import parse
from twisted_registry.config.schema import Configuration
from twisted_registry.config.sections import Section, SectionBase, key, schema_keys

BASE = "version: 0.1\nstorage: {filesystem: {rootdirectory: /data}}\n"


def test_a_variable_sets_a_key_and_is_yaml():
    result = load_config(
        BASE,
        HTTP_ADDR=":80",
        HTTP_RELATIVEURLS="true",
        STORAGE_DELETE_ENABLED="true",
        STORAGE_FILESYSTEM_MAXTHREADS="30",
        HTTP_SECRET="0123",
        HTTP_DRAINTIMEOUT="1m",
        POLICY_REPOSITORY_CLASSES="[image, plugin]",
    )
    configuration = result.configuration
    assert result.warnings == ()
    assert configuration.http.addr == ":80"
    assert configuration.http.relativeurls is True
    assert configuration.http.secret == "0123"
    assert configuration.http.draintimeout == 60
    assert configuration.storage.delete.enabled is True
    assert configuration.policy.repository.classes == ("image", "plugin")
    assert configuration.storage.filesystem is not None
    assert configuration.storage.filesystem.maxthreads == 30
    assert configuration.storage.filesystem.rootdirectory == "/data"


def test_an_empty_variable_restores_the_default():
    assert load_config(BASE + "http: {addr: ':80'}\n", HTTP_ADDR="").configuration.http.addr == (
        "127.0.0.1:5000"
    )


def test_other_variables_are_not_read():
    environ = {"HOME": "/root", "registry_http_addr": ":1", "REGISTRYX": "y"}
    assert load_text(BASE, environ, "f").warnings == ()


def test_the_variable_that_names_the_file_overrides_nothing():
    environ = {"REGISTRY_CONFIGURATION_PATH": "/x"}
    assert load_text(BASE, environ, "f").warnings == ()


def kubernetes_service(name: str) -> dict[str, str]:
    """The variables that a pod gets for a service with one port."""
    return {
        f"{name}_SERVICE_HOST": "192.0.2.1",
        f"{name}_SERVICE_PORT": "5000",
        f"{name}_SERVICE_PORT_HTTP": "5000",
        f"{name}_PORT": "tcp://192.0.2.1:5000",
        f"{name}_PORT_5000_TCP": "tcp://192.0.2.1:5000",
        f"{name}_PORT_5000_TCP_PROTO": "tcp",
        f"{name}_PORT_5000_TCP_PORT": "5000",
        f"{name}_PORT_5000_TCP_ADDR": "192.0.2.1",
    }


@pytest.mark.parametrize(
    "name",
    ["REGISTRY", "REGISTRY_UI", "REGISTRY_AUTH", "REGISTRY_HTTP_HEADERS", "REGISTRY_SERVICE"],
)
def test_variables_of_a_kubernetes_service_are_not_read(name: str):
    result = load_text(BASE, {**kubernetes_service(name), "REGISTRY_HTTP_ADDR": ":80"}, "f")
    assert result.warnings == ()
    assert result.configuration.http.headers == load_text(BASE, {}).configuration.http.headers
    assert result.configuration.http.addr == ":80"


def test_a_variable_that_only_looks_like_that_of_a_service_is_a_warning():
    (warning,) = load_text(BASE, {"REGISTRY_PORT": "5000"}, "f").warnings
    assert warning == "Ignoring unrecognized environment variable REGISTRY_PORT"
    environ = kubernetes_service("REGISTRY_UI") | {"REGISTRY_SERVICE_HOST": "a"}
    (warning,) = load_text(BASE, environ, "f").warnings
    assert warning == "Ignoring unrecognized environment variable REGISTRY_SERVICE_HOST"


def test_variables_apply_in_the_order_of_their_names():
    result = load_config(BASE, STORAGE_DELETE_ENABLED="true", STORAGE="inmemory")
    assert result.configuration.storage.drivers == ("inmemory",)
    assert result.configuration.storage.delete.enabled is True


def test_a_section_can_be_replaced_as_a_whole():
    result = load_config(BASE + "http: {addr: ':80', prefix: /a/}\n", HTTP="{addr: ':81'}")
    assert result.configuration.http.addr == ":81"
    assert result.configuration.http.prefix == ""


def test_an_index_replaces_or_appends_an_item():
    hosts = "redis: {addrs: ['a:1', 'b:2']}\n"

    def addrs(**variables: str) -> tuple[str, ...]:
        redis = load_config(BASE + hosts, **variables).configuration.redis
        assert redis is not None
        return redis.addrs

    assert addrs(REDIS_ADDRS_0="x:1") == ("x:1", "b:2")
    assert addrs(REDIS_ADDRS_2="c:3", REDIS_ADDRS_3="d:4") == ("a:1", "b:2", "c:3", "d:4")
    assert addrs(REDIS_ADDRS="[z:9]") == ("z:9",)


@pytest.mark.parametrize("index", ["3", "x", "-1", "", "999999999999", "٢"])
def test_an_index_beyond_the_next_is_a_fault(index: str):
    lines = fault_lines(BASE + "redis: {addrs: ['a:1', 'b:2']}\n", **{f"REDIS_ADDRS_{index}": "x"})
    assert len(lines) == 1
    assert lines[0].endswith("the index must be that of an item of the list, or the next one")


def test_index_0_creates_a_missing_list():
    result = load_config(BASE, NOTIFICATIONS_ENDPOINTS_0_NAME="a",
                    NOTIFICATIONS_ENDPOINTS_0_URL="http://a")  # fmt: skip
    (endpoint,) = result.configuration.notifications.endpoints
    assert (endpoint.name, endpoint.url) == ("a", "http://a")


def test_variables_set_both_shapes_of_redis():
    result = load_config(BASE, REDIS_ADDR="a:1", REDIS_DB="3", REDIS_POOL_MAXIDLE="16",
                    REDIS_POOL_IDLETIMEOUT="300s", REDIS_POOLSIZE="5")  # fmt: skip
    redis = result.configuration.redis
    assert redis is not None
    assert (redis.addr, redis.db, redis.poolsize) == ("a:1", 3, 5)
    assert (redis.pool.maxidle, redis.pool.idletimeout) == (16, 300)


def test_header_names_keep_their_case():
    result = load_text(BASE + "http: {headers: {X-Old: [a]}}\n", {
        "REGISTRY_HTTP_HEADERS_Access-Control-Allow-Origin": "['*']",
        "REGISTRY_HTTP_HEADERS_x-old": "[b]",
        "REGISTRY_HTTP_HEADERS_X_Under_0": "c",
        "REGISTRY_HTTP_HEADERS_X_Under_1": "d",
    })  # fmt: skip
    assert result.configuration.http.headers == {
        "X-Old": ("b",),
        "Access-Control-Allow-Origin": ("*",),
        "X_Under": ("c", "d"),
    }


def test_new_names_of_other_mappings_are_lower_case():
    result = load_config(BASE, LOG_FIELDS_SERVICE="registry", LOG_FIELDS_Environment="test")
    assert result.configuration.log.fields == {"service": "registry", "environment": "test"}


def test_keys_with_an_underscore_are_found_by_the_longest_match():
    text = BASE + "log: {fields: {a: {x: 1}, a_b: 2}}\n"
    assert load_config(text, LOG_FIELDS_A_B="3").configuration.log.fields == {
        "a": {"x": 1},
        "a_b": 3,
    }
    assert load_config(text, LOG_FIELDS_A_X="3").configuration.log.fields == {
        "a": {"x": 3},
        "a_b": 2,
    }


class Retry(SectionBase):
    max_retries: str = key(text(), "Attempts.", default="")
    max: str = key(text(), "Another.", default="")


def test_a_schema_may_have_keys_with_an_underscore():
    root = Node(None)
    kind = Section(Retry)
    applied = apply_overrides(
        root, kind, {"REGISTRY_MAX_RETRIES": "5", "REGISTRY_MAX": "6"}, Report()
    )
    assert to_plain_data(root) == {"max": 6, "max_retries": 5}
    assert applied == [("max",), ("max_retries",)]


def test_options_of_a_rejected_driver_keep_their_underscores():
    report = Report()
    root = parse("storage: {azure: {}}", "f", report)
    apply_overrides(root, Section(Configuration), {
        "REGISTRY_STORAGE_AZURE_MAX_RETRIES": "5",
        "REGISTRY_STORAGE_AZURE_CREDENTIALS_SECRET": "s",
        "REGISTRY_STORAGE_AZURE_MAXRETRIES": "5",
    }, report)  # fmt: skip
    assert to_plain_data(root) == {
        "storage": {"azure": {"max_retries": 5, "credentials": {"secret": "s"}}}
    }
    assert report.warnings == [
        (
            "Ignoring unrecognized environment variable REGISTRY_STORAGE_AZURE_MAXRETRIES;"
            " did you mean REGISTRY_STORAGE_AZURE_MAX_RETRIES?"
        )
    ]


@pytest.mark.parametrize(
    "name",
    ["PORT", "SERVICE_HOST", "HTTP_ADR", "http_addr", "HTTP_ADDR_X", "REDIS_FOO", "STORAGE_FILE",
     "STORAGE_FILESYSTEM_ROOT", "VERSION", "", "HTTP_", "A\nB"],
)  # fmt: skip
def test_a_variable_that_names_no_key_adds_a_warning_and_changes_nothing(name: str):
    result = load_config(BASE, **{name: "tcp://10.0.0.1:5000"})
    (warning,) = result.warnings
    assert warning.startswith("Ignoring unrecognized environment variable ")
    assert warning.isprintable()
    assert result.configuration == load_config(BASE).configuration


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("HTTP_ADR", "HTTP_ADDR"), ("HTPP_ADDR", "HTTP_ADDR"),
        ("STORAGE_FILESYSTEM_ROOTDIR", "STORAGE_FILESYSTEM_ROOTDIRECTORY"),
        ("NOTIFICATIONS_ENDPOINTS_0_ULR", "NOTIFICATIONS_ENDPOINTS_0_URL"),
    ],
)  # fmt: skip
def test_the_variable_that_was_probably_meant_is_named(name: str, meant: str):
    text = BASE + "notifications: {endpoints: [{name: a, url: 'http://a'}]}\n"
    (warning,) = load_config(text, **{name: "x"}).warnings
    expected = f"Ignoring unrecognized environment variable REGISTRY_{name}"
    assert warning == f"{expected}; did you mean REGISTRY_{meant}?"


def test_the_login_file_of_podman_is_not_an_override():
    """REGISTRY_AUTH_FILE would set ``auth.file``, and ``auth`` is strict."""
    result = load_config(BASE, AUTH_FILE="/srv/auth.json")
    assert list(result.warnings) == [
        "Ignoring unrecognized environment variable REGISTRY_AUTH_FILE"
    ]
    assert not result.configuration.auth.is_enabled


def test_the_version_is_not_taken_from_the_environment():
    assert fault_lines("storage: inmemory\n", VERSION="0.1") == [
        "version: not set, expected 0.1 (f)"
    ]


def test_a_value_that_is_not_yaml_is_a_fault_and_not_shown():
    (line,) = fault_lines(BASE, HTTP_SECRET="[hunter2")
    assert line.startswith("REGISTRY_HTTP_SECRET: the value is not YAML")
    assert "hunter2" not in line


def test_a_fault_names_the_variable():
    assert fault_lines(BASE, HTTP_NET="udp") == [
        "http.net: got 'udp', expected tcp or unix (REGISTRY_HTTP_NET)"
    ]


def test_a_variable_does_not_hide_a_fault_of_the_file():
    assert fault_lines(BASE + "http: hunter2\n", HTTP_ADDR=":1") == [
        "http: got a single value, expected a section (f line 3)"
    ]
    assert fault_lines(BASE + "redis: {addrs: a}\n", REDIS_ADDRS_0="b") == [
        "redis.addrs: got 'a', expected a list of HOST:PORT (f line 3)"
    ]


def test_a_driver_of_the_environment_replaces_that_of_the_file():
    result = load_config(MEMORY, STORAGE_FILESYSTEM_ROOTDIRECTORY="/x")
    assert result.configuration.storage.drivers == ("filesystem",)
    assert result.warnings == (
        "storage.inmemory: replaced by filesystem of the environment (f line 2)",
    )
    assert load_config(BASE, STORAGE_INMEMORY="").configuration.storage.drivers == ("inmemory",)


def test_two_drivers_of_the_environment_are_a_fault():
    lines = fault_lines(BASE, STORAGE_INMEMORY="{}", STORAGE_FILESYSTEM_ROOTDIRECTORY="/x")
    assert lines == ["storage: got filesystem, inmemory, expected exactly one driver (f line 2)"]
    lines = fault_lines(BASE, STORAGE="{inmemory: , filesystem: }")
    assert lines == [
        "storage: got filesystem, inmemory, expected exactly one driver (REGISTRY_STORAGE)"
    ]


def test_a_replaced_section_and_another_driver_are_a_fault():
    lines = fault_lines(MEMORY, STORAGE="filesystem", STORAGE_INMEMORY="{}")
    assert lines == [
        "storage: got filesystem, inmemory, expected exactly one driver (REGISTRY_STORAGE)"
    ]


def test_two_drivers_of_the_file_stay_a_fault():
    lines = fault_lines("version: 0.1\nstorage: {inmemory: , filesystem: }\n",
                  STORAGE_FILESYSTEM_ROOTDIRECTORY="/x")  # fmt: skip
    assert lines == ["storage: got filesystem, inmemory, expected exactly one driver (f line 2)"]


def test_a_typo_below_auth_is_a_fault():
    lines = fault_lines(BASE, AUTH_HTPASWD_REALM="x")
    assert lines == [
        (
            "auth.htpaswd: unknown key, expected one of none, silly, htpasswd, token, plugin"
            "; did you mean htpasswd? (REGISTRY_AUTH_HTPASWD_REALM)"
        )
    ]
    assert fault_lines(BASE, AUTH="htpasswd") == [
        f"auth.htpasswd.{name}: this key is required (REGISTRY_AUTH)" for name in ("realm", "path")
    ]


def every_scalar(cls: type, path: str = "") -> list[str]:
    names = []
    for spec in schema_keys(cls).values():
        name = f"{path}_{spec.name.upper()}"
        kind = spec.kind
        names += every_scalar(kind.cls, name) if isinstance(kind, Section) else [name]
    return names


@pytest.mark.parametrize("name", every_scalar(Configuration))
def test_every_key_of_the_schema_has_its_variable(name: str):
    root = parse(BASE, "f", Report())
    report = Report()
    applied = apply_overrides(root, Section(Configuration), {f"REGISTRY{name}": "x"}, report)
    assert (len(applied), len(report.warnings)) == ((0, 1) if name == "_VERSION" else (1, 0))


def test_loglevel_is_the_old_name_of_log_level():
    result = load_config(BASE, LOGLEVEL="DEBUG")
    assert result.configuration.log.level == "debug"
    assert len(result.notices) == 1
    log: dict[str, Any] = masked_data(
        load_config(BASE + "log: {level: error}\n", LOGLEVEL="debug").configuration
    )
    assert log["log"]["level"] == "error"
    assert load_config(BASE + "loglevel: warn\nlog:\n").configuration.log.level == "warn"
    assert fault_lines(BASE + "loglevel: warn\nlog: x\n") == [
        "log: got a single value, expected a section (f line 4)"
    ]
