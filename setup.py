"""Build and install: metadata, dependencies, the two commands and the twistd plugin."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "([^"]+)"', (HERE / "twisted_registry/__init__.py").read_text(), re.MULTILINE
).group(1)

# The documentation and the samples of configurations, for machines without internet.
DOCUMENTATION = {}
for pattern in ("*.rst", "docs/*.rst", "docs/openapi.yaml", "compose.yml", "conf/**/*.*"):
    for path in sorted(HERE.glob(pattern)):
        found = path.relative_to(HERE)
        folder = f"share/doc/twisted-registry/{found.parent}"
        DOCUMENTATION.setdefault(folder.removesuffix("/."), []).append(str(found))

AUTH = ["pyjwt[crypto]>=2.14"]
ACME = ["acme>=4"]
OTEL = ["opentelemetry-exporter-otlp-proto-http>=1.34", "opentelemetry-sdk>=1.34"]
TEST = [
    *ACME,
    *AUTH,
    *OTEL,
    "botocore>=1.34",
    "coverage[toml]>=7.6",
    "docutils>=0.20",
    "hypothesis>=6.100",
    "klein>=24.8",
    "moto[server]>=5",
    "prometheus-client>=0.20",
    "pytest>=8",
    "pytest-randomly>=3.15",
    "pytest-timeout>=2.3",
    "pytest-twisted>=1.14",
    "pytest-xdist>=3.6",
    "requests>=2.31",
    "txredisapi>=1.6",
]

setup(
    name="twisted-registry",
    version=VERSION,
    description="A container-image registry (OCI and Docker distribution) on Twisted",
    long_description=(HERE / "README.rst").read_text() if (HERE / "README.rst").exists() else "",
    long_description_content_type="text/x-rst",
    license="Apache-2.0",
    python_requires=">=3.11",
    # The plugin drop-in is a module in Twisted's own plugin package: neither folder of
    # ours may hold an __init__.py, or the real twisted package would be hidden.
    packages=[
        *find_packages(include=["twisted_registry", "twisted_registry.*"]),
        "twisted.plugins",
    ],
    package_data={"twisted_registry": ["py.typed"]},
    data_files=sorted(DOCUMENTATION.items()),
    install_requires=[
        "attrs>=23.2",
        "bcrypt>=4.1",
        "cryptography>=44",
        "google-re2>=1.1.20250805",
        "httptools>=0.6.3",
        "pyopenssl>=25",
        "pyyaml>=6.0.1",
        "treq>=24.9",
        "twisted[tls]>=24.11",
    ],
    extras_require={
        "acme": ACME,
        "auth": AUTH,
        "aws": ["botocore>=1.34"],
        "redis": ["txredisapi>=1.6"],
        "metrics": ["prometheus-client>=0.20"],
        "otel": OTEL,
        "test": TEST,
        "dev": [*TEST, "mypy>=1.11", "mypy-zope>=1.0.5", "ruff>=0.6", "types-PyYAML"],
    },
    entry_points={
        "console_scripts": [
            "twisted-registry = twisted_registry.cli:main",
            "registry = twisted_registry.cli:main",
        ],
        "pytest11": ["oci-registry = twisted_registry.pytest_plugin"],
    },
    classifiers=[
        "Framework :: Twisted",
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.13",
    ],
)
