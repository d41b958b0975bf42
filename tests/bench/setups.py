"""The setup of a server in a case: TLS, access log, access control, workers, bucket."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

Login = Literal["", "htpasswd", "token"]
#: Of pulls, by a registry over a bucket.
Pulls = Literal["", "redirected", "streamed"]


@frozen
class Setup:
    """The settings that are on.

    :ivar tls: over TLS.
    :ivar access_log: a line for each request, to a file.
    :ivar gated: ours as a part of another program, with access control and a gate that look.
    :ivar login: what the registries ask for, as their configuration says; every request brings it.
    :ivar metrics: counted, for whoever asks at a second address; nobody does.
    :ivar bucket: over a bucket and not a folder, and whether pulls are sent to the store.
    :ivar workers: processes that serve; of ours and nginx, the others use threads.
    """

    tls: bool = False
    access_log: bool = False
    gated: bool = False
    login: Login = ""
    metrics: bool = False
    bucket: Pulls = ""
    workers: int = 1

    def __str__(self) -> str:
        return ", ".join(
            filter(
                None,
                (
                    "TLS" if self.tls else "",
                    "access log" if self.access_log else "",
                    "gate and access" if self.gated else "",
                    self.login,
                    "metrics" if self.metrics else "",
                    f"bucket, {self.bucket}" if self.bucket else "",
                    f"{self.workers} workers" if self.workers > 1 else "",
                ),
            )
        )


PLAIN = Setup()
