"""The schema of the Examples, curated rather than inferred."""

from pathlib import Path

from tfx import v1 as tfx

from models.files import write_whole

PATH = Path(__file__).parent / "schema.pbtxt"


@tfx.dsl.components.component
def CuratedSchema(  # noqa: N802
    content: tfx.dsl.components.Parameter[str],
    digest: tfx.dsl.components.Parameter[str],
    schema: tfx.dsl.components.OutputArtifact[tfx.types.standard_artifacts.Schema],
) -> None:
    """Writes `content`, a Schema in text format.

    TFX's ImportSchemaGen takes a path instead, which another machine need not have, and the cache
    does not notice when the file's content changes. `digest`, of the code, is only for the cache.
    """
    del digest
    write_whole(Path(schema.uri, PATH.name), content)
