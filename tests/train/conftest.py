"""What tests of training share: a small part of the synthetic set, and a user's network in a file."""

from __future__ import annotations

import pytest
import user_nets

from tinyredux import datasets


@pytest.fixture(scope="session")
def few() -> datasets.Dataset:
    """A small part of the synthetic set."""
    return datasets.synthetic(counts=(240, 60, 60))


@pytest.fixture
def own() -> str:
    """The name of a user's small network."""
    return f"{user_nets.__file__}:tiny"
