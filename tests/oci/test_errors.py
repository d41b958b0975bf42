"""Error codes and the JSON that they become."""

from __future__ import annotations

import json

import pytest

from twisted_registry.oci.errors import ErrorCode, RegistryError

#: OCI distribution specification, "Error Codes": code-1 to code-14.
SPECIFIED = {
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
}


def test_every_code_of_the_specification_exists():
    assert set(ErrorCode.__members__) >= SPECIFIED


def test_no_code_is_an_alias_of_another():
    # Two members of an Enum with equal values are one member with two names.
    assert len(list(ErrorCode)) == len(ErrorCode.__members__)


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_has_an_error_status_and_a_message(code):
    assert 400 <= code.status <= 599
    assert code.message
    assert RegistryError(code).http_status == code.status


@pytest.mark.parametrize("code", ErrorCode)
def test_the_body_has_the_form_of_the_specification(code):
    body = json.loads(json.dumps(RegistryError(code).as_json()))
    assert body == {"errors": [{"code": code.name, "message": code.message}]}


def test_detail_message_and_status_override_those_of_the_code():
    error = RegistryError(
        ErrorCode.UNKNOWN, detail={"a": 1}, message="why", status=418, headers=(("X", "y"),)
    )
    assert error.http_status == 418
    assert error.headers == (("X", "y"),)
    assert error.as_json() == {
        "errors": [{"code": "UNKNOWN", "message": "why", "detail": {"a": 1}}]
    }


@pytest.mark.parametrize("detail", ["", 0, False, [], {}])
def test_a_falsy_detail_is_included(detail):
    assert RegistryError(ErrorCode.UNKNOWN, detail).as_json()["errors"][0]["detail"] == detail


def test_errors_are_raised_and_chained():
    cause = ValueError()
    with pytest.raises(RegistryError) as caught:
        raise RegistryError(ErrorCode.DENIED) from cause
    assert caught.value.__cause__ is cause
    assert caught.value != RegistryError(ErrorCode.DENIED)


def test_an_error_is_immutable():
    error = RegistryError(ErrorCode.DENIED)
    with pytest.raises(AttributeError):
        error.code = ErrorCode.UNKNOWN


def test_the_text_of_an_error_has_code_message_and_detail():
    error = RegistryError(ErrorCode.NAME_UNKNOWN)
    assert str(error) == "NAME_UNKNOWN: repository name not known to registry"
    error = RegistryError(ErrorCode.DENIED, message="this tag is immutable", detail={"tag": "v1"})
    assert str(error) == "DENIED: this tag is immutable (tag v1)"
    assert str(RegistryError(ErrorCode.UNKNOWN, "why")) == "UNKNOWN: unknown error (why)"
