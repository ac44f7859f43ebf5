"""`detour train` on texts with a class or a number: an adapter with a head.

Knows records, headed bases and files; called by `detour train` when the rows are such.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detour.cli.options import in_a_chain
from detour.cli.output import note, print_json, say
from detour.cli.progress import watched
from detour.cli.unfinished import Unfinished
from detour.errors import ConfigError
from detour.language.catalogue import text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from detour.data.reading import Loaded
    from detour.training.loop import Result
    from detour.training.record import History


def train_and_save(
    loaded: Loaded,
    data: str,
    output: Path,
    base_name: str,
    settings: Mapping[str, Any],
    given: Mapping[str, object],
    *,
    device: str | None,
    dtype: str | None,
    licence: str,
    description: str,
    resume: bool,
    as_json: bool,
) -> None:
    """Train on the rows, write the adapter, say what it reaches.

    Raises:
        ConfigError: an option that means nothing here. What `train_head` raises.
    """
    for name, value in given.items():
        if value is not None:
            raise ConfigError(
                text("--{name} is not for rows with a class or a number", name=name),
                hint=text("leave it out"),
            )
    from detour.adapter.card import Card
    from detour.adapter.peft_format import check_target
    from detour.evaluate.heads import plainest, score, to_json
    from detour.model.headed import HeadedBase
    from detour.training.config import make_config
    from detour.training.heads import classes_of, headed_rows, train_head
    from detour.training.record import History, settings_file

    config = make_config(settings)
    labels = classes_of(loaded.train)
    check_target(output)
    unfinished = Unfinished(output, resume)
    base = HeadedBase.load(base_name, labels, device=device, dtype=dtype or "float32")
    named = f"{len(labels)} classes" if labels else "a number"
    note(f"{len(loaded.train)} rows from {data}; {loaded.told}; {named}; base {base.name}")
    try:
        with watched("training") as watcher:
            history = History(watcher)
            result = train_head(
                base, loaded, config, name=output.name, watcher=history, teller=note,
                checkpoints=unfinished.state, resume=resume,
                card=Card(licence=licence, description=description),
            )  # fmt: skip
        parts = {
            split: {
                "adapter": to_json(score(base, headed_rows(rows, base), result.adapter)),
                "plainest": to_json(
                    plainest(headed_rows(loaded.train, base), headed_rows(rows, base))
                ),
            }
            for split, rows in loaded.parts.items()
            if split != "train"
        }
        files = {
            "metrics.jsonl": history.lines().encode(),
            "run.yaml": settings_file(base.name, data, result.adapter),
            "eval.json": (json.dumps({"metrics": parts}, indent=1) + "\n").encode(),
        }
        path = result.adapter.save(output, files)
    except KeyboardInterrupt as cause:
        raise unfinished.interrupted() from cause
    unfinished.drop()
    if as_json:
        print_json(summary(result, path, history, parts))
        return
    say(
        f"{path}: loss {result.first_loss:.3f} to {result.best_loss:.3f} "
        f"(step {result.best_step} of {result.plan.steps}, {result.seconds:.0f} s)"
    )
    for split, told in parts.items():
        say(f"{split}: {_said(told['adapter'])}; the plainest guess: {_said(told['plainest'])}")
    say(f"Try: detour evaluate DATA --chain {in_a_chain(path)} --base {base_name}")


def _said(figures: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
        for name, one in figures.items()
    )


def summary(
    result: Result, path: Path, history: History, parts: Mapping[str, Any]
) -> dict[str, Any]:
    """What --json prints."""
    return {
        "adapter": str(path),
        "rows": result.rows,
        "validation_rows": result.validation_rows,
        "steps": result.plan.steps,
        "learning_rate": result.plan.learning_rate,
        "first_loss": round(result.first_loss, 6),
        "best_loss": round(result.best_loss, 6),
        "best_step": result.best_step,
        "train_seconds": round(result.seconds, 2),
        "tokens_per_second": round(history.tokens_per_second, 1),
        "loss_first": round(history.steps[0].loss, 6) if history.steps else None,
        "loss_last": round(history.steps[-1].loss, 6) if history.steps else None,
        "metrics": parts,
    }
