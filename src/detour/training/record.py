"""What stands beside an adapter when a training is over: how it went, on what, and what it did.

`metrics.jsonl` (a line a step), `curves.png`, `run.yaml` (settings with nothing left open),
`eval.json` (the base and the adapter on the same rows, on neutral text, and what it cost),
`data_report.json`, `report.html` with all of it, and the tokenizer with its chat template. Knows
outcomes and files' contents.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from detour.language.catalogue import ENGLISH, Catalogue
from detour.training.cost import AnyBase
from detour.training.curves import curves_png, curves_svg
from detour.training.outcome import Outcome
from detour.training.run_page import curves_of, run_page

METRICS_FILE, RUN_FILE, EVAL_FILE = "metrics.jsonl", "run.yaml", "eval.json"
CARD_FILE = "README.md"
DATA_FILE, CURVES_FILE, PAGE_FILE = "data_report.json", "curves.png", "report.html"
PACKAGES = ("detour-lora", "torch", "transformers", "safetensors")


def keep(outcome: Outcome, folder: Path) -> None:
    """Write what a training gave before it is judged, so that no fault after it loses it.

    What an older run left there of its judgements goes.

    Raises: as `Adapter.save`.
    """
    outcome.adapter.save(folder, _known(outcome))
    for name in (EVAL_FILE, DATA_FILE, CURVES_FILE, PAGE_FILE):
        (folder / name).unlink(missing_ok=True)


def save(outcome: Outcome, folder: Path, t: Catalogue = ENGLISH) -> Path:
    """Write the adapter with everything beside it, whole or not at all.

    Raises: as `Adapter.save`.
    """
    return outcome.adapter.save(folder, beside(outcome, t))


def beside(outcome: Outcome, t: Catalogue = ENGLISH) -> dict[str, bytes]:
    """All files that stand beside the adapter, by name; what people read in the catalogue's
    language.
    """
    told = json.dumps(outcome.judged(), indent=1)
    curves = curves_of(outcome, t)
    contents = {
        **_known(outcome),
        EVAL_FILE: (told + "\n").encode(),
        CURVES_FILE: curves_png(curves, t),
        PAGE_FILE: run_page(outcome, curves_svg(curves, t), t).encode(),
    }
    if outcome.report is not None:
        written = json.dumps(outcome.report.to_json(), indent=1, ensure_ascii=False)
        contents[DATA_FILE] = (written + "\n").encode()
    return contents


def _known(outcome: Outcome) -> dict[str, bytes]:
    """What needs no judging."""
    settings = outcome.result.adapter.card.config
    return {
        METRICS_FILE: outcome.history.lines().encode(),
        RUN_FILE: settings_file(outcome.base.name, outcome.data, settings),
        **tokenizer_files(outcome.base),
    }


def settings_file(base: str, data: str, settings: Mapping[str, Any], **more: object) -> bytes:
    """`run.yaml`: settings with nothing left open, and versions."""
    run = {
        "base": base,
        "data": data,
        **more,
        "settings": dict(settings),
        "versions": {name: version(name) for name in PACKAGES},
    }
    return yaml.safe_dump(run, sort_keys=False, allow_unicode=True).encode()


def model_card(base: str, licence: str, description: str) -> bytes:
    """README.md of a model of which every weight has learned, as model hubs read it."""
    known = {"base_model": base, "license": licence}
    front = yaml.safe_dump({n: v for n, v in known.items() if v}, allow_unicode=True)
    parts = (f"---\n{front}---", "# Model", description, f"## Base\n\n{base}")
    return ("\n\n".join(part for part in parts if part) + "\n").encode()


def tokenizer_files(base: AnyBase) -> dict[str, bytes]:
    """The tokenizer and its chat template, as transformers writes them."""
    if base.tokenizer is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        base.tokenizer.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}
