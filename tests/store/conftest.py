"""What holds for every test of the store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.store.redis_server import run_shared


@pytest.fixture(scope="session", autouse=True)
def _shared_servers() -> Iterator[None]:
    with run_shared():
        yield
