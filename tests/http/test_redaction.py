from __future__ import annotations

import pytest

from twisted_registry.http.redaction import redact_target


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        (b"/v2/", b"/v2/"),
        (b"/v2/?", b"/v2/?"),
        (b"/v2/a/tags/list?n=5&last=_state", b"/v2/a/tags/list?n=5&last=_state"),
        (b"/u?_state=abc%3D&digest=sha256:1", b"/u?_state=REDACTED&digest=sha256:1"),
        (b"/u?digest=1&%5Fstate=abc", b"/u?digest=1&%5Fstate=REDACTED"),
        (b"/u?_state=a&_state=b", b"/u?_state=REDACTED&_state=REDACTED"),
        (b"/t?PASSWORD=x&service=y", b"/t?PASSWORD=REDACTED&service=y"),
        (b"/t?password=", b"/t?password=REDACTED"),
        (b"/t?password", b"/t?password"),
        (
            b"https://s3/b/k?X-Amz-Signature=1&X-Amz-Credential=2&X-Amz-Expires=3",
            b"https://s3/b/k?X-Amz-Signature=REDACTED&X-Amz-Credential=REDACTED&X-Amz-Expires=3",
        ),
    ],
)
def test_secret_parameters_are_not_shown(target, shown):
    assert redact_target(target) == shown
