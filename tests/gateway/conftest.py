from __future__ import annotations

import httpx
import pytest
from gateway_service import RuleService

from mainspring.gateway import background


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    return RuleService(tmp_path_factory.mktemp("quarantine"))


@pytest.fixture(scope="session")
def url(service):
    with background(service) as url:
        yield url


@pytest.fixture
def client(url):
    with httpx.Client(base_url=url, trust_env=False) as client:
        yield client
