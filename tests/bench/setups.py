"""The setup of a server in a case: TLS, access log, access control, workers, bucket."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

Login = Literal["", "htpasswd", "token"]
#: How a registry over a bucket serves pulls.
Pulls = Literal["", "redirected", "streamed"]


@frozen
class Setup:
    """The settings that are on.

    :ivar tls: whether to serve over TLS.
    :ivar access_log: whether to log each request to a file.
    :ivar gated: whether to embed this registry in a program with access control and a gate.
    :ivar login: the credentials that the registries require; every request has them.
    :ivar metrics: whether to serve metrics at a second address, which nobody requests.
    :ivar notifications: whether to send events to an endpoint that is down, so that all wait.
    :ivar bucket: whether to store in a bucket, and how pulls from it are served.
    :ivar workers: number of serving processes, of this registry and nginx only.
    """

    tls: bool = False
    access_log: bool = False
    gated: bool = False
    login: Login = ""
    metrics: bool = False
    notifications: bool = False
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
                    "notifications" if self.notifications else "",
                    f"bucket, {self.bucket}" if self.bucket else "",
                    f"{self.workers} workers" if self.workers > 1 else "",
                ),
            )
        )


PLAIN = Setup()
