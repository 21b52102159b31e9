import socket
import time

import pytest

from models.errors import UserError
from pipeline.beam_args import beam_args, check_engine


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--direct_running_mode=foo"], "Beam refuses its arguments: argument --direct_running_m"),
        (["--direct_num_workers=many"], "invalid int value: 'many'"),
        (["--runner=NoSuchRunner"], "Beam has no runner 'NoSuchRunner' here"),
        (["--runer=FlinkRunner"], "Beam has no argument --runer. Did you mean --runner?"),
        (["--whatever=1"], "Beam has no argument --whatever."),
        (["--runner=FlinkRunner", "--flink_mastr=a:1"], "Did you mean --flink_master?"),
    ],
)
def test_what_beam_does_not_know_is_refused_in_one_sentence(arguments, message, capfd):
    with pytest.raises(UserError) as raised:
        beam_args(arguments)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr().err == ""


def test_what_only_an_engine_knows_is_passed_on():
    given = ["--runner=FlinkRunner", "--parallelism=2", "--direct_num_workers=2"]
    assert beam_args(given)[-3:] == given


def test_an_engine_that_does_not_answer_is_told_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check_engine(
            [f"--job_endpoint=127.0.0.1:{port}", f"--flink_master=http://127.0.0.1:{port}"]
        )
    started = time.monotonic()
    with pytest.raises(UserError, match=f"Nothing answers at 127.0.0.1:{port}, which the Beam arg"):
        check_engine([f"--job_endpoint=127.0.0.1:{port}"])
    assert time.monotonic() - started < 6
    check_engine(["--job_endpoint=embed", "--flink_master=[local]", "--runner=FnApiRunner"])
    for address in ("localhost", "localhost:", ":80", "localhost:99999"):
        with pytest.raises(UserError, match=r"needs HOST:PORT, not|Nothing answers at"):
            check_engine([f"--job_endpoint={address}"])
