"""A fingerprint of code, for TFX's cache sees only the name of what a component runs."""

import hashlib
import importlib.util
from pathlib import Path


def code_digest(*packages: str) -> str:
    """Digest of all Python and data files of packages or modules, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for package in packages:
        spec = importlib.util.find_spec(package)
        if spec.submodule_search_locations:
            root = Path(next(iter(spec.submodule_search_locations)))
            files = sorted(path for path in root.rglob("*.*") if "__pycache__" not in path.parts)
        else:
            root = Path(spec.origin).parent
            files = [Path(spec.origin)]
        for path in files:
            digest.update(f"{package}/{path.relative_to(root)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
