from __future__ import annotations

import pytest

from twisted_registry.config.access import ALGORITHMS
from twisted_registry.config.document import ConfigurationError
from twisted_registry.config.loading import LoadedConfiguration, load_text

BASE = "version: 0.1\nstorage: inmemory\n"


def loaded(text: str) -> LoadedConfiguration:
    return load_text(text, {}, "f")


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        loaded(text)
    return [str(fault) for fault in caught.value.faults]


def storage(text: str) -> str:
    return f"version: 0.1\nstorage: {{inmemory: , {text}}}\n"


@pytest.mark.parametrize(
    "text", ["{}", "", "{delete: {enabled: true}}", "{flesystem: {}}", "magic"]
)
def test_there_must_be_a_driver(text: str):
    assert faults(f"version: 0.1\nstorage: {text}\n") == [
        "storage: no storage driver is configured; known are filesystem, inmemory and s3"
    ]


def test_there_must_be_one_driver():
    assert faults("version: 0.1\nstorage: {filesystem: , inmemory: , s3: }\n")[0] == (
        "storage: got filesystem, inmemory, s3, expected exactly one driver"
    )


@pytest.mark.parametrize("name", ["azure", "gcs", "swift", "oss"])
def test_other_drivers_of_distribution_are_refused(name: str):
    for text in (f"storage: {name}", f"storage: {{{name}: {{bucket: b}}}}"):
        assert faults(f"version: 0.1\n{text}\n") == [
            f"storage.{name}: this driver is not served; filesystem, inmemory and s3 are"
        ]


def test_options_of_a_refused_driver_are_looked_at_too():
    with pytest.raises(ConfigurationError) as caught:
        loaded("version: 0.1\nstorage: {swift: {usernam: b}, gcs: {credentials: {typ: a}}}\n")
    assert [line.split(": ")[0] for line in caught.value.warnings] == [
        "storage.swift.usernam", "storage.gcs.credentials.typ",
    ]  # fmt: skip
    assert faults("version: 0.1\nstorage: {gcs: hunter2}\n")[0] == (
        "storage.gcs: got a single value, expected a section (f line 2)"
    )


@pytest.mark.parametrize("auth", ["none", "None", "{none: }", "{none: {}}", "{}", ""])
def test_auth_may_be_none(auth: str):
    assert loaded(BASE + f"auth: {auth}\n").warnings == ()


ANY_OF = f"{', '.join(ALGORITHMS[:-1])} or {ALGORITHMS[-1]}"
TOKEN = "realm: r, service: s, issuer: i"


def test_tokens():
    said = loaded(BASE + f"auth: {{token: {{{TOKEN}, jwks: /j}}}}\n").configuration.auth.token
    assert (said.realm, said.service, said.issuer, said.jwks) == ("r", "s", "i", "/j")
    assert (said.autoredirect, said.autoredirectpath) == (False, "/auth/token")
    assert said.signingalgorithms == ALGORITHMS
    some = f"auth: {{token: {{{TOKEN}, rootcertbundle: /b, signingalgorithms: [ES256]}}}}\n"
    assert loaded(BASE + some).configuration.auth.token.signingalgorithms == ("ES256",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("realm: r, service: s, jwks: /j", "auth.token.issuer: the key is required (f line 3)"),
        (TOKEN, "auth.token: got no keys, expected rootcertbundle, jwks, or both"),
        (f"{TOKEN}, jwks: /j, autoredirectpath: auth",
         "auth.token.autoredirectpath: got 'auth', expected a path that begins with / (f line 3)"),
        (f"{TOKEN}, jwks: /j, signingalgorithms: [none]",
         f"auth.token.signingalgorithms[0]: got 'none', expected {ANY_OF} (f line 3)"),
    ],
)  # fmt: skip
def test_what_tokens_need(text: str, said: str):
    assert faults(BASE + f"auth: {{token: {{{text}}}}}\n") == [said]


def test_a_file_of_users():
    said = loaded(BASE + "auth: {htpasswd: {realm: r, path: /p}}\n").configuration.auth
    assert (said.htpasswd.realm, said.htpasswd.path, said.is_enabled) == ("r", "/p", True)
    assert faults(BASE + "auth: {htpasswd: {realm: r, path: ''}}\n") == [
        "auth.htpasswd.path: got '', expected a path (f line 3)"
    ]


def test_there_is_one_way_to_be_asked():
    two = "auth: {htpasswd: {realm: r, path: /p}, silly: {realm: r, service: s}}\n"
    assert faults(BASE + two) == ["auth: got silly, htpasswd, expected one of them"]


def test_silly_needs_what_its_challenge_says():
    said = loaded(BASE + "auth: {silly: {realm: r, service: s}}\n").configuration.auth
    assert (said.silly.realm, said.silly.service, said.is_enabled) == ("r", "s", True)
    assert faults(BASE + "auth: silly\n") == [
        f"auth.silly.{name}: the key is required (f line 3)" for name in ("realm", "service")
    ]


@pytest.mark.parametrize("auth", ["htpaswd", "{htpaswd: {realm: a}}", "{none: , 'x\ty': 1}"])
def test_an_unknown_access_control_is_refused(auth: str):
    (said,) = faults(BASE + f"auth: {auth}\n")
    assert ": unknown; known are none, silly, htpasswd, token (f line 3)" in said


def test_an_upstream_is_refused():
    (said,) = faults(BASE + "proxy: {remoteurl: 'https://u:hunter2@a', password: hunter2}\n")
    assert said.startswith("proxy.remoteurl: pulling through")
    assert "hunter2" not in said
    assert loaded(BASE + "proxy: {ttl: 1h}\n").configuration.proxy.ttl == 3600


@pytest.mark.parametrize("sort", ["registry", "repository"])
def test_other_middleware_is_refused_unless_disabled(sort: str):
    entry = "{name: redirect, options: {baseurl: 'https://a'}"
    assert faults(BASE + f"middleware: {{{sort}: [{entry}}}]}}\n") == [
        f"middleware.{sort}[0]: this is not served; remove it, or set its disabled to true"
    ]
    assert loaded(BASE + f"middleware: {{{sort}: [{entry}, disabled: true}}]}}\n").warnings == ()


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("notifications: {endpoints: [{name: a, url: 'http://a'}]}", "notifications"),
        ("health: {storagedriver: {enabled: true}}", "health"),
        ("log: {hooks: [{type: mail, levels: [panic]}]}", "log.hooks"),
    ],
)
def test_what_only_watches_or_speeds_up_is_warned_of(text: str, path: str):
    assert loaded(BASE + text + "\n").warnings == (
        f"{path}: is not served yet, the registry goes on without it",
    )


@pytest.mark.parametrize(
    "text",
    [
        "notifications: {endpoints: [{disabled: true}], events: {includereferences: true}}",
        "log: {hooks: [{type: mail, disabled: true}]}",
        "http: {debug: {prometheus: {enabled: true}}}",
    ],
)
def test_what_is_switched_off_is_not_warned_of(text: str):
    assert loaded(BASE + text + "\n").warnings == ()


def test_a_fault_of_a_secret_value_is_masked():
    text = '{name: a, url: "http://a", headers: {Authorization: ["hunter2\\n"]}}'
    assert faults(BASE + f"notifications: {{endpoints: [{text}]}}\n") == [
        (
            "notifications.endpoints[0].headers.Authorization[0]: got ******, expected a header"
            " value on one line (f line 3)"
        )
    ]


def test_required_keys():
    assert faults(BASE + "notifications: {endpoints: [{name: a}]}\n") == [
        "notifications.endpoints[0].url: the key is required (f line 3)"
    ]


def test_upload_purging_has_all_keys_or_says_that_it_is_off():
    full = "maintenance: {uploadpurging: {enabled: true, age: 24h, interval: 1h, dryrun: true}}"
    result = loaded(storage(full))
    assert result.warnings == ()
    purging = result.configuration.storage.maintenance.uploadpurging
    assert purging is not None
    assert (purging.age, purging.interval, purging.dryrun) == (86400, 3600, True)
    assert loaded(storage("maintenance: {uploadpurging: {enabled: false}}")).warnings == ()
    assert loaded(storage("maintenance: {readonly: {enabled: true}}")).warnings == ()
    assert faults(storage("maintenance: {uploadpurging: {age: 168h, interval: }}")) == [
        "storage.maintenance.uploadpurging.interval: the key is required (f line 2)",
        "storage.maintenance.uploadpurging.dryrun: the key is required (f line 2)",
    ]
    assert faults(
        storage("maintenance: {uploadpurging: {age: 5, interval: 1h, dryrun: 'no'}}")
    ) == [
        "storage.maintenance.uploadpurging.age: got '5', expected text such as 168h (f line 2)",
        "storage.maintenance.uploadpurging.dryrun: got 'no', expected true or false (f line 2)",
    ]


def test_the_cache_of_descriptors():
    assert (
        loaded(storage("cache: {blobdescriptor: inmemory, blobdescriptorsize: 0}")).warnings == ()
    )
    assert loaded(storage("cache: {layerinfo: inmemory}")).warnings == ()
    assert loaded(storage("cache: {blobdescriptor: disk}")).warnings == (
        "storage.cache.blobdescriptor: 'disk' is unknown, no cache is used",
    )
    assert faults(storage("cache: {blobdescriptor: redis}")) == [
        "storage.cache.blobdescriptor: got 'redis', expected a redis section beside it"
    ]


def test_addresses_are_checked_with_the_network():
    said = faults(BASE + "http: {addr: /run/registry.sock}\n")[0]
    assert said.startswith("http.addr: got '/run/registry.sock', expected HOST:PORT")
    assert said.endswith("set http.net to unix to listen on a path")
    http = loaded(BASE + "http: {addr: /run/registry.sock, net: unix}\n").configuration.http
    assert http.address.path == "/run/registry.sock"
    assert loaded(BASE).configuration.http.address.port == 5000
    assert "expected HOST:PORT" in faults(BASE + "http: {addr: ':70000'}\n")[0]


@pytest.mark.parametrize("text", ["h2c: {enabled: true}", "http2: {disabled: true}",
                                  "http2: {disabled: false}, h2c: {enabled: false}"])  # fmt: skip
def test_http2_is_said_once(text: str):
    result = loaded(BASE + f"http: {{{text}}}\n")
    assert result.warnings == ()
    assert result.notices == ("http: HTTP/2 is not served; http2 and h2c have no effect",)


@pytest.mark.parametrize(
    "text",
    ["reporting: {bugsnag: {apikey: hunter2}}", "compatibility: {schema1: {enabled: true}}",
     "validation: {enabled: true}"],
)  # fmt: skip
def test_what_distribution_dropped_is_a_notice(text: str):
    result = loaded(BASE + text + "\n")
    assert result.warnings == ()
    assert len(result.notices) == 1
    assert "hunter2" not in repr(result)


SHARED = "version: 0.1\nstorage: filesystem\n"


def test_how_many_processes(monkeypatch):
    assert loaded(SHARED).configuration.http.workers == 1
    assert loaded(SHARED + "http: {workers: 3}\n").configuration.http.workers == 3
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(6))
    assert loaded(SHARED + "http: {workers: auto}\n").configuration.http.workers == 6
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(600))
    assert loaded(SHARED + "http: {workers: auto}\n").configuration.http.workers == 64


@pytest.mark.parametrize("said", ["0", "-1", "65", "2.5", "many", "'2'", "true", "[2]"])
def test_processes_are_a_number(said: str):
    (line,) = faults(SHARED + f"http: {{workers: {said}}}\n")
    assert line.startswith("http.workers: got ")
    assert "expected a whole number from 1 to 64, or auto" in line


def test_processes_share_a_store_and_a_socket():
    assert faults(BASE + "http: {workers: 2}\n") == [
        "http.workers: got 2, expected 1 with storage.inmemory, which processes can not share"
    ]
    for addr in ("ssl:5000:privateKey=k", "haproxy:tcp:5000"):
        (line,) = faults(SHARED + f"http: {{workers: 2, addr: '{addr}'}}\n")
        assert line.startswith(f"http.workers: got 2, expected 1 with http.addr '{addr}'")
    for addr in ("'[::1]:5000'", "':5000'", "'unix:/x'", "'systemd:domain=INET:index=0'"):
        assert loaded(SHARED + f"http: {{workers: 2, addr: {addr}}}\n").warnings == ()
    assert loaded(BASE + "http: {workers: 1, addr: 'haproxy:tcp:5000'}\n").warnings == ()


def test_rules_of_retention():
    below = "version: 0.1\nstorage: {inmemory: , maintenance: {retention: %s}}\n"
    place = "storage.maintenance.retention"
    assert faults(below % "{rules: [{repositories: ['a'], tags: ['v*']}]}") == [
        f"{place}.rules[0]: keeps nothing, expected newest, pushedwithin, pulledwithin or always"
    ]
    assert faults(below % "{enabled: true}") == [
        f"{place}.enabled: got true, expected rules beside it"
    ]
    (said,) = faults(below % "{immutable: [{repositories: ['a'], tags: ['a/b']}]}")
    assert said.startswith(f"{place}.immutable[0].tags[0]: got 'a/b', expected a tag, in which *")
    (said,) = faults(below % "{rules: [{repositories: ['A'], newest: 1}]}")
    assert said.startswith(f"{place}.rules[0].repositories[0]: got 'A'")


REDIS = "version: 0.1\nstorage: {inmemory: , cache: {blobdescriptor: redis%s}}\nredis: {%s}\n"


def test_redis_remembers_descriptors():
    assert loaded(REDIS % ("", "addr: 'a:1'")).warnings == ()
    (warning,) = loaded(REDIS % (", blobdescriptorsize: 5", "addrs: ['a:1']")).warnings
    assert warning.startswith("storage.cache.blobdescriptorsize: has no effect with redis")


@pytest.mark.parametrize(
    ("redis", "fault"),
    [
        ("db: 1", "redis.addr: got none, expected HOST:PORT"),
        ("addrs: ['a:1', 'b:1']", "redis.addrs: got a cluster or sentinels"),
        ("addr: 'a:1', mastername: m", "redis.addrs: got a cluster or sentinels"),
    ],
)
def test_a_redis_that_can_not_be_asked(redis: str, fault: str):
    assert fault in "\n".join(faults(REDIS % ("", redis)))


def test_watermarks():
    below = "version: 0.1\nstorage: {filesystem: , maintenance: {watermark: %s}}\n"
    place = "storage.maintenance.watermark"
    marks = loaded(
        below % "{warn: 85%, refuse: 97.5 %}"
    ).configuration.storage.maintenance.watermark
    assert (marks.warn, marks.refuse) == (0.85, 0.975)
    for wrong in ("85", "0%", "101%", "-3%", "1e1%", "%"):
        (said,) = faults(below % f"{{warn: {wrong!r}}}")
        assert said.startswith(f"{place}.warn: got '{wrong}', expected a percentage"), said
    assert faults(below % "{warn: 95%, refuse: 90%}") == [
        f"{place}.warn: got 95%, expected at most refuse, 90%"
    ]
    memory = below.replace("filesystem", "inmemory") % "{warn: 85%}"
    assert loaded(memory).warnings == (f"{place}: has no effect without storage.filesystem",)
