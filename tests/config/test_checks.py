"""Checks that concern several keys, and sections that are not served."""

from __future__ import annotations

import pytest

from tests.config.config_loading import FILESYSTEM, MEMORY, config_error, fault_lines, load_config
from twisted_registry.config.access import ALGORITHMS
from twisted_registry.oci.patterns import TAG_GLOB_SYNTAX


def storage(text: str) -> str:
    return f"version: 0.1\nstorage: {{inmemory: , {text}}}\n"


@pytest.mark.parametrize(
    "text", ["{}", "", "{delete: {enabled: true}}", "{flesystem: {}}", "magic"]
)
def test_there_must_be_a_driver(text: str):
    (line,) = fault_lines(f"version: 0.1\nstorage: {text}\n")
    assert line.startswith("storage: got no driver, expected filesystem, inmemory, plugin or s3 (f")


def test_there_must_be_one_driver():
    assert fault_lines("version: 0.1\nstorage: {filesystem: , inmemory: , s3: }\n")[0] == (
        "storage: got filesystem, inmemory, s3, expected exactly one driver (f line 2)"
    )


@pytest.mark.parametrize("name", ["azure", "gcs", "swift", "oss"])
def test_other_drivers_of_distribution_are_rejected(name: str):
    for text in (f"storage: {name}", f"storage: {{{name}: {{bucket: b}}}}"):
        assert fault_lines(f"version: 0.1\n{text}\n") == [
            (
                f"storage.{name}: this driver is not served, expected filesystem, inmemory, plugin"
                f" or s3 (f line 2)"
            )
        ]


def test_unknown_options_of_a_rejected_driver_add_warnings():
    error = config_error(
        "version: 0.1\nstorage: {swift: {usernam: b}, gcs: {credentials: {typ: a}}}\n"
    )
    assert [line.split(": ")[0] for line in error.warnings] == [
        "storage.swift.usernam", "storage.gcs.credentials.typ",
    ]  # fmt: skip
    assert fault_lines("version: 0.1\nstorage: {gcs: hunter2}\n")[0] == (
        "storage.gcs: got a single value, expected a section (f line 2)"
    )


@pytest.mark.parametrize("auth", ["none", "None", "{none: }", "{none: {}}", "{}", ""])
def test_auth_may_be_none(auth: str):
    assert load_config(MEMORY + f"auth: {auth}\n").warnings == ()


ANY_OF = f"{', '.join(ALGORITHMS[:-1])} or {ALGORITHMS[-1]}"
TOKEN = "realm: r, service: s, issuer: i"


def test_the_options_of_a_token_server():
    token = load_config(
        MEMORY + f"auth: {{token: {{{TOKEN}, jwks: /j}}}}\n"
    ).configuration.auth.token
    assert (token.realm, token.service, token.issuer, token.jwks) == ("r", "s", "i", "/j")
    assert (token.autoredirect, token.autoredirectpath) == (False, "/auth/token")
    assert token.signingalgorithms == ALGORITHMS
    some = f"auth: {{token: {{{TOKEN}, rootcertbundle: /b, signingalgorithms: [ES256]}}}}\n"
    assert load_config(MEMORY + some).configuration.auth.token.signingalgorithms == ("ES256",)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("realm: r, service: s, jwks: /j", "auth.token.issuer: this key is required (f line 3)"),
        (TOKEN, "auth.token: got no keys, expected rootcertbundle, jwks, or both (f line 3)"),
        (f"{TOKEN}, jwks: /j, autoredirectpath: auth",
         "auth.token.autoredirectpath: got 'auth', expected a path that begins with / (f line 3)"),
        (f"{TOKEN}, jwks: /j, signingalgorithms: [none]",
         f"auth.token.signingalgorithms[0]: got 'none', expected {ANY_OF} (f line 3)"),
    ],
)  # fmt: skip
def test_a_token_server_needs_issuer_and_keys(text: str, line: str):
    assert fault_lines(MEMORY + f"auth: {{token: {{{text}}}}}\n") == [line]


def test_htpasswd_needs_a_path():
    auth = load_config(MEMORY + "auth: {htpasswd: {realm: r, path: /p}}\n").configuration.auth
    assert (auth.htpasswd.realm, auth.htpasswd.path, auth.is_enabled) == ("r", "/p", True)
    assert fault_lines(MEMORY + "auth: {htpasswd: {realm: r, path: ''}}\n") == [
        "auth.htpasswd.path: got '', expected a path (f line 3)"
    ]


def test_only_one_kind_of_authentication_is_allowed():
    two = "auth: {htpasswd: {realm: r, path: /p}, silly: {realm: r, service: s}}\n"
    assert fault_lines(MEMORY + two) == [
        "auth: got silly, htpasswd, expected one of them (f line 3)"
    ]


def test_silly_needs_realm_and_service():
    auth = load_config(MEMORY + "auth: {silly: {realm: r, service: s}}\n").configuration.auth
    assert (auth.silly.realm, auth.silly.service, auth.is_enabled) == ("r", "s", True)
    assert fault_lines(MEMORY + "auth: silly\n") == [
        f"auth.silly.{name}: this key is required (f line 3)" for name in ("realm", "service")
    ]


@pytest.mark.parametrize("auth", ["htpaswd", "{htpaswd: {realm: a}}", "{none: , 'x\ty': 1}"])
def test_an_unknown_kind_of_authentication_is_rejected(auth: str):
    (line,) = fault_lines(MEMORY + f"auth: {auth}\n")
    assert ": unknown key, expected one of none, silly, htpasswd, token, plugin" in line


def test_a_pull_through_cache_is_rejected():
    (line,) = fault_lines(MEMORY + "proxy: {remoteurl: 'https://u:hunter2@a', password: hunter2}\n")
    assert line.startswith("proxy.remoteurl: a pull-through cache is not served yet")
    assert "hunter2" not in line
    assert load_config(MEMORY + "proxy: {ttl: 1h}\n").configuration.proxy.ttl == 3600


@pytest.mark.parametrize("sort", ["registry", "repository"])
def test_other_middleware_is_rejected_unless_disabled(sort: str):
    entry = "{name: redirect, options: {baseurl: 'https://a'}"
    assert fault_lines(MEMORY + f"middleware: {{{sort}: [{entry}}}]}}\n") == [
        (
            f"middleware.{sort}[0]: {sort} middleware is not served; remove it, or set its"
            f" disabled to true (f line 3)"
        )
    ]
    assert (
        load_config(MEMORY + f"middleware: {{{sort}: [{entry}, disabled: true}}]}}\n").warnings
        == ()
    )


def test_a_mail_hook_without_a_level_adds_a_warning():
    hook = "{options: {smtp: {addr: 'mail:25'}, from: a@b, to: [c@d]}}"
    (warning,) = load_config(MEMORY + f"log: {{hooks: [{hook}]}}\n").warnings
    assert warning == "log.hooks[0].levels: names no level, so no mail is sent"


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ("{}", "smtp.addr: missing, expected HOST:PORT of a mail server"),
        ("{smtp: {addr: mail}}", "smtp.addr: got 'mail', expected HOST:PORT"),
        ("{smtp: {addr: ':25'}}", "smtp.addr: got ':25', expected HOST:PORT"),
        ("{smtp: {addr: 'a:25'}, to: [a@b]}", "from: missing, expected the address of the sender"),
        ("{smtp: {addr: 'a:25'}, from: a@b}", "to: missing, expected a list of addresses"),
    ],
)
def test_a_mail_hook_that_cannot_send_is_a_fault(options: str, fault: str):
    text = f"log: {{hooks: [{{levels: [error], options: {options}}}]}}\n"
    assert any(f"log.hooks[0].options.{fault}" in line for line in fault_lines(MEMORY + text))


@pytest.mark.parametrize(
    "text",
    [
        "notifications: {endpoints: [{disabled: true}], events: {includereferences: true}}",
        "notifications: {endpoints: [{name: a, url: 'http://a'}]}",
        "log: {hooks: [{type: mail, disabled: true}]}",
        "http: {debug: {prometheus: {enabled: true}}}",
    ],
)
def test_disabled_sections_add_no_warning(text: str):
    assert load_config(MEMORY + text + "\n").warnings == ()


def test_a_fault_of_a_secret_value_is_masked():
    text = '{name: a, url: "http://a", headers: {Authorization: ["hunter2\\n"]}}'
    assert fault_lines(MEMORY + f"notifications: {{endpoints: [{text}]}}\n") == [
        (
            "notifications.endpoints[0].headers.Authorization[0]: got ******, expected a header"
            " value on one line (f line 3)"
        )
    ]


def test_required_keys_are_reported():
    assert fault_lines(MEMORY + "notifications: {endpoints: [{name: a}]}\n") == [
        "notifications.endpoints[0].url: this key is required (f line 3)"
    ]


def test_endpoints_have_different_names():
    one = "{name: a, url: 'http://a'}"
    text = f"notifications: {{endpoints: [{one}, {one}, {{name: a, disabled: true}}]}}\n"
    assert fault_lines(MEMORY + text) == [
        (
            "notifications.endpoints[1].name: another endpoint has this name, expected a name of"
            " its own (f line 3)"
        )
    ]


IN_MEMORY = (
    "notifications.queue.path: not set: events that wait are in memory, and are lost when the"
    " registry ends"
)


@pytest.mark.parametrize(
    ("queue", "warnings"), [("", (IN_MEMORY,)), (", queue: {path: /q}", ())], ids=["none", "path"]
)
def test_events_of_a_bucket_need_a_path_to_survive(queue: str, warnings: tuple[str, ...]):
    text = (
        "version: 0.1\nstorage: {s3: {bucket: b, region: us-east-1}}\n"
        f"notifications: {{endpoints: [{{name: a, url: 'http://a'}}]{queue}}}\n"
    )
    assert load_config(text).warnings == warnings


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "format: v2",
            "format: got 'v2', expected distribution, distribution-v1 or cloudevents (f line 3)",
        ),
        ("name: ''", "name: got '', expected text that is not empty (f line 3)"),
        (
            "ignore: {actions: [pusch]}",
            "ignore.actions[0]: got 'pusch', expected pull, push, mount or delete (f line 3)",
        ),
    ],
)
def test_a_wrong_endpoint(text: str, line: str):
    given = {"name": "a", **dict([text.split(": ", 1)])}
    keys = ", ".join(f"{name}: {value}" for name, value in given.items())
    endpoints = f"notifications: {{endpoints: [{{url: 'http://a', {keys}}}]}}\n"
    assert fault_lines(MEMORY + endpoints) == [f"notifications.endpoints[0].{line}"]


def test_upload_purging_needs_all_keys_unless_disabled():
    full = "maintenance: {uploadpurging: {enabled: true, age: 24h, interval: 1h, dryrun: true}}"
    result = load_config(storage(full))
    assert result.warnings == ()
    purging = result.configuration.storage.maintenance.uploadpurging
    assert purging is not None
    assert (purging.age, purging.interval, purging.dryrun) == (86400, 3600, True)
    assert load_config(storage("maintenance: {uploadpurging: {enabled: false}}")).warnings == ()
    assert load_config(storage("maintenance: {readonly: {enabled: true}}")).warnings == ()
    assert fault_lines(storage("maintenance: {uploadpurging: {age: 168h, interval: }}")) == [
        "storage.maintenance.uploadpurging.interval: this key is required (f line 2)",
        "storage.maintenance.uploadpurging.dryrun: this key is required (f line 2)",
    ]
    assert fault_lines(
        storage("maintenance: {uploadpurging: {age: 5, interval: 1h, dryrun: 'no'}}")
    ) == [
        (
            "storage.maintenance.uploadpurging.age: got '5', expected a duration with a unit,"
            " such as 168h (f line 2)"
        ),
        "storage.maintenance.uploadpurging.dryrun: got 'no', expected true or false (f line 2)",
    ]


def test_the_descriptor_cache_is_inmemory_or_redis():
    assert (
        load_config(storage("cache: {blobdescriptor: inmemory, blobdescriptorsize: 0}")).warnings
        == ()
    )
    assert load_config(storage("cache: {layerinfo: inmemory}")).warnings == ()
    assert load_config(storage("cache: {blobdescriptor: disk}")).warnings == (
        "storage.cache.blobdescriptor: got 'disk', expected inmemory or redis; no cache is used",
    )
    assert fault_lines(storage("cache: {blobdescriptor: redis}")) == [
        (
            "storage.cache.blobdescriptor: got 'redis', expected a redis section in the file"
            " as well (f line 2)"
        )
    ]


def test_an_address_must_match_its_network():
    line = fault_lines(MEMORY + "http: {addr: /run/registry.sock}\n")[0]
    assert line.startswith("http.addr: got '/run/registry.sock', expected HOST:PORT")
    assert line.endswith("set http.net to unix to listen on a path (f line 3)")
    http = load_config(MEMORY + "http: {addr: /run/registry.sock, net: unix}\n").configuration.http
    assert http.address.path == "/run/registry.sock"
    assert load_config(MEMORY).configuration.http.address.port == 5000
    assert "expected HOST:PORT" in fault_lines(MEMORY + "http: {addr: ':70000'}\n")[0]
    assert fault_lines(MEMORY + "http: {net: unix}\n") == [
        "http.addr: not set, expected the path of a socket, as http.net is unix (f line 3)"
    ]


@pytest.mark.parametrize(
    ("debug", "is_fault"),
    [
        (":5001", True), ("localhost:5001", True), ("[::1]:5001", True), ("tcp:5001", True),
        (":5002", False), ("unix:/run/debug.sock", False),
    ],
)  # fmt: skip
def test_the_debug_address_is_another_one(debug, is_fault):
    text = MEMORY + f"http: {{addr: ':5001', debug: {{addr: '{debug}'}}}}\n"
    fault = f"http.debug.addr: got '{debug}', expected another port than that of http.addr"
    assert (fault_lines(text) if is_fault else load_config(text).warnings) == (
        [f"{fault} (f line 3)"] if is_fault else ()
    )


def test_one_port_of_two_interfaces_is_no_fault():
    text = MEMORY + "http: {addr: '10.0.0.1:5001', debug: {addr: '127.0.0.1:5001'}}\n"
    assert load_config(text).warnings == ()
    load_config(MEMORY + "http: {addr: ':0', debug: {addr: ':0'}}\n")


@pytest.mark.parametrize("text", ["h2c: {enabled: true}", "http2: {disabled: true}",
                                  "http2: {disabled: false}, h2c: {enabled: false}"])  # fmt: skip
def test_http2_adds_one_notice(text: str):
    result = load_config(MEMORY + f"http: {{{text}}}\n")
    assert result.warnings == ()
    assert result.notices == ("http: HTTP/2 is not served; http2 and h2c have no effect",)


@pytest.mark.parametrize(
    "text",
    ["reporting: {bugsnag: {apikey: hunter2}}", "compatibility: {schema1: {enabled: true}}",
     "validation: {enabled: true}"],
)  # fmt: skip
def test_keys_removed_from_distribution_add_a_notice(text: str):
    result = load_config(MEMORY + text + "\n")
    assert result.warnings == ()
    assert len(result.notices) == 1
    assert "hunter2" not in repr(result)


def test_workers_auto_is_the_number_of_cpus(monkeypatch):
    assert load_config(FILESYSTEM).configuration.http.workers == 1
    assert load_config(FILESYSTEM + "http: {workers: 3}\n").configuration.http.workers == 3
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(6))
    assert load_config(FILESYSTEM + "http: {workers: auto}\n").configuration.http.workers == 6
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(600))
    assert load_config(FILESYSTEM + "http: {workers: auto}\n").configuration.http.workers == 64


@pytest.mark.parametrize("workers", ["0", "-1", "65", "2.5", "many", "'2'", "true", "[2]"])
def test_workers_must_be_a_number_or_auto(workers: str):
    (line,) = fault_lines(FILESYSTEM + f"http: {{workers: {workers}}}\n")
    assert line.startswith("http.workers: got ")
    assert "expected an integer from 1 to 64, or auto" in line


def test_several_workers_need_a_shareable_store_and_socket():
    assert fault_lines(MEMORY + "http: {workers: 2}\n") == [
        (
            "http.workers: got 2, expected 1 with storage.inmemory, which processes cannot share"
            " (f line 3)"
        )
    ]
    for addr in ("ssl:5000:privateKey=k", "haproxy:tcp:5000"):
        (line,) = fault_lines(FILESYSTEM + f"http: {{workers: 2, addr: '{addr}'}}\n")
        assert line.startswith(f"http.workers: got 2, expected 1 with http.addr '{addr}'")
    for addr in ("'[::1]:5000'", "':5000'", "'unix:/x'", "'systemd:domain=INET:index=0'"):
        assert load_config(FILESYSTEM + f"http: {{workers: 2, addr: {addr}}}\n").warnings == ()
    assert load_config(MEMORY + "http: {workers: 1, addr: 'haproxy:tcp:5000'}\n").warnings == ()


def test_retention_rules_must_keep_something():
    below = "version: 0.1\nstorage: {inmemory: , maintenance: {retention: %s}}\n"
    place = "storage.maintenance.retention"
    assert fault_lines(below % "{rules: [{repositories: ['a'], tags: ['v*']}]}") == [
        (
            f"{place}.rules[0]: keeps nothing, expected newest, pushedwithin, pulledwithin or"
            f" always (f line 2)"
        )
    ]
    assert fault_lines(below % "{enabled: true}") == [
        f"{place}.enabled: got true without rules, expected at least one rule (f line 2)"
    ]
    (line,) = fault_lines(below % "{immutable: [{repositories: ['a'], tags: ['a/b']}]}")
    assert line.startswith(f"{place}.immutable[0].tags[0]: got 'a/b', expected {TAG_GLOB_SYNTAX}")
    (line,) = fault_lines(below % "{rules: [{repositories: ['A'], newest: 1}]}")
    assert line.startswith(f"{place}.rules[0].repositories[0]: got 'A'")


REDIS = "version: 0.1\nstorage: {inmemory: , cache: {blobdescriptor: redis%s}}\nredis: {%s}\n"


def test_redis_ignores_the_size_of_the_memory_cache():
    assert load_config(REDIS % ("", "addr: 'a:1'")).warnings == ()
    (warning,) = load_config(REDIS % (", blobdescriptorsize: 5", "addrs: ['a:1']")).warnings
    assert warning.startswith("storage.cache.blobdescriptorsize: has no effect with redis")


@pytest.mark.parametrize(
    ("redis", "fault"),
    [
        ("db: 1", "redis.addr: not set, expected HOST:PORT (f line 3)"),
        ("addrs: ['a:1', 'b:1']", "redis.addrs: got 2 servers, expected one; a cluster cannot be"),
        (
            "addr: 'a:1,b:1'",
            "redis.addr: got 'a:1,b:1', expected HOST:PORT of one server (f line 3)",
        ),
        (
            "addr: 'redis://a:1'",
            "redis.addr: got 'redis://a:1', expected HOST:PORT of one server (f line 3)",
        ),
        ("addrs: ['a:1, b:1']", "redis.addrs[0]: got 'a:1, b:1', expected HOST:PORT of one server"),
        ("addr: 'a:1', mastername: m", "redis.mastername: sentinels cannot be used; name the"),
        ("addr: 'a:1', sentinelusername: m", "redis.sentinelusername: sentinels cannot be used"),
        ("addr: 'a:1', sentinelpassword: m", "redis.sentinelpassword: sentinels cannot be used"),
    ],
)
def test_redis_must_be_one_server(redis: str, fault: str):
    (line,) = fault_lines(REDIS % ("", redis))
    assert line.startswith(fault)


def test_watermarks_are_percentages_in_order():
    below = "version: 0.1\nstorage: {filesystem: , maintenance: {watermark: %s}}\n"
    place = "storage.maintenance.watermark"
    marks = load_config(
        below % "{warn: 85%, refuse: 97.5 %}"
    ).configuration.storage.maintenance.watermark
    assert (marks.warn, marks.refuse) == (0.85, 0.975)
    for wrong in ("85", "0%", "101%", "-3%", "1e1%", "%"):
        (line,) = fault_lines(below % f"{{warn: {wrong!r}}}")
        assert line.startswith(f"{place}.warn: got '{wrong}', expected a percentage"), line
    assert fault_lines(below % "{warn: 95%, refuse: 90%}") == [
        f"{place}.warn: got 95%, expected at most the value of refuse, 90% (f line 2)"
    ]
    memory = below.replace("filesystem", "inmemory") % "{warn: 85%}"
    assert load_config(memory).warnings == (f"{place}: has no effect without storage.filesystem",)
