import pytest

from pipeline.kubeflow.entrypoint import local_path, localize


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("gs://bucket/a/b", "/gcs/bucket/a/b"),
        ("s3://bucket/a", "/s3/bucket/a"),
        ("minio://mlpipeline/v2", "/minio/mlpipeline/v2"),
        ("/mnt/data", "/mnt/data"),
    ],
)
def test_where_kubeflow_puts_an_uri(uri, path):
    assert local_path(uri) == path


def artifacts(**uris):
    return {
        name: {"artifacts": [{"uri": uri, "type": {"instanceSchema": ""}}]}
        for name, uri in uris.items()
    }


def test_artifacts_become_local_and_inputs_get_their_types():
    invocation = {
        "inputs": {"artifacts": artifacts(model="s3://b/Trainer/model")},
        "outputs": {
            "artifacts": artifacts(blessing="s3://b/Evaluator/blessing"),
            "outputFile": "gs://b/Evaluator/executor_output.json",
        },
    }
    invocation["outputs"]["artifacts"]["blessing"]["artifacts"][0]["type"] = {"schemaTitle": "T"}
    spec = {"artifacts": {"model": {"artifactType": {"instanceSchema": "title: tfx.Model"}}}}
    assert localize(invocation, spec) == {
        "/s3/b/Trainer/model": "s3://b/Trainer/model",
        "/s3/b/Evaluator/blessing": "s3://b/Evaluator/blessing",
    }
    (model,) = invocation["inputs"]["artifacts"]["model"]["artifacts"]
    assert model == {
        "uri": "/s3/b/Trainer/model",
        "type": {"instanceSchema": "title: tfx.Model"},
    }
    (blessing,) = invocation["outputs"]["artifacts"]["blessing"]["artifacts"]
    assert blessing == {"uri": "/s3/b/Evaluator/blessing", "type": {"schemaTitle": "T"}}
    assert invocation["outputs"]["outputFile"] == "/gcs/b/Evaluator/executor_output.json"


def test_a_type_that_is_given_stays():
    invocation = {
        "inputs": {"artifacts": artifacts(model="/m")},
        "outputs": {"outputFile": "/o"},
    }
    invocation["inputs"]["artifacts"]["model"]["artifacts"][0]["type"] = {"schemaTitle": "given"}
    localize(invocation, {})
    (model,) = invocation["inputs"]["artifacts"]["model"]["artifacts"]
    assert model["type"] == {"schemaTitle": "given"}
