"""Any file and environment gives a configuration, or faults of one line each."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.examples import examples
from twisted_registry.config.document import ConfigurationError
from twisted_registry.config.kinds import Anything, ListOf, MapOf
from twisted_registry.config.loading import SCHEMA, effective_yaml, load_text
from twisted_registry.config.sections import Section, schema_keys

SECRET = "hunter2"
FUZZ = settings(
    deadline=None, max_examples=examples(300), suppress_health_check=[HealthCheck.too_slow]
)

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12),
    st.sampled_from(
        ["0.1", "tcp", "unix", ":5000", "1h", "168h", "info", "inmemory", "filesystem", "none",
         "true", "yes", "https://a", "https://u:hunter2@a", "/a/", "[", "{", "*", "redis", "'"]
    ),
)  # fmt: skip
ANYTHING = st.recursive(
    SCALARS,
    lambda below: st.one_of(
        st.lists(below, max_size=3), st.dictionaries(st.text(max_size=6), below, max_size=3)
    ),
    max_leaves=6,
)


def values_like(kind: Any) -> st.SearchStrategy[Any]:
    """Mostly values of *kind*, with secrets filled in, and sometimes any value."""
    if isinstance(kind, Section):
        known = {
            name: st.just(SECRET) if spec.secret and not isinstance(spec.kind, Anything | MapOf)
            else values_like(spec.kind)
            for name, spec in schema_keys(kind.cls).items()
        }  # fmt: skip
        return st.one_of(
            st.fixed_dictionaries({}, optional=known), st.fixed_dictionaries({}, optional=known),
            st.dictionaries(st.sampled_from([*known, "", "adr", "a\nb"]), ANYTHING, max_size=3),
            SCALARS,
        )  # fmt: skip
    if isinstance(kind, ListOf):
        return st.one_of(st.lists(values_like(kind.item), max_size=2), ANYTHING)
    if isinstance(kind, MapOf):
        return st.one_of(
            st.dictionaries(
                st.sampled_from(["X-A", "b c", "d"]), values_like(kind.item), max_size=2
            ),
            ANYTHING,
        )
    return st.one_of(SCALARS, ANYTHING)


def output_of(text: str, environ: dict[str, str]) -> str:
    """All output about a configuration; asserts that faults and warnings are single lines."""
    try:
        loaded = load_text(text, environ, "f")
    except ConfigurationError as error:
        lines = [str(fault) for fault in error.faults] + list(error.warnings)
        rest = repr(error)
        found = len(lines)
    else:
        lines = [*loaded.warnings, *loaded.notices]
        output = effective_yaml(loaded.configuration)
        assert effective_yaml(load_text(output, {}).configuration) == output
        rest = repr(loaded) + output
        found = 1
        _ = loaded.configuration.http.address
    assert found
    for line in lines:
        assert line.isprintable()
        assert line.strip()
    return "\n".join(lines) + rest


@given(
    values_like(SCHEMA), st.sampled_from(["", "version: 0.1", "version: 0.1\nstorage: inmemory"])
)
@FUZZ
def test_any_structure_is_loaded_or_reported(data: Any, head: str):
    if isinstance(data, dict) and head:
        data = {**data, **yaml.safe_load(head)}
    output_of(yaml.safe_dump(data, allow_unicode=True), {})


@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"%@#,? \n\t0.1<~\\"), max_size=60))
@FUZZ
def test_any_text_is_loaded_or_reported(text: str):
    output_of(text, {})
    output_of(f"version: 0.1\nstorage: inmemory\n{text}", {})


NAMES = st.lists(
    st.sampled_from(
        ["HTTP", "STORAGE", "ADDR", "HEADERS", "X-A", "0", "1", "LOG", "FIELDS", "REDIS", "ADDRS",
         "AUTH", "TOKEN", "FILESYSTEM", "INMEMORY", "S3", "BUCKET", "DELETE", "ENABLED", "TLS",
         "NOTIFICATIONS", "ENDPOINTS", "URL", "NAME", "SECRET", "PASSWORD", "VERSION", "LOGLEVEL",
         "MAINTENANCE", "UPLOADPURGING", "REPORTING", "", "a", "\n", "\u00e9"]
    ),
    max_size=5,
).map(lambda parts: "REGISTRY_" + "_".join(parts))  # fmt: skip


@given(
    st.dictionaries(
        NAMES,
        st.one_of(
            ANYTHING.map(lambda data: str(yaml.safe_dump(data))),
            st.text(max_size=20),
            st.just("\udcff"),
        ),
        max_size=6,
    ),
    st.sampled_from(["storage: inmemory", "storage: {filesystem: , s3: }", "storage:", "http: a",
                     "redis: [a]\nlog: {fields: {x-a: {b: 1}}}\nstorage: inmemory"]),
)  # fmt: skip
@FUZZ
@example({"REGISTRY_LOG_FIELDS_A_0_B": "[[]]"}, "storage: inmemory")
def test_any_environment_is_applied_or_reported(environ: dict[str, str], body: str):
    output_of(f"version: 0.1\n{body}\n", environ)


@st.composite
def secrets(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, str]]:
    """A secret at one of the secret keys, in the file or the environment, in any shape."""
    paths = list(secret_paths(SCHEMA))
    path = draw(st.sampled_from(paths))
    value: Any = draw(
        st.sampled_from([SECRET, [SECRET], {SECRET: SECRET}, {"a": [SECRET]}, f"//u:{SECRET}@h"])
    )
    if draw(st.booleans()) and "[]" not in path:
        text = draw(st.sampled_from([yaml.safe_dump(value), f"[{SECRET}", f"*{SECRET}"]))
        return {}, {f"REGISTRY_{'_'.join(path).upper()}": text}
    data: Any = value
    for name in reversed(path):
        data = [data] if name == "[]" else {name: data}
    return data, {}


def secret_paths(kind: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    if isinstance(kind, ListOf):
        return secret_paths(kind.item, (*path, "[]"))
    if isinstance(kind, Section):
        for name, spec in schema_keys(kind.cls).items():
            if spec.secret and not isinstance(spec.kind, Anything | MapOf):
                found.append((*path, name))
            else:
                found += secret_paths(spec.kind, (*path, name))
    return found


@given(secrets(), st.booleans())
@FUZZ
def test_no_secret_is_ever_printed(where: tuple[dict[str, Any], dict[str, str]], sound: bool):
    data, environ = where
    head = {"version": "0.1", "storage": "inmemory"} if sound else {"http": {"net": "x"}}
    output = output_of(yaml.safe_dump({**head, **data}), environ)
    assert SECRET not in output


def test_the_schema_has_secret_keys():
    assert ("http", "secret") in secret_paths(SCHEMA)
    assert ("log", "hooks", "[]", "options", "smtp", "password") in secret_paths(SCHEMA)
