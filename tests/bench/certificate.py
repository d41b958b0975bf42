"""A self-signed certificate for 127.0.0.1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from tests.support.self_signed import self_signed

if TYPE_CHECKING:
    from pathlib import Path


@frozen
class Certificate:
    """Two files in PEM."""

    certificate: Path
    key: Path


def make(folder: Path) -> Certificate:
    """Write a key on P-256 and its certificate."""
    signed = self_signed("127.0.0.1")
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    made.certificate.write_bytes(signed.certificate_pem)
    made.key.write_bytes(signed.key_pem)
    return made
