"""Media types: the grammar of RFC 6838, and the types that browsers run."""

from __future__ import annotations

import pytest

from twisted_registry.oci.manifest import KIND_BY_MEDIA_TYPE
from twisted_registry.oci.media_types import UNKNOWN, is_active, is_media_type, safe_media_type


@pytest.mark.parametrize(
    "value",
    [*KIND_BY_MEDIA_TYPE, "a/b", "1/2", "a/b.c-d+e_f!g#h$i&j^k", f"{'a' * 127}/{'b' * 127}",
     "application/vnd.docker.distribution.manifest.v1+prettyjws"],
)  # fmt: skip
def test_a_media_type_is_accepted(value):
    assert is_media_type(value)
    assert safe_media_type(value) == value


@pytest.mark.parametrize(
    "value",
    ["", "a", "a/", "/b", "a/b/c", "a b/c", "a/b;c=d", ".a/b", "a/-b", "a/+json", "a/b\n", "*/*",
     f"{'a' * 128}/b", f"a/{'b' * 128}", "\u00e9/b", "a/\uff42", None, 5, b"a/b"],
)  # fmt: skip
def test_text_that_is_no_media_type_is_refused(value):
    assert not is_media_type(value)


@pytest.mark.parametrize(
    "value",
    ["text/html", "text/plain", "TEXT/HTML", "application/html", "application/xhtml+xml",
     "application/vnd.wap.xhtml+xml", "image/svg+xml", "Image/SVG+XML", "image/svg",
     "application/javascript", "application/x-javascript", "application/ecmascript",
     "application/xml", "application/atom+xml", "multipart/x-mixed-replace", "message/rfc822",
     "application/x-shockwave-flash"],
)  # fmt: skip
def test_a_type_that_browsers_run_is_never_served(value):
    assert is_media_type(value)
    assert is_active(value)
    assert safe_media_type(value) == UNKNOWN
    assert not is_active(UNKNOWN)
