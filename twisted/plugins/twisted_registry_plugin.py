"""Makes ``twistd registry`` known; imports nothing of the registry until it is asked for."""

from twisted.application.service import ServiceMaker

registry = ServiceMaker(
    "Twisted Registry",
    "twisted_registry.tap",
    "A container-image registry (OCI and Docker distribution protocol).",
    "registry",
)
