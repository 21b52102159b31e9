"""A digest of the code behind a component.

TFX's cache sees only the name of what a component runs, so the digest of its code is one of the
component's parameters.
"""

import ast
import functools
import hashlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

_PROJECT = ("models", "components", "pipeline")
_MODULE_NAME = re.compile(rf"({'|'.join(_PROJECT)})(\.\w+)+(:\w+)?")


def code_digest(*modules: str) -> str:
    """Digest of modules, of all that they import inside the project, and of the data files beside.

    Imports are followed wherever they stand in a file, and so are names of modules in texts, by
    which registries load what they list.

    Args:
        *modules: full names of modules.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path in sorted(closure(*modules)):
        digest.update(f"{path.parent.name}/{path.name}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def closure(*modules: str) -> set[Path]:
    """The project's files that modules depend on."""
    found: set[Path] = set()
    waiting = [path for module in modules for path in _files(module)]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imported(path)
    return found


@functools.cache
def _imported(path: Path) -> tuple[Path, ...]:
    """Files of the modules that a file names; other than Python files name none."""
    if path.suffix != ".py":
        return ()
    names = {name for node in ast.walk(ast.parse(path.read_bytes())) for name in _names(node)}
    return tuple(file for name in sorted(names) for file in _files(name))


def _names(node: ast.AST) -> Iterator[str]:
    """Names of modules of the project in a node; some may be names of what is in a module."""
    if isinstance(node, ast.Import):
        candidates = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        candidates = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        candidates = [node.value] if _MODULE_NAME.fullmatch(node.value) else []
    else:
        return
    for name in candidates:
        if name.split(".")[0] in _PROJECT:
            yield name.partition(":")[0]


@functools.cache
def _files(name: str) -> tuple[Path, ...]:
    """Files of a module: it, its packages, and the data files beside it.

    Of a name that goes on behind a module, as of a function, those of the module.
    """
    package, *rest = name.split(".")
    folder = Path(next(iter(importlib.util.find_spec(package).submodule_search_locations)))
    files = [folder / "__init__.py"]
    for part in rest:
        if (folder / f"{part}.py").is_file():
            files.append(folder / f"{part}.py")
            break
        if not (folder / part / "__init__.py").is_file():
            break
        folder /= part
        files.append(folder / "__init__.py")
    data = (p for p in folder.iterdir() if p.is_file() and p.suffix not in (".py", ".pyc"))
    return (*files, *data)
