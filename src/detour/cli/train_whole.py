"""`detour train DATA --whole`: every weight learns, and what comes out is a model.

Knows Click and files; the training is `detour.training.whole`'s.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from detour.cli.options import load_base
from detour.cli.output import note, print_json, say
from detour.cli.progress import watched
from detour.cli.unfinished import Unfinished
from detour.errors import ConfigError
from detour.language.catalogue import Catalogue, text

if TYPE_CHECKING:
    from detour.cli.pipeline import Asked
    from detour.data.reading import Loaded
    from detour.measure.retention import Retention
    from detour.training.outcome import History
    from detour.training.whole import Whole


def train_whole_and_save(
    loaded: Loaded,
    ask: Asked,
    *,
    start: str | None,
    device: str | None,
    full: bool,
    resume: bool,
    as_json: bool,
    t: Catalogue,
) -> None:
    """Train on conversations or texts, save the model, say how it went.

    Raises:
        ConfigError: rows of another kind, a start, a quantised base, a folder with other files.
    """
    from detour.measure.retention import retention
    from detour.training.config import make_config
    from detour.training.outcome import History
    from detour.training.whole import train_whole

    _check(loaded, ask, start)
    unfinished = Unfinished(ask.output, resume)
    base = load_base(ask.base, device, ask.dtype, full=full)
    note(t("{count} rows from {data}; {told}; base {base}", count=len(loaded.train),
           data=ask.data, told=loaded.told, base=base.name))  # fmt: skip
    try:
        with watched(t("training"), t) as watcher:
            history = History(watcher)
            result = train_whole(
                base, loaded, make_config(ask.settings), watcher=history,
                teller=lambda told: note(t.say(told)), checkpoints=unfinished.state,
                resume=resume,
            )  # fmt: skip
        kept = retention(base, None, changed=result.base)
        told = summary(result, kept)
        result.save(ask.output, _beside(told, history, ask, base.name))
    except KeyboardInterrupt as cause:
        raise unfinished.interrupted() from cause
    unfinished.drop()
    if as_json:
        print_json({"model": str(ask.output), **told})
        return
    say(t("{folder}: loss {first:.3f} to {best:.3f} (step {step} of {steps}, {seconds:.0f} s)",
          folder=ask.output, first=result.first_loss, best=result.best_loss,
          step=result.best_step, steps=result.steps, seconds=result.seconds))  # fmt: skip
    say(t("neutral text: perplexity {before:.2f} to {after:.2f}, KL {kl:.4f} nats a token",
          before=kept.perplexity_before, after=kept.perplexity_after,
          kl=kept.kl_mean))  # fmt: skip
    say(t("Try: {call}", call=f'detour ask "…" --base ./{ask.output}'))


def _check(loaded: Loaded, ask: Asked, start: str | None) -> None:
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
    if ask.output.exists() and (not ask.output.is_dir() or any(ask.output.iterdir())):
        raise ConfigError(
            text("{folder} is there already and is not empty", folder=ask.output),
            expected=text("a new or empty folder"),
        )


def summary(result: Whole, kept: Retention) -> dict[str, Any]:
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
    }


def _beside(told: dict[str, Any], history: History, ask: Asked, base: str) -> dict[str, bytes]:
    import yaml

    from detour.training.record import EVAL_FILE, METRICS_FILE, RUN_FILE

    run = {"base": base, "data": ask.data, "whole": True, "settings": ask.settings}
    return {
        METRICS_FILE: history.lines().encode(),
        RUN_FILE: yaml.safe_dump(run, sort_keys=False, allow_unicode=True).encode(),
        EVAL_FILE: (json.dumps(told, indent=1) + "\n").encode(),
    }
