"""What a check has found."""

from __future__ import annotations

from attrs import frozen


@frozen
class Finding:
    """One thing that is wrong, as one line for the operator. It has no secret.

    :ivar subject: the key of the configuration, or what was checked.
    :ivar problem: what is wrong.
    :ivar evidence: how that was found.
    :ivar advice: what to do.
    :ivar is_warning: whether the registry works nevertheless.
    """

    subject: str
    problem: str
    evidence: str
    advice: str
    is_warning: bool = False

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem} ({self.evidence}); {self.advice}"
