"""A digest of the code of a component.

The cache of TFX sees only the name of the code that a component runs. Therefore the digest of the
code is one of the component's parameters.
"""

import ast
import functools
import hashlib
import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_PROJECT = ("models", "components", "pipeline")
_MODULE_NAME = re.compile(rf"({'|'.join(_PROJECT)})(\.\w+)+(:\w+)?")


def code_digest(*modules: str) -> str:
    """Computes a digest of modules, all project modules that they import, and their data files.

    Imports are followed anywhere in a file, including imports in functions. Texts that are names of
    modules are followed, too, because registries load modules by such names.

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


def own_digest(*modules: str) -> str:
    """Computes a digest of modules and of those whose names they import, but of no registry.

    It is finer than `code_digest`: a package counts only by the modules from which imported names
    come, texts that are names of modules are not followed, and comments and docstrings do not
    count. So another layer or detector does not change it.

    Args:
        *modules: full names of modules.

    Returns:
        16 hexadecimal digits. They depend on the version of Python, too.
    """
    digest = hashlib.sha256()
    for path in sorted(_own_closure(modules)):
        digest.update(f"{path.parent.name}/{path.name}\n{_bare(path)}".encode())
    return digest.hexdigest()[:16]


def file_digest(path: str | None) -> str:
    """Digest of a file's content, 16 hexadecimal digits; empty without a file."""
    if path is None or not Path(path).expanduser().is_file():
        return ""
    return hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()[:16]


def closure(*modules: str) -> set[Path]:
    """Returns the files of the project that modules depend on, including their own files."""
    return _reachable((path for module in modules for path in _files(module)), _imported)


def _own_closure(modules: Iterable[str]) -> set[Path]:
    return _reachable(map(_home, modules), lambda path: map(_home, _imported_names(path)))


def _reachable(start: Iterable[Path], following: Callable[[Path], Iterable[Path]]) -> set[Path]:
    """Returns the files of `start`, and all that follow from one of them."""
    found: set[Path] = set()
    waiting = list(start)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += following(path)
    return found


@functools.cache
def _imported(path: Path) -> tuple[Path, ...]:
    """Returns the files of the modules that a file names. Only Python files name modules."""
    if path.suffix != ".py":
        return ()
    names = {name for node in ast.walk(ast.parse(path.read_bytes())) for name in _names(node)}
    return tuple(file for name in sorted(names) for file in _files(name))


@functools.cache
def _imported_names(path: Path) -> tuple[str, ...]:
    """Returns the full names of what a file imports from the project."""
    found = (name for node in ast.walk(ast.parse(path.read_bytes())) for name in _imports(node))
    return tuple(name for name in found if _is_ours(name))


def _imports(node: ast.AST) -> list[str]:
    """Returns the full names of what an import in a node gives."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def _is_ours(name: str) -> bool:
    return name.split(".")[0] in _PROJECT


def _home(name: str) -> Path:
    """Returns the file of a module, or of the module in which something of a module is defined."""
    path = [file for file in _files(name) if file.suffix == ".py"][-1]
    if path.name == "__init__.py":
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    if (alias.asname or alias.name) == name.rpartition(".")[2]:
                        return _home(f"{node.module}.{alias.name}")
    return path


def _bare(path: Path) -> str:
    """Returns the code of a file without comments and docstrings."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() if ast.get_docstring(node):
                node.body[0] = ast.Pass()
    return ast.dump(tree)


def _names(node: ast.AST) -> Iterator[str]:
    """Yields the names of project modules in a node, and of functions and classes in them."""
    candidates = _imports(node)
    if candidates and isinstance(node, ast.ImportFrom) and node.module:
        candidates.append(node.module)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        candidates = [node.value] if _MODULE_NAME.fullmatch(node.value) else []
    for name in filter(_is_ours, candidates):
        yield name.partition(":")[0]


@functools.cache
def _files(name: str) -> tuple[Path, ...]:
    """Returns the files of a module, of its packages, and the data files beside it.

    If `name` is the name of something in a module, such as a function, these are the files of the
    module.

    Raises:
        ModuleNotFoundError: if there is no such package.
    """
    package, *rest = name.split(".")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"There is no package {package}.")
    folder = Path(next(iter(spec.submodule_search_locations)))
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
