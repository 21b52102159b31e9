"""The schema of the Examples, curated rather than inferred."""

from pathlib import Path

from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import standard_artifacts

from models.files import write_whole

PATH = Path(__file__).parent / "schema.pbtxt"


@component
def CuratedSchema(  # noqa: N802
    content: Parameter[str],
    digest: Parameter[str],
    schema: OutputArtifact[standard_artifacts.Schema],
) -> None:
    """Writes `content`, a Schema in text format.

    TFX's ImportSchemaGen takes a path instead, which another machine need not have, and the cache
    does not notice when the file's content changes. `digest`, of the code, is only for the cache.
    """
    del digest
    write_whole(Path(schema.uri, PATH.name), content)
