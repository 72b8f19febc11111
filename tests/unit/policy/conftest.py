from __future__ import annotations

from collections.abc import Iterator

import pytest

from vestibule.policy import PolicySet


@pytest.fixture(scope="session")
def shipped() -> Iterator[PolicySet]:
    policy = PolicySet.load()
    yield policy
    policy.close()
