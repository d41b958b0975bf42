"""Loading: which file is read, and the faults and warnings of its content."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.config.config_loading import MEMORY, config_error, fault_lines, load_config
from twisted_registry.config.document import MASK, ConfigurationError, Fault, mask_url, quote_value
from twisted_registry.config.loading import (
    DEFAULT_PATHS,
    LoadedConfiguration,
    load,
    load_mapping,
    load_text,
)

CONF = Path(__file__).parents[2] / "conf"


def warnings(text: str) -> tuple[str, ...]:
    return tuple(load_config(text).warnings)


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yml"
    path.write_text(MEMORY)
    return path


def load_first(path: Path | None, environ: dict[str, str], *defaults: Path) -> LoadedConfiguration:
    return load(
        None if path is None else str(path), environ, default_paths=[str(item) for item in defaults]
    )


def test_the_file_of_the_command_line_is_read_first(config_file: Path, tmp_path: Path):
    result = load_first(config_file, {"REGISTRY_CONFIGURATION_PATH": str(tmp_path / "other")})
    assert result.source == f"{config_file}, named on the command line"
    assert result.configuration.storage.drivers == ("inmemory",)


def test_the_file_of_the_environment_is_read_second(config_file: Path, tmp_path: Path):
    result = load_first(None, {"REGISTRY_CONFIGURATION_PATH": str(config_file)}, tmp_path)
    assert result.source == f"{config_file}, named by REGISTRY_CONFIGURATION_PATH"


def test_the_default_paths_are_read_in_order(config_file: Path, tmp_path: Path):
    result = load_first(None, {}, tmp_path / "missing", config_file)
    assert result.source == f"{config_file}, a default path"
    assert DEFAULT_PATHS == (
        "/etc/twisted-registry/config.yml",
        "/etc/distribution/config.yml",
        "/etc/docker/registry/config.yml",
    )


def test_a_default_path_that_may_not_be_looked_at_is_not_passed_over(
    config_file: Path, tmp_path: Path
):
    """As for a user who is not in the group of /etc/twisted-registry."""
    closed = tmp_path / ("x" * 300)  # a name that no user may look at: it is too long
    with pytest.raises(ConfigurationError, match="cannot be read: File name too long"):
        load_first(None, {}, closed, config_file)


def test_the_environment_overrides_the_built_in_default(tmp_path: Path):
    result = load_first(None, {"REGISTRY_HTTP_PREFIX": "/a/"}, tmp_path / "missing")
    configuration = result.configuration
    assert result.source.startswith("the built-in default")
    assert (result.warnings, result.notices) == ((), ())
    assert configuration.storage.filesystem is not None
    assert configuration.storage.filesystem.rootdirectory == "./registry-data"
    assert configuration.storage.delete.enabled is True
    assert configuration.http.addr == "127.0.0.1:5000"
    assert configuration.http.prefix == "/a/"


def test_an_unreadable_file_is_one_line(tmp_path: Path):
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00version")
    for path, expected in (
        (tmp_path / "missing", "cannot be read: No such file or directory"),
        (tmp_path, "cannot be read: Is a directory"),
        (binary, "is not UTF-8 text"),
        (Path("a\0b"), "is not a path"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            load_first(path, {})
        (line,) = str(caught.value).splitlines()
        assert line.endswith(expected)


@pytest.mark.parametrize("text", ["", "a", "[a]", "5", "~"])
def test_a_file_that_is_not_a_mapping_is_one_line(text: str):
    assert fault_lines(text) == ["f: is not a mapping of sections; it must begin with version: 0.1"]


def test_a_file_that_is_not_yaml_is_one_line():
    (line,) = fault_lines("version: 0.1\nstorage: [\n")
    assert line.startswith("f: is not YAML at line ")


def test_a_byte_order_mark_is_ignored(tmp_path: Path):
    path = tmp_path / "config.yml"
    path.write_bytes(b"\xef\xbb\xbf" + MEMORY.encode())
    assert load_first(path, {}).configuration.version == "0.1"


def test_the_version_must_be_0_1():
    assert fault_lines("storage: inmemory\n") == ["version: not set, expected 0.1 (f)"]
    assert fault_lines("version: 0.2\nstorage: inmemory\n") == [
        "version: got '0.2', expected 0.1 (f line 1)"
    ]
    assert fault_lines("version: [1]\nstorage: inmemory\n")[0] == (
        "version: got a list, expected 0.1 (f line 1)"
    )
    assert warnings("version: '0.1'\nstorage: inmemory\n") == ()


@pytest.mark.parametrize(
    ("value", "warned"),
    [("60", True), ("999999", True), ("1000000", False), ("0", False), ("60ns", False)],
)
def test_a_duration_without_unit_below_a_millisecond_is_a_warning(value: str, warned: bool):
    expected = (
        f"http.draintimeout: {value} without a unit is nanoseconds; write {value}s for seconds"
    )
    text = MEMORY + f"http:\n  draintimeout: {value}\n"
    assert warnings(text) == ((f"{expected} (f line 4)",) if warned else ())
    variable = "REGISTRY_HTTP_DRAINTIMEOUT"
    assert load_config(MEMORY, HTTP_DRAINTIMEOUT=value).warnings == (
        (f"{expected} ({variable})",) if warned else ()
    )


def test_durations_can_be_days():
    text = "version: 0.1\nstorage: {inmemory: , maintenance: {scrub: {interval: 7d}}}\n"
    assert load_config(text).configuration.storage.maintenance.scrub.interval == 7 * 86400


def test_all_faults_are_reported_at_once_with_their_line():
    text = MEMORY + (
        "http:\n"
        "  net: udp\n"
        "  draintimeout: 5\n"
        "  relativeurls: 'yes'\n"
        "  prefix: registry\n"
        "  host: registry.example\n"
        "  headers: {X-A: plain, 'B C': [x], D: [\"x\\ny\"], Content-Length: ['3']}\n"
        "  limits: {manifestbytes: 1MiB, idletimeout: 0s}\n"
        "log: {level: loud, formatter: xml, accesslog: 5}\n"
        "tags: {maxtags: -1}\n"
        "policy: {repository: {classes: [imagee]}}\n"
        "validation: {manifests: {urls: {allow: ['(']}, indexes: {platforms: some}}}\n"
    )
    assert fault_lines(text) == [
        "http.net: got 'udp', expected tcp or unix (f line 4)",
        "http.relativeurls: got 'yes', expected true or false (f line 6)",
        "http.prefix: got 'registry', expected a path that starts and ends with / (f line 7)",
        (
            "http.host: got 'registry.example', expected an absolute http or https URL"
            " without query (f line 8)"
        ),
        "http.headers.X-A: got 'plain', expected a list of values (f line 9)",
        (
            "http.headers.B C: the key must be an HTTP header name, and not one that frames the"
            " message (f line 9)"
        ),
        "http.headers.D[0]: got 'x\\ny', expected a header value on one line (f line 9)",
        (
            "http.headers.Content-Length: the key must be an HTTP header name, and not one that"
            " frames the message (f line 9)"
        ),
        (
            "http.limits.manifestbytes: got '1MiB', expected a number of bytes, 4194304 or"
            " more, such as 4194304 or 4MiB (f line 10)"
        ),
        (
            "http.limits.idletimeout: got '0s', expected a duration, longer than 0, such as 90s,"
            " 2h10m or 500ms (f line 10)"
        ),
        "log.level: got 'loud', expected error, warn, info or debug (f line 11)",
        "log.formatter: got 'xml', expected text, json or logstash (f line 11)",
        "log.accesslog: got a single value, expected a section (f line 11)",
        "tags.maxtags: got '-1', expected an integer, 0 or more (f line 12)",
        "policy.repository.classes[0]: got 'imagee', expected image or plugin (f line 13)",
        (
            "validation.manifests.urls.allow[0]: got '(', expected a regular expression in"
            " the syntax of Go (RE2) (f line 14)"
        ),
        (
            "validation.manifests.indexes.platforms: got 'some', expected all, none or list"
            " (f line 14)"
        ),
    ]


def test_an_unknown_key_adds_a_warning_with_the_nearest_known_key():
    assert warnings(MEMORY + "http: {adr: ':1', zzz: 1}\nstorag: x\n") == (
        "http.adr: unknown key, ignored; did you mean addr? (f line 3)",
        "http.zzz: unknown key, ignored (f line 3)",
        "storag: unknown key, ignored; did you mean storage? (f line 4)",
    )
    assert warnings("version: 0.1\nstorage: {inmemory: , delte: {enabled: true}}\n") == (
        "storage.delte: unknown key, ignored; did you mean delete? (f line 2)",
    )


def test_faults_and_warnings_are_reported_together():
    error = config_error(MEMORY + "http: {adr: ':1', net: udp}\n")
    assert [line.partition(":")[0] for line in error.lines()] == ["warning", "http.net"]


def test_a_key_without_a_value_is_absent():
    text = (
        "version: 0.1\nstorage: {inmemory: , cache: , delete: {enabled: }}\nhttp:\nredis:\nauth:\n"
    )
    result = load_text(text, {}, "f")
    assert result.warnings == ()
    assert result.configuration == load_text(MEMORY, {}, "f").configuration


def test_values_are_converted():
    configuration = load_text(
        MEMORY
        + """
http:
  draintimeout: 5000000000
  host: https://registry.example/base/
  headers: {Access-Control-Allow-Origin: ['*', 'b']}
  limits: {headerbytes: 32KiB, bodytimeout: 2m}
catalog: {maxentries: -5}
tags: {maxtags: 0}
validation:
  manifests:
    urls: {allow: ['^https://a/'], deny: [b]}
    indexes: {platforms: LIST, platformlist: [{architecture: amd64, os: linux}]}
log: {level: WARN, formatter: json, fields: {service: x, n: 1}}
""",
        {},
    ).configuration
    assert configuration.http.draintimeout == 5.0
    assert configuration.http.host == "https://registry.example/base"
    assert configuration.http.headers == {"Access-Control-Allow-Origin": ("*", "b")}
    assert configuration.http.limits.headerbytes == 32768
    assert configuration.http.limits.bodytimeout == 120.0
    assert configuration.catalog.maxentries == 1000
    assert configuration.tags.maxtags == 1000
    (allow,) = configuration.validation.manifests.urls.allow
    assert allow.is_found_in("https://a/b")
    indexes = configuration.validation.manifests.indexes
    assert (indexes.platforms, indexes.platformlist[0].os) == ("list", "linux")
    assert (configuration.log.level, configuration.log.fields) == ("warn", {"service": "x", "n": 1})


@pytest.mark.parametrize(
    ("value", "threads"), [("5", 25), ("-1", 25), ("26", 26), ("'0x40'", 64), ("", 100)]
)
def test_maxthreads_is_at_least_25(value: str, threads: int):
    text = f"version: 0.1\nstorage:\n  filesystem:\n    maxthreads: {value}\n"
    filesystem = load_text(text, {}).configuration.storage.filesystem
    assert filesystem is not None
    assert filesystem.maxthreads == threads
    assert filesystem.rootdirectory == "/var/lib/registry"


@pytest.mark.parametrize("name", ["filesystem", "inmemory"])
def test_a_driver_can_be_a_bare_name(name: str):
    for text in (f"storage: {name}", f"storage:\n  {name}:", f"storage: {{{name}: {{}}}}"):
        assert load_text(f"version: 0.1\n{text}\n", {}).configuration.storage.drivers == (name,)


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yml")), ids=lambda path: path.name)
def test_the_examples_load_without_warnings(path: Path):
    result = load(str(path), {})
    assert (result.warnings, result.notices) == ((), ())


def test_the_examples_exist():
    assert {path.name for path in CONF.glob("*.yml")} >= {"registry.yml", "memory.yml"}


def test_a_fault_is_one_line():
    assert (
        str(Fault("a\nb", "got 'x'", "y", "f line 1")) == "'a\\nb': got 'x', expected y (f line 1)"
    )
    assert quote_value("a\nb\u2028") == "'a\\nb\\u2028'"
    assert len(quote_value("x" * 1000)) < 100


@pytest.mark.parametrize(
    "url",
    ["https://user:hunter2@a/b", "https://hunter2@a", "x //u:hunter2@hunter2@a", "//:hunter2@"],
)
def test_user_names_and_passwords_in_urls_are_masked(url: str):
    assert "hunter2" not in mask_url(url)
    assert mask_url("https://a.example/b@c") == "https://a.example/b@c"
    assert mask_url("'https://a.example/b?c=hunter2&d', 1") == f"'https://a.example/b?{MASK}', 1"


@pytest.mark.parametrize("name", ["registry", "maintenance", "access", "tls", "s3"])
def test_a_mapping_is_the_same_configuration_as_its_yaml(name: str):
    text = (CONF / f"{name}.yml").read_text()
    loaded = load_mapping(yaml.safe_load(text), {})
    assert loaded.configuration == load_text(text, {}).configuration
    assert loaded.source == "configuration, given as a mapping"


def test_a_fault_of_a_mapping_names_no_line():
    data = {"version": 0.1, "storage": {"inmemory": {}}, "http": {"draintimeout": Path("soon")}}
    with pytest.raises(ConfigurationError) as caught:
        load_mapping(data, {}, "mine")
    (line,) = caught.value.lines()
    assert line.startswith("http.draintimeout: got 'soon', expected")
    assert line.endswith("(mine)")


def test_what_json_does_not_have_is_text_in_a_mapping(tmp_path: Path):
    data = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": tmp_path}}}
    filesystem = load_mapping(data, {}).configuration.storage.filesystem
    assert filesystem is not None
    assert filesystem.rootdirectory == str(tmp_path)


def test_a_huge_number_of_a_mapping_is_a_fault():
    data = {"version": 0.1, "storage": {"inmemory": {}}, "http": {"workers": 2**70}}
    with pytest.raises(ConfigurationError, match=r"http\.workers"):
        load_mapping(data, {})
