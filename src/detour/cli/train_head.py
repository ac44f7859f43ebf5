"""`detour train` on texts with a class or a number: an adapter with a head.

Knows records, headed bases and files; called by `detour train` when the rows are such.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detour.cli.accounting import say_outcome
from detour.cli.options import in_a_chain
from detour.cli.output import note, print_json, say
from detour.cli.progress import watched
from detour.cli.unfinished import Unfinished
from detour.errors import ConfigError
from detour.language.catalogue import ENGLISH, Catalogue, text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from detour.data.reading import Loaded
    from detour.data.report import Look
    from detour.model.headed import HeadedBase
    from detour.training.account import Accounting
    from detour.training.config import TrainConfig
    from detour.training.loop import Result


def train_and_save(
    loaded: Loaded,
    data: str,
    output: Path,
    base_name: str,
    settings: Mapping[str, Any],
    given: Mapping[str, object],
    accounting: Accounting,
    look: Look,
    *,
    device: str | None,
    dtype: str | None,
    licence: str,
    description: str,
    resume: bool,
    as_json: bool,
    t: Catalogue = ENGLISH,
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
    from detour.cli.train import looked_at, saved, teller
    from detour.model.headed import HeadedBase
    from detour.training.config import make_config
    from detour.training.heads import check_parts, classes_of, train_head
    from detour.training.outcome import Outcome
    from detour.training.record import keep, save

    config = make_config(settings)
    labels = classes_of(loaded.train)
    check_target(output)
    unfinished = Unfinished(output, resume)
    base = HeadedBase.load(base_name, labels, device=device, dtype=dtype or "float32")
    named = t("{count} classes", count=len(labels)) if labels else t("a number")
    note(t("{count} rows from {data}; {told}; {head}; base {base}", count=len(loaded.train),
           data=data, told=loaded.told, head=named, base=base.name))  # fmt: skip
    check_parts(loaded, base)
    report = looked_at(data, base, look, t)
    say_so = teller(t)
    try:
        with accounting.of(base, output.name, config.model_dump(), say_so) as account:
            with watched(t("training"), t) as watcher:
                result = train_head(
                    base, loaded, config, name=output.name, watcher=account.onward(watcher),
                    teller=say_so, checkpoints=unfinished.state, resume=resume,
                    card=Card(licence=licence, description=description), ledger=account,
                )  # fmt: skip
            outcome = Outcome(
                base, data, result, account.history, account.cost(result), {}, report=report
            )
            keep(outcome, output)
            say_so(saved(output))
            parts = _judged(base, loaded, config, result)
            outcome = replace(outcome, metrics=parts)
            path = save(outcome, output, t)
            account.summary = outcome.for_tracker()
    except KeyboardInterrupt as cause:
        raise unfinished.interrupted() from cause
    unfinished.drop()
    if as_json:
        print_json({"adapter": str(path), **outcome.summary()})
        return
    say_outcome(outcome, path, t)
    for split, told in parts.items():
        say(t("{split}: {adapter}; the plainest guess: {plainest}", split=split,
              adapter=_said(told["adapter"]), plainest=_said(told["plainest"])))  # fmt: skip
    call = f'detour ask "…" --chain {in_a_chain(path)} --base {base_name}'
    say(t("Try: {call}", call=call))


def _judged(
    base: HeadedBase, loaded: Loaded, config: TrainConfig, result: Result
) -> dict[str, Any]:
    """The adapter and the plainest guess on every part of the data but what was learned; of a part
    alone on the rows that were held out.
    """
    from detour.evaluate.heads import plainest, score, to_json
    from detour.training.heads import headed_rows, kept_and_held

    learned, held = kept_and_held(base, loaded, config)
    others = {split: headed_rows(rows, base) for split, rows in loaded.parts.items()
              if split not in ("train", "validation")}  # fmt: skip
    others = {**({"validation": held} if held else {}), **others}
    return {
        split: {
            "adapter": to_json(score(base, rows, result.adapter)),
            "plainest": to_json(plainest(learned, rows)),
        }
        for split, rows in others.items()
    }


def _said(figures: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
        for name, one in figures.items()
    )
