from __future__ import annotations

import pytest
from load_app import serving


@pytest.fixture(scope="session")
def url():
    with serving() as url:
        yield url
