"""Data in object stores, for sources read files."""

import contextlib
import posixpath
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from models.errors import UserError


@contextlib.contextmanager
def local_copy(data_dir: str | None) -> Iterator[str | None]:
    """A copy of `data_dir` on this machine for as long as the context lasts.

    Args:
        data_dir: URI of a folder or a file, such as gs://BUCKET/FOLDER or s3://BUCKET/data.npz;
            what is a path of this machine already, or `None`, is given as it is.

    Yields:
        The path of the copy.

    Raises:
        UserError: if there is nothing at that URI.
    """
    if data_dir is None or "://" not in data_dir:
        yield data_dir
        return
    root = data_dir.rstrip("/")
    FileSystems.set_options(PipelineOptions([]))  # S3's fails without any
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, posixpath.basename(root))
        matches = FileSystems.match([root, f"{root}/**"])
        found = (file.path for match in matches for file in match.metadata_list)
        # Some tools put an empty object in the place of a folder.
        paths = [path for path in found if not path.endswith("/")]
        if not paths:
            raise UserError(f"There is no data at {data_dir}.", "data_dir")
        for path in paths:
            target = Path(f"{copy}{path.removeprefix(root)}")
            target.parent.mkdir(parents=True, exist_ok=True)
            remote = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
            with remote, target.open("wb") as local:
                shutil.copyfileobj(remote, local)
        yield str(copy)
