"""Stops a run whose data has anomalies in the sense of the schema."""

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.dsl.component.experimental.annotations import InputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts

from models.errors import UserError


@component
def DataGate(  # noqa: N802
    anomalies: InputArtifact[standard_artifacts.ExampleAnomalies],
    digest: Parameter[str],
) -> None:
    """Refuses what ExampleValidator, which never fails, has only recorded.

    `digest`, of the code, is only for the cache.

    Raises:
        UserError: naming the split, the feature and what is wrong with it.
    """
    del digest
    found = []
    for split in artifact_utils.decode_split_names(anomalies.split_names):
        record = anomalies_pb2.Anomalies()
        with fileio.open(f"{anomalies.uri}/Split-{split}/SchemaDiff.pb", "rb") as file:
            record.ParseFromString(file.read())
        found += [
            f"split '{split}', feature '{feature}': {information.description}"
            for feature, information in sorted(record.anomaly_info.items())
        ]
    if found:
        raise UserError(
            "The data does not fit the schema, so nothing is trained on it: "
            + " | ".join(found)
            + " Training data must be whole and normal: look into the source's labels."
        )
