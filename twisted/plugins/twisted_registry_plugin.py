"""Register the command ``twistd registry``; twistd imports the registry when it runs it."""

from twisted.application.service import ServiceMaker

registry = ServiceMaker(
    "Twisted Registry",
    "twisted_registry.tap",
    "A container-image registry (OCI and Docker distribution protocol).",
    "registry",
)
