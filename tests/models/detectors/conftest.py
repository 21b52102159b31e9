import pytest

from models import detectors
from tests.models.detectors.small import ON_BACKBONE, smallest


@pytest.fixture(params=[*detectors.names(), ON_BACKBONE])
def name(request):
    return request.param


@pytest.fixture
def size(name):
    return smallest(name)
