import gc

import pytest

from pipeline.imports import large_imports


@pytest.fixture(autouse=True)
def in_a_new_process():
    gc.unfreeze()
    yield
    gc.enable()
    gc.freeze()


def is_looked_through(wanted):
    return any(found is wanted for found in gc.get_objects())


def test_what_is_imported_is_never_looked_through_again():
    with large_imports():
        assert not gc.isenabled()
        imported = [[]]
        assert is_looked_through(imported)
    assert gc.isenabled()
    assert not is_looked_through(imported)

    with large_imports():
        later = [[]]
    assert is_looked_through(later)


def test_a_failing_import_and_a_caller_without_the_collector():
    with pytest.raises(ImportError), large_imports():
        import models.no_such_module  # noqa: F401
    assert gc.isenabled()
    gc.disable()
    with large_imports():
        pass
    assert not gc.isenabled()
