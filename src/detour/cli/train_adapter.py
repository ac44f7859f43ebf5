"""`detour train DATA -o OUT` for conversations and texts: an adapter, in one process or in several.

Knows Click and files; the training is `detour.training.loop`'s.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.cli.accounting import say_outcome, say_retention
from detour.cli.company import Among
from detour.cli.options import in_a_chain, load_base
from detour.cli.output import note, one_line, print_json, say
from detour.cli.progress import watched
from detour.cli.train import looked_at, saved, teller
from detour.cli.unfinished import Unfinished
from detour.errors import ConfigError
from detour.language.catalogue import Catalogue, text

if TYPE_CHECKING:
    from detour.adapter.adapter import Adapter
    from detour.cli.pipeline import Asked
    from detour.data.reading import Loaded
    from detour.data.report import Look
    from detour.model.base import Base
    from detour.model.examples import Example, Plain
    from detour.team import Team
    from detour.training.account import Accounting
    from detour.training.config import TrainConfig
    from detour.training.loop import Result
    from detour.training.outcome import Outcome

SHOWN = 80  # characters of an answer
BY_ACCELERATE = "ACCELERATE_USE_FSDP"  # set by accelerate launch where its settings ask for it


def train_adapter_and_save(
    loaded: Loaded,
    ask: Asked,
    accounting: Accounting,
    look: Look,
    *,
    start: str | None,
    company: Among | None,
    spread: bool,
    device: str | None,
    full: bool,
    licence: str,
    description: str,
    resume: bool,
    as_json: bool,
    t: Catalogue,
) -> None:
    """Train, save, judge, and say how it went; of several processes the first one does.

    Raises:
        As `train_with`, and StorageError: nothing can be written there.
    """
    from detour.adapter.card import Card
    from detour.adapter.library import Library
    from detour.adapter.peft_format import check_target
    from detour.data.reading import learnable
    from detour.measure.retention import retention
    from detour.model.examples import Example
    from detour.team import assembled
    from detour.training.config import make_config
    from detour.training.loop import train_with
    from detour.training.outcome import Outcome, losses
    from detour.training.record import keep, save
    from detour.training.together import check_plain

    examples = learnable(loaded)
    config = make_config(ask.settings)
    begun = Library.default().load(start) if start else None
    check_target(ask.output)
    unfinished = Unfinished(ask.output, resume)
    spread = spread or os.environ.get(BY_ACCELERATE, "").lower() in ("true", "1")
    if spread and (config.dora or config.init == "pissa"):
        raise ConfigError(
            text("{one} and {other} exclude each other", one="--spread",
                 other="--dora" if config.dora else "--init pissa"),
            hint=text("leave one of them out: these need whole weights"),
        )  # fmt: skip
    if company:
        check_plain(config)
    if company and spread:
        raise ConfigError(text("{one} and {other} exclude each other", one="--spread",
                               other="--company"))  # fmt: skip
    with assembled(device == "cuda") as team:
        if company:
            team.check_alone(text("learning in company"))
        base = _base(ask, device, full, team, spread)
        if not team.leads:
            _follow(base, loaded, examples, config, unfinished, resume, begun, team)
            return
        note(t("{count} rows from {data}; {told}; base {base}", count=len(examples), data=ask.data,
               told=loaded.told, base=base.name))  # fmt: skip
        if team.size > 1:
            note(t("{count} processes train together", count=team.size))
        report = looked_at(ask.data, base, look, t)
        say_so = teller(t)
        try:
            with accounting.of(
                base, ask.output.name, config.model_dump(), say_so, team=team
            ) as account:
                with watched(t("training"), t) as watcher:
                    how: dict[str, Any] = {
                        "name": ask.output.name, "watcher": account.onward(watcher),
                        "teller": say_so, "checkpoints": unfinished.state, "resume": resume,
                        "card": Card(licence=licence, description=description), "start": begun,
                        "ledger": account,
                    }  # fmt: skip
                    if company:
                        result = _among(base, loaded, config, company, how)
                    else:
                        result = train_with(base, loaded, config, **how, team=team)
                outcome = Outcome(
                    base, ask.data, result, account.history, account.cost(result), losses(result),
                    report=report,
                )  # fmt: skip
                keep(outcome, ask.output)
                say_so(saved(ask.output))
                outcome = replace(outcome, retention=retention(base, result.adapter))
                _try_to_end(base, examples, result.adapter, say_so)
                if base.is_spread:
                    team.wait()
                path = save(outcome, ask.output, t)
                account.summary = outcome.for_tracker()
        except KeyboardInterrupt as cause:
            raise unfinished.interrupted() from cause
    unfinished.drop()
    if as_json:
        print_json(summary(outcome, path, team))
        return
    say_outcome(outcome, path, t)
    if outcome.retention:
        say_retention(outcome.retention, t)
    own = f"--chain {in_a_chain(path)} --base {ask.base}"
    has_questions = any(isinstance(row, Example) for row in examples)
    call = f'detour ask "…" {own} --compare' if has_questions else f"detour evaluate DATA {own}"
    say(t("Try: {call}", call=call))


def _among(
    base: Base, loaded: Loaded, config: TrainConfig, among: Among, how: dict[str, Any]
) -> Result:
    """Train in company, on rows that say what all say together, given or asked of the base."""
    from detour.data.reading import learnable
    from detour.model.examples import Example
    from detour.training.company import alone, learn_in_company, prompted_rows

    name, learned = how["name"], learnable(loaded)
    composed = among.rows
    if composed is None:
        asked = [row for row in learned if isinstance(row, Example)]
        if not asked:
            raise ConfigError(
                text("texts have no questions that the base could be asked"),
                hint=text("give rows with --composed"),
            )
        composed = prompted_rows(
            base, asked, name, among.company, seed=config.seed, teller=how["teller"]
        )
    apart = None if loaded.validation is None else alone(learnable(loaded, "validation"), name)
    return learn_in_company(
        base, [*alone(learned, name), *composed], config=config, company=among.company,
        validation=apart or None, **how,
    )  # fmt: skip


def _base(ask: Asked, device: str | None, full: bool, team: Team, spread: bool) -> Base:
    """The base; of one that is spread no device ever holds all."""
    if not spread:
        return load_base(ask.base, device, ask.dtype, ask.quantize, full)
    import torch

    from detour.model.sharding import shard

    base = load_base(ask.base, "cpu", ask.dtype, ask.quantize, full)
    shard(base, team, torch.device(device or "cpu"))
    return base


def _follow(
    base: Base,
    loaded: Loaded,
    examples: Sequence[Example | Plain],
    config: TrainConfig,
    unfinished: Unfinished,
    resume: bool,
    begun: Adapter | None,
    team: Team,
) -> None:
    """What a process does that is not the first: its share, and nothing said or written.

    Over a base that is spread it judges along, since all run such a base together.
    """
    from detour.measure.retention import retention
    from detour.measure.stopping import stopping
    from detour.training.account import shared
    from detour.training.cost import counted
    from detour.training.loop import train_with

    try:
        with counted(base) as work:
            adapter = train_with(
                base, loaded, config, checkpoints=unfinished.state, resume=resume, start=begun,
                team=team,
            ).adapter  # fmt: skip
        shared(work, team, base.device)
        if base.is_spread:
            retention(base, adapter)
            stopping(base, examples, adapter)
            team.wait()
    except KeyboardInterrupt as cause:
        raise click.exceptions.Exit(130) from cause  # the first process speaks for all


def _try_to_end(
    base: Base, rows: Sequence[Example | Plain], adapter: Adapter, say_so: Callable[[str], None]
) -> None:
    """Say it where answers to learned questions do not end."""
    from detour.measure.stopping import stopping

    tried = stopping(base, rows, adapter)
    if tried.unended:
        say_so(
            text("{count} of {asked} answers to learned rows did not end by themselves, such as: "
                 "{said} (train longer; if that does not help, look with detour check whether the "
                 "token that ends an answer is learned)", count=len(tried.unended),
                 asked=tried.asked, said=one_line(tried.unended[0])[:SHOWN])
        )  # fmt: skip


def summary(outcome: Outcome, path: Path, team: Team) -> dict[str, Any]:
    """What --json prints."""
    told = {"adapter": str(path), **outcome.summary()}
    return {**told, "keys": len(outcome.result.adapter.updates), "processes": team.size}
