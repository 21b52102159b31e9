import pytest

from models.errors import UserError
from pipeline.beam_args import beam_args


def test_defaults():
    assert beam_args() == ["--runner=FnApiRunner", "--sdk_container_image=none"]


def test_what_is_given_replaces_its_default_alone():
    given = ["--runner=PortableRunner", "--job_endpoint=localhost:1", "--streaming"]
    assert beam_args(given) == ["--sdk_container_image=none", *given]
    assert beam_args(["--sdk_container_image=ours"]) == [
        "--runner=FnApiRunner",
        "--sdk_container_image=ours",
    ]


@pytest.mark.parametrize("argument", ["runner=FnApiRunner", "--runner FnApiRunner", ""])
def test_another_form(argument):
    with pytest.raises(UserError, match=f"'{argument}' is not of the form --NAME=VALUE"):
        beam_args([argument])


@pytest.mark.parametrize("runner", ["DaskRunner", "apache_beam.runners.dask.DaskRunner"])
def test_the_runner_that_loses_data(runner):
    with pytest.raises(UserError, match="silently loses data"):
        beam_args([f"--runner={runner}"])
