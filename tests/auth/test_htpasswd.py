"""Parsing of htpasswd files, and bcrypt hashes."""

from __future__ import annotations

import pytest

from twisted_registry.auth import password_file
from twisted_registry.auth.htpasswd import (
    HtpasswdInvalid,
    HtpasswdUsers,
    cost_of,
    is_user_name,
    parse_htpasswd,
)

#: In the form that Apache's htpasswd writes.
APACHE = b"$2y$05$yCtJGvnPvPJ0CtNgSJxhMOwiWI5aVJtkUMJYEtXJlZ9NPrM6Ov/0a"


def lines(*given):
    return parse_htpasswd(b"\n".join(given))


def test_file_is_parsed():
    other = APACHE.replace(b"$05$", b"$12$")
    users = lines(b"# people", b"", b"  me:" + APACHE + b"\r", b"you:" + other, b" ")
    assert users == HtpasswdUsers({b"me": APACHE, b"you": other})
    assert (cost_of(APACHE), users.cost, lines().cost) == (5, 12, 10)


def test_hashes_are_not_in_the_repr():
    assert "$2y" not in repr(lines(b"me:" + APACHE))


@pytest.mark.parametrize(
    "hashed",
    [b"", b"secret", b"$apr1$abc$NlhuBqv/5jhqpEy0ebBjR0", b"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
     APACHE[:-1], APACHE + b"0", b"$3y" + APACHE[3:], APACHE + b":x"],
)  # fmt: skip
def test_other_hashes_are_ignored(hashed):
    assert lines(b"me:" + hashed, b"you:" + APACHE) == HtpasswdUsers({b"you": APACHE}, (1,))


def test_last_line_of_a_name_counts_even_if_invalid():
    assert lines(b"me:" + APACHE, b"me:x").hashes == {}
    assert lines(b"me:x", b"me:" + APACHE).hashes == {b"me": APACHE}


@pytest.mark.parametrize("name", [b"", b"\xff", b"a\tb", b"a\x7f"])
def test_invalid_names_are_ignored(name):
    assert lines(name + b":" + APACHE) == HtpasswdUsers({}, (1,))
    assert not is_user_name(name)


def test_many_ignored_lines_are_not_all_named():
    assert lines(b"me:x").describe_ignored() == "line 1"
    assert lines(*[b"me:x"] * 9).describe_ignored() == "lines 1, 2, 3, 4, 5, ..."


def test_error_names_the_line_without_its_content():
    with pytest.raises(HtpasswdInvalid) as caught:
        lines(b"# a", b"me:" + APACHE, b"my-password")
    assert str(caught.value) == "line 3: expected NAME:HASH"


@pytest.mark.parametrize("version", [b"$2$", b"$2a$", b"$2b$", b"$2x$", b"$2y$"])
def test_all_versions_of_bcrypt_are_accepted(version):
    made = password_file.hash_password(b"secret", 4)
    assert made.startswith(b"$2y$04$")
    hashed = version + made[4:]
    assert lines(b"me:" + hashed).hashes == {b"me": hashed}
    assert password_file.verify_password(b"secret", hashed)
    assert not password_file.verify_password(b"Secret", hashed)


def test_only_72_bytes_of_a_password_count():
    hashed = password_file.hash_password(b"x" * 72, 4)
    assert password_file.verify_password(b"x" * 73, hashed)
    assert not password_file.verify_password(b"x" * 71, hashed)


def test_impossible_hash_matches_no_password():
    assert not password_file.verify_password(b"x", b"$2a$05$" + b"A" * 53)
    assert not password_file.verify_password(b"x", b"$2a$99$" + b"." * 53)


def test_dummy_hash_matches_no_password():
    assert not password_file.verify_dummy_password(b"", 4)
