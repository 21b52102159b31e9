"""The schema of the Examples, curated rather than inferred."""

from pathlib import Path

from tfx import v1 as tfx

PATH = Path(__file__).parent / "example_gen" / "schema.pbtxt"


@tfx.dsl.components.component
def CuratedSchema(  # noqa: N802
    content: tfx.dsl.components.Parameter[str],
    schema: tfx.dsl.components.OutputArtifact[tfx.types.standard_artifacts.Schema],
) -> None:
    """Writes `content`, a Schema in text format.

    TFX's ImportSchemaGen takes a path instead, which another machine need not have, and the cache
    does not notice when the file's content changes.
    """
    Path(schema.uri, PATH.name).write_text(content)
