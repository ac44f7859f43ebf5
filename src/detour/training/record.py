"""What stands beside an adapter when a training is over: how it went, on what, and what it did.

`metrics.jsonl` (a line a step), `run.yaml` (settings with nothing left open), `eval.json` (the base
and the adapter on the same rows, and on neutral text), `data_report.json`, and the tokenizer with
its chat template. Knows results and files' contents; writes nothing itself.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from detour.adapter.adapter import Adapter
from detour.data.report import DataReport
from detour.measure.retention import Retention
from detour.model.base import Base
from detour.training.loop import Progress, Result, Watcher

METRICS_FILE, RUN_FILE, EVAL_FILE = "metrics.jsonl", "run.yaml", "eval.json"
DATA_FILE = "data_report.json"
PACKAGES = ("detour-lora", "torch", "transformers", "safetensors")


@dataclass
class History:
    """Every step that a watcher is told, handed on to another watcher."""

    onward: Watcher | None = None
    steps: list[Progress] = field(default_factory=lambda: [])

    def __call__(self, progress: Progress) -> None:
        """Keep it, and hand it on."""
        self.steps.append(progress)
        if self.onward:
            self.onward(progress)

    @property
    def tokens_per_second(self) -> float:
        """Over the whole run; 0 where no step was taken."""
        return self.steps[-1].tokens_per_second if self.steps else 0.0

    def lines(self) -> str:
        """`metrics.jsonl`."""
        return "".join(json.dumps(_line(one)) + "\n" for one in self.steps)


def _line(progress: Progress) -> dict[str, Any]:
    told: dict[str, Any] = {
        "step": progress.step,
        "loss": round(progress.loss, 6),
        "tokens_per_second": round(progress.tokens_per_second, 1),
    }
    if progress.validation is not None:
        told["validation_loss"] = round(progress.validation, 6)
    return told


def losses(result: Result) -> dict[str, Any]:
    """The loss of base and adapter on the rows that chose the checkpoint."""
    return {
        "loss": {"base": round(result.first_loss, 6), "adapter": round(result.best_loss, 6)},
        "rows": result.validation_rows or None,
    }


def beside(
    base: Base,
    result: Result,
    history: History,
    kept: Retention,
    report: DataReport | None,
    data: str,
) -> dict[str, bytes]:
    """All files that stand beside the adapter, by name."""
    told = {"metrics": losses(result), "retention": kept.to_json()}
    contents = {
        METRICS_FILE: history.lines().encode(),
        RUN_FILE: settings_file(base.name, data, result.adapter),
        EVAL_FILE: (json.dumps(told, indent=1) + "\n").encode(),
        **tokenizer_files(base),
    }
    if report is not None:
        written = json.dumps(report.to_json(), indent=1, ensure_ascii=False)
        contents[DATA_FILE] = (written + "\n").encode()
    return contents


def settings_file(base: str, data: str, adapter: Adapter) -> bytes:
    """`run.yaml`: settings with nothing left open, and versions."""
    run = {
        "base": base,
        "data": data,
        "settings": dict(adapter.card.config),
        "versions": {name: version(name) for name in PACKAGES},
    }
    return yaml.safe_dump(run, sort_keys=False, allow_unicode=True).encode()


def tokenizer_files(base: Base) -> dict[str, bytes]:
    """The tokenizer and its chat template, as transformers writes them."""
    if base.tokenizer is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        base.tokenizer.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}
