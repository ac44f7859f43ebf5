"""What stands in a study's folder beside `study.db` when a search is over.

`best.yaml` (for `detour train --config`), `tune.json` (every trial and the comparison) and three
drawings. Knows searches and files' contents.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from detour.files import write_bytes_atomically
from detour.language.catalogue import ENGLISH, Catalogue
from detour.training.tune.plots import history_png, importances_png, slices_png
from detour.training.tune.search import Found
from detour.training.tune.study import STUDY_FILE

BEST_FILE, TUNE_FILE, ADAPTER = "best.yaml", "tune.json", "adapter"


def save(found: Found, folder: Path, with_adapter: bool, t: Catalogue = ENGLISH) -> Path | None:
    """Write the files, and the adapter of the best configuration if it is wanted; its folder.

    Raises:
        StorageError: something could not be written. AdapterError: as `Adapter.save`.
    """
    adapter = found.comparison.adapter if with_adapter else None
    if adapter is not None:
        metrics = {"tune": found.comparison.to_json()}
        card = adapter.card.with_(metrics={**adapter.card.metrics, **metrics})
        adapter.with_(card=card).save(folder / ADAPTER)
    for name, content in contents(found, folder, t).items():
        write_bytes_atomically(folder / name, content)
    return folder / ADAPTER if adapter is not None else None


def contents(found: Found, folder: Path, t: Catalogue = ENGLISH) -> dict[str, bytes]:
    """The files by name."""
    told = {**summary(found, folder), **details(found)}
    return {
        BEST_FILE: yaml.safe_dump(dict(found.best.config), sort_keys=False).encode(),
        TUNE_FILE: (json.dumps(told, indent=1) + "\n").encode(),
        "history.png": history_png(found.trials, t),
        "importances.png": importances_png(found.importances, t),
        "slices.png": slices_png(found.trials, found.space.searched, t),
    }


def summary(found: Found, folder: Path) -> dict[str, Any]:
    """What --json prints."""
    best, default = found.best.to_json(), found.default.to_json()
    return {
        "best": {name: best[name] for name in ("config", "value", "number")},
        "default": {name: default[name] for name in ("config", "value")},
        "base": {"name": found.seen.base, "value": round(found.seen.untrained, 6)},
        "held_out": found.comparison.to_json(),
        "trials": len(found.trials),
        "complete": found.count("complete"),
        "pruned": found.count("pruned"),
        "failed": found.count("failed"),
        "study": str(folder / STUDY_FILE),
        "seconds": round(found.seconds, 2),
    }


def details(found: Found) -> dict[str, Any]:
    """What `tune.json` holds besides."""
    rows = found.rows
    return {
        "rows": {"learned": len(rows.learned), "validation": len(rows.validation),
                 "test": len(rows.test)},
        "space": found.space.to_json(),
        "importances": {name: round(share, 4) for name, share in found.importances.items()},
        "each": [one.to_json() for one in found.trials],
    }  # fmt: skip
