"""Tests of what older releases of other packages, which unetsep works with, cannot do."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from packaging.version import Version


def needs(package: str, release: str) -> pytest.MarkDecorator:
    """Skip a test where an installed package is older."""
    older = Version(version(package)) < Version(release)
    return pytest.mark.skipif(older, reason=f"needs {package} {release}")
