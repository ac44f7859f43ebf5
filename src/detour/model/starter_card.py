"""Where the packaged starter lies, and its card: what it can do and does not know.

One reader for whoever needs the card. Knows the package's folders; loads no model.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from detour.errors import MachineError
from detour.language.catalogue import text

_KEYS = {"name", "parameters", "bytes", "licence", "languages",
         "bars", "required", "missed", "does_not_know"}  # fmt: skip


def starter_folder() -> Path:
    """Where the packaged model lies, or would lie."""
    return Path(str(files("detour.starter"))) / "weights"


def starter_card() -> dict[str, Any]:
    """The packaged card: `bars` as name → language → {value, low, high, n}, `missed`
    as name → languages, and the rest.

    Raises:
        MachineError: the installation lacks it, or holds something else there.
    """
    path = starter_folder() / "card.json"
    hint = text("install Detour again; `detour doctor` checks the starter's files")
    try:
        told: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as cause:
        raise MachineError(
            text("the starter's card cannot be read"), found=repr(cause), hint=hint
        ) from cause
    if not isinstance(told, dict) or not told.keys() >= _KEYS:
        raise MachineError(
            text("the starter's card cannot be read"),
            expected=text("an object with {keys}", keys=", ".join(sorted(_KEYS))),
            hint=hint,
        )
    return cast("dict[str, Any]", told)
