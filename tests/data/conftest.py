import pytest

from detour.model.base import Base


@pytest.fixture(scope="session")
def starter() -> Base:
    return Base.load("starter")
