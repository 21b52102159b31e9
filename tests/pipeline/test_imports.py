import gc

import pytest

from pipeline.imports import large_imports


@pytest.fixture(autouse=True)
def as_before():
    yield
    gc.enable()


def test_what_is_imported_is_never_looked_through_again():
    with large_imports():
        assert not gc.isenabled()
        kept = [[]]
    assert gc.isenabled()
    assert not any(held is kept for held in gc.get_objects())


def test_a_failing_import_and_a_caller_without_the_collector():
    with pytest.raises(ImportError), large_imports():
        import models.no_such_module  # noqa: F401
    assert gc.isenabled()
    gc.disable()
    with large_imports():
        pass
    assert not gc.isenabled()
