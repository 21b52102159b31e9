"""Published data sets: where their original files are looked for."""

import logging
import os
from pathlib import Path
from typing import Any, ClassVar, Self

from components.data.sources import tfds
from components.data.sources.base import Source
from models.errors import UserError

DATA_DIR_VARIABLE = "CAPSAD_DATA_DIR"


class FileSource(Source):
    """A published data set in its original files, each of them gzipped or plain.

    Attributes:
        files: names of the files, without `.gz`.
        system_folders: where packages of operating systems put them.
    """

    files: ClassVar[tuple[str, ...]]
    system_folders: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: str):
        self.folder = str(Path(folder).absolute())

    @classmethod
    def find(cls, data_dir: str | None = None, **options: Any) -> Source | None:
        """Looks in `data_dir` and nowhere else, or if that is `None` in this order.

        1. The folder that the variable `CAPSAD_DATA_DIR` names,
        2. folders of the operating system's packages,
        3. TFDS's folder (`TFDS_DATA_DIR` or `~/tensorflow_datasets`).

        In each of them a subfolder named as the data set, with `_` or `-`, goes before the folder
        itself, and original files before what TFDS prepared.

        Raises:
            UserError: if `data_dir` is given and does not hold the data set.
        """
        if data_dir is not None:
            found = cls._look_in(Path(data_dir).expanduser(), given=True, **options)
            if found is None:
                raise UserError(cls._absence(Path(data_dir).expanduser()), "data_dir")
            return found
        roots = [os.environ.get(DATA_DIR_VARIABLE), *cls.system_folders, tfds.data_dir()]
        for root in filter(None, roots):
            found = cls._look_in(Path(root).expanduser(), given=False, **options)
            if found is not None:
                return found
        return None

    @classmethod
    def belongs(cls, folder: Path, given: bool) -> bool:
        """Whether a folder that has all the files holds this data set and not one like it.

        Args:
            folder: that has all the files.
            given: whether the user said that it is this data set.
        """
        del folder, given
        return True

    def path(self, file: str) -> str:
        """Path of one of `files`: the plain one if there, else the gzipped one."""
        plain = Path(self.folder, file)
        return str(plain if plain.exists() else plain.with_name(file + ".gz"))

    @classmethod
    def _look_in(cls, root: Path, given: bool, **options: str) -> Self | tfds.TfdsSource | None:
        for folder in cls._candidates(root):
            missing = cls._missing(folder)
            if not missing and cls.belongs(folder, given):
                return cls(str(folder), **options)
            if missing and len(missing) < len(cls.files) and not given:
                logging.warning("Passing over %s: it lacks %s.", folder, ", ".join(missing))
        prepared = tfds.prepared(root, cls.name)
        return tfds.TfdsSource(cls, prepared, **options) if prepared else None

    @classmethod
    def _candidates(cls, root: Path) -> list[Path]:
        names = dict.fromkeys((cls.name, cls.name.replace("_", "-")))
        return [*(root / name for name in names), root]

    @classmethod
    def _missing(cls, folder: Path) -> list[str]:
        return [
            file
            for file in cls.files
            if not any(os.path.isfile(folder / name) for name in (file, f"{file}.gz"))
        ]

    @classmethod
    def _absence(cls, root: Path) -> str:
        if not os.path.isdir(root):
            return f"The data folder {root} is not a folder. {cls.how_to_get}"
        folder = min(cls._candidates(root), key=lambda folder: len(cls._missing(folder)))
        missing = cls._missing(folder)
        if not missing:
            return f"The files in {folder} are another data set's, not '{cls.name}'."
        listed = ", ".join(f"{file}[.gz]" for file in missing)
        where = root if len(missing) == len(cls.files) else folder
        return f"The data set '{cls.name}' is not in {where}: missing {listed}. {cls.how_to_get}"
