"""``docs/openapi.yaml`` agrees with the routes and the error codes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from twisted_registry.api.root import SiteRoot
from twisted_registry.api.routes import ALL_ENDPOINTS
from twisted_registry.oci.errors import ErrorCode
from twisted_registry.oci.manifest import OCI_IMAGE, OCI_INDEX
from twisted_registry.tokens.logins import TOKEN_PATH

FILE = Path(__file__).parents[2] / "docs" / "openapi.yaml"
PAGE = {"get", "head"}
#: Resources beside the API: those of the site's root, the token service, and the authority.
OTHERS = {
    "/": PAGE,
    **{f"/{name.decode()}": PAGE for name in SiteRoot().listStaticNames()},
    f"/{TOKEN_PATH}": {"get", "head", "post"},
    "/ca.crt": PAGE,
}


@pytest.fixture(scope="module")
def description():
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def path_of(endpoint):
    if endpoint.handler == "repository":
        return "/v2/_repository/{name}"
    names = ["{name}"] if endpoint.has_name else []
    tail = [f"{{{endpoint.variable}}}" if part == "*" else part for part in endpoint.tail]
    # The slash at the end is that of the specification; the registry needs none.
    end = "/" if endpoint.handler in {"base", "blob_upload"} else ""
    return "/".join(["/v2", *names, *tail]) + end


def operations(description):
    return {
        path: set(item) - {"parameters", "summary", "description"}
        for path, item in description["paths"].items()
    }


def test_every_route_is_described_and_every_described_path_exists(description):
    routes = {
        path_of(endpoint): {method.lower() for method in endpoint.methods}
        for endpoint in ALL_ENDPOINTS
    }
    assert operations(description) == routes | OTHERS


def test_every_error_code_is_described(description):
    codes = description["components"]["schemas"]["ErrorCode"]["enum"]
    assert codes == [code.name for code in ErrorCode]


def test_each_operation_has_an_id_of_its_own(description):
    ids = [
        operation["operationId"]
        for item in description["paths"].values()
        for method, operation in item.items()
        if method != "parameters"
    ]
    assert len(ids) == len(set(ids)) == sum(map(len, operations(description).values()))


def test_manifests_that_are_described_can_be_pushed(description):
    put = description["paths"]["/v2/{name}/manifests/{reference}"]["put"]
    assert {OCI_IMAGE, OCI_INDEX} <= set(put["requestBody"]["content"])
