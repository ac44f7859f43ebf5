"""`detour train DATA --whole`: every weight learns, and what comes out is a model.

Knows Click and files; the training is `detour.training.whole`'s.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from detour.cli.accounting import say_cost, say_retention
from detour.cli.options import load_base
from detour.cli.output import note, print_json, say
from detour.cli.progress import watched
from detour.cli.unfinished import Unfinished
from detour.errors import ConfigError
from detour.language.catalogue import Catalogue, text

if TYPE_CHECKING:
    from detour.cli.pipeline import Asked
    from detour.data.reading import Loaded
    from detour.data.report import DataReport, Look
    from detour.measure.retention import Retention
    from detour.training.account import Accounting
    from detour.training.cost import Cost
    from detour.training.history import History
    from detour.training.whole import Whole


def train_whole_and_save(
    loaded: Loaded,
    ask: Asked,
    accounting: Accounting,
    look: Look,
    *,
    start: str | None,
    device: str | None,
    full: bool,
    licence: str,
    description: str,
    resume: bool,
    as_json: bool,
    t: Catalogue,
) -> None:
    """Train on conversations or texts, save the model, then judge it and say how it went.

    Raises:
        ConfigError: rows of another kind, a start, a quantised base, a folder with other files.
        StorageError: nothing can be written there; told before the training.
    """
    from detour.cli.train import looked_at, saved, teller
    from detour.files import check_writable, write_text_atomically
    from detour.measure.retention import retention
    from detour.training.config import make_config
    from detour.training.record import EVAL_FILE, model_card
    from detour.training.whole import check_whole, copy_of, train_whole

    _check(loaded, ask, start, resume)
    check_writable(ask.output)
    config = make_config(ask.settings)
    unfinished = Unfinished(ask.output, resume, whole=True)
    base = load_base(ask.base, device, ask.dtype, full=full)
    check_whole(base, config)
    note(t("{count} rows from {data}; {told}; base {base}", count=len(loaded.train),
           data=ask.data, told=loaded.told, base=base.name))  # fmt: skip
    report = looked_at(ask.data, base, look, t)
    say_so = teller(t)
    model = copy_of(base)
    try:
        with accounting.of(base, ask.output.name, config.model_dump(), say_so, model) as account:
            with watched(t("training"), t) as watcher:
                result = train_whole(
                    base, loaded, config, watcher=account.onward(watcher), teller=say_so,
                    checkpoints=unfinished.state, resume=resume, model=model, ledger=account,
                )  # fmt: skip
            cost = account.cost(result)
            card = model_card(base.name, licence, description)
            result.save(
                ask.output, _beside(result, account.history, ask.data, base.name, report, card)
            )
            say_so(saved(ask.output))
            kept = retention(base, None, changed=result.base)
            told = summary(result, kept, cost)
            write_text_atomically(ask.output / EVAL_FILE, json.dumps(told, indent=1) + "\n")
            account.summary = _for_tracker(result, kept, cost)
    except KeyboardInterrupt as cause:
        raise unfinished.interrupted() from cause
    unfinished.drop()
    if as_json:
        print_json({"model": str(ask.output), **told})
        return
    say(t("{folder}: loss {first:.3f} to {best:.3f} (step {step} of {steps}, {seconds:.0f} s)",
          folder=ask.output, first=result.first_loss, best=result.best_loss,
          step=result.best_step, steps=result.steps, seconds=result.seconds))  # fmt: skip
    say_cost(cost, t)
    say_retention(kept, t)
    say(t("Try: {call}", call=unfinished.trial()))


def _check(loaded: Loaded, ask: Asked, start: str | None, resume: bool) -> None:
    from detour.training.record import RUN_FILE

    if loaded.kind in ("classification", "regression"):
        raise ConfigError(
            text("rows with a class or a number train a head, not all weights"),
            hint=text("leave --whole away"),
        )
    if start or ask.quantize:
        raise ConfigError(
            text("{one} and {other} exclude each other", one="--whole",
                 other="--start" if start else "--quantize"),
            hint=text("leave --whole away"),
        )  # fmt: skip
    if resume and (ask.output / RUN_FILE).is_file():
        return  # the training was over, and what comes after it was interrupted
    if ask.output.exists() and (not ask.output.is_dir() or any(ask.output.iterdir())):
        raise ConfigError(
            text("{folder} is there already and is not empty", folder=ask.output),
            expected=text("a new or empty folder"),
        )


def summary(result: Whole, kept: Retention, cost: Cost) -> dict[str, Any]:
    """What --json prints and `eval.json` holds."""
    return {
        "rows": result.rows,
        "validation_rows": result.validation_rows,
        "steps": result.steps,
        "learning_rate": result.plan.learning_rate,
        "first_loss": round(result.first_loss, 6),
        "best_loss": round(result.best_loss, 6),
        "best_step": result.best_step,
        "train_seconds": round(result.seconds, 2),
        "retention": kept.to_json(),
        "cost": cost.to_json(),
    }


def _for_tracker(result: Whole, kept: Retention, cost: Cost) -> dict[str, float]:
    return {
        "first_loss": result.first_loss,
        "best_loss": result.best_loss,
        "best_step": result.best_step,
        "flops": cost.flops,
        "seconds": cost.seconds,
        "energy_wh": cost.energy.watt_hours,
        **kept.to_json(),
    }


def _beside(
    result: Whole, history: History, data: str, base: str, report: DataReport, card: bytes
) -> dict[str, bytes]:
    """What stands beside the weights before anything is judged."""
    from detour.training.record import (
        CARD_FILE,
        DATA_FILE,
        METRICS_FILE,
        RUN_FILE,
        settings_file,
    )

    told = json.dumps(report.to_json(), indent=1, ensure_ascii=False)
    return {
        METRICS_FILE: history.lines().encode(),
        RUN_FILE: settings_file(base, data, result.settings, whole=True),
        DATA_FILE: (told + "\n").encode(),
        CARD_FILE: card,
    }
