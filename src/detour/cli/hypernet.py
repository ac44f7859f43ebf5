"""`detour hypernet train` and `evaluate`: hypernetworks from task folders, and what they are worth.

Knows Click and files; wires task folders, the base, the oracle adapters of the training floor and
the two objectives.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from detour.cli.hypernet_data import import_command, widen_command
from detour.cli.hypernet_suite import evaluate_suite, suite_options, tasks_or_suite
from detour.cli.options import (
    full_option,
    json_option,
    load_base,
    model_options,
    replace_option,
)
from detour.cli.output import is_terminal, note, print_json, say
from detour.cli.unfinished import Unfinished
from detour.errors import ConfigError
from detour.language.catalogue import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detour.adapter.adapter import Adapter
    from detour.evaluate.hypernet import Arm
    from detour.hypernetwork.config import NetworkConfig
    from detour.hypernetwork.optimise import Progress, Watcher
    from detour.hypernetwork.tasks import Task, Tasks
    from detour.model.base import Base

HEADS = ("L", "M", "S", "Z")
NETWORK_FLAGS = ("head", "encoder", "embedder", "targets", "rank", "alpha")
TRAINING_FLAGS = ("steps", "batch_size", "learning_rate", "naming_steps", "noise")
ARMS = (
    "base", "prompt", "few-shot", "generated", "wrong", "junk", "nearest", "mean", "oracle",
    "all tasks",
)  # fmt: skip
SPELLING = 4096  # buckets, where phrases are read
LINES = 20  # of a run that nobody watches
Command = TypeVar("Command", bound=Callable[..., Any])


def oracle_options(command: Command) -> Command:
    """--oracles and --oracle-steps: the tasks' own adapters."""
    steps = click.option("--oracle-steps", type=click.IntRange(min=1), default=300,
                         show_default=True, help="Steps of a task's adapter.")  # fmt: skip
    folder = click.option("--oracles", type=click.Path(path_type=Path, file_okay=False),
                          help="Folder of the tasks' own adapters; missing ones are "
                          "trained and kept there.")  # fmt: skip
    return folder(steps(command))


@click.group("hypernet")
def group() -> None:
    """Networks that make adapters from sentences."""


group.add_command(import_command)
group.add_command(widen_command)


@group.command("train")
@click.argument("tasks", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True,
              help="The hypernetwork's folder.")  # fmt: skip
@model_options
@full_option
@click.option("--config", "config_file", type=click.Path(path_type=Path),
              help="YAML of `network` and `training` settings; flags win.")  # fmt: skip
@click.option("--head", type=click.Choice(HEADS),
              help="How much a head makes at once; Z only a diagonal.  [default: L]")  # fmt: skip
@click.option("--by", "objective", type=click.Choice(["sft", "recon"]), default="sft",
              show_default=True, help="Loss on the tasks' rows, or on their adapters.")  # fmt: skip
@click.option("--encoder", type=click.Choice(["mean", "tokens", "spans"]),
              help="What is read of a description.  [default: spans if marked]")  # fmt: skip
@click.option("--embedder", help="Text encoder: a folder or a Hub id.  [default: MiniLM]")
@click.option("--targets", help="Layers, with commas.  [default: queries and values]")
@click.option("--rank", type=int, help="Rank of an update.  [default: 4]")
@click.option("--alpha", type=float, help="Scale is alpha / rank.  [default: 2 x rank]")
@click.option("--steps", type=int, help="Optimiser steps.  [default: 1200]")
@click.option("--batch-size", type=int, help="Rows a step.  [default: 48]")
@click.option("--learning-rate", type=float, help="Highest rate.  [default: 0.001]")
@click.option("--naming-steps", type=int,
              help="Steps of learning names before them.  [default: 800]")  # fmt: skip
@click.option("--noise", type=float, help="Noise on descriptions, as a share.  [default: 0.3]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights and order.")
@oracle_options
@click.option("--unsupported", type=click.Path(path_type=Path),
              help="Sentences that it must not claim to understand, a line each.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@replace_option
@json_option
def train(
    tasks: Path,
    output: Path,
    base_name: str,
    device: str | None,
    dtype: str | None,
    quantize: str | None,
    full: bool,
    config_file: Path | None,
    objective: str,
    oracles: Path | None,
    oracle_steps: int,
    unsupported: Path | None,
    resume: bool,
    replace: bool,
    as_json: bool,
    **flags: Any,  # noqa: ANN401 - whatever Click hands over
) -> None:
    """Train a hypernetwork on TASKS, a folder with one folder a task."""
    from detour.hypernetwork.build import build
    from detour.hypernetwork.places import usual_targets
    from detour.hypernetwork.saved import check_output, save_generator
    from detour.hypernetwork.tasks import read_tasks
    from detour.model.examples import read_text
    from detour.team import ALONE, assembled

    check_output(output, replace or resume)
    seed = int(flags.pop("seed"))
    found = read_tasks(tasks, seed)
    told = read_settings(config_file) if config_file else {}
    config = network_config(told.get("network", {}), flags, found)
    training = supervise_config(told.get("training", {}), flags, seed)
    strange = read_text(unsupported, text("a sentence a line")).splitlines() if unsupported else []
    unfinished = Unfinished(output, resume)
    team = ALONE
    try:
        with assembled(device == "cuda") as team:
            base = load_base(base_name, device, dtype, quantize, full)
            if "targets" not in config.model_fields_set:
                targets = usual_targets(base.slots.linear_names()) or "all-linear"
                config = config.model_copy(update={"targets": targets})
            library = None
            if objective == "recon":
                team.check_alone(text("reconstruction"))
                wanted = [task for task in found.every if task.split != "test"]
                library = _oracles(base, wanted, config, oracles, oracle_steps, seed)
            built = build(
                base, found, config, training, adapters=library, watcher=_watcher(),
                teller=note if team.leads else None,
                unsupported=[line for line in strange if line.strip()],
                checkpoints=unfinished.state, resume=resume, team=team,
            )  # fmt: skip
    except KeyboardInterrupt as cause:
        if not team.leads:
            raise click.exceptions.Exit(130) from cause  # the first process speaks for all
        raise unfinished.interrupted() from cause
    if not team.leads:
        return
    figures: dict[str, Any] = {
        "by": objective,
        "best_loss": round(built.best_loss, 6),
        "best_step": built.best_step,
        "steps": training.steps,
        "parameters": built.parameters,
        "processes": team.size,
        "tasks": {split: len(found.of(split)) for split in ("train", "validation", "test")},
        **built.figures,
    }
    save_generator(built.generator, output, figures)
    unfinished.drop()
    if as_json:
        print_json({"hypernetwork": str(output), **figures})
        return
    say(
        f"{output}: {built.parameters:,} parameters, {figures['tasks']['train']} training tasks, "
        f"validation {built.best_loss:.3f} at step {built.best_step} of {training.steps}"
    )
    if built.generator.confidence is None:
        say(
            "its confidence could not be fitted (too few descriptions that it gets wrong, or none "
            "to tell by): what it says of a sentence is only how probable the names are"
        )
    say(f'Try: detour generate "…" --hypernet {output} --base {base_name} -o my-adapter')


def read_settings(path: Path) -> dict[str, dict[str, Any]]:
    """The settings of a YAML file: `network` and `training`, each a mapping.

    Raises:
        ConfigError: not readable, not YAML, or of other parts.
    """
    import yaml

    from detour.model.examples import read_text

    raw = read_text(path, text("settings in YAML"))
    try:
        told: Any = yaml.safe_load(raw)
    except yaml.YAMLError as cause:
        raise ConfigError(
            text("{place} is not YAML", place=path), found=str(getattr(cause, "problem", cause))
        ) from cause
    known = {"network", "training"}
    if (
        not isinstance(told, dict)
        or set(told) - known
        or not all(isinstance(part, dict) for part in told.values())
    ):
        raise ConfigError(
            text("{path} holds no settings of a hypernetwork", path=path),
            expected=text("network: and training:, with settings below them"),
            found=", ".join(map(str, told)) if isinstance(told, dict) else type(told).__name__,
        )
    return told


def network_config(told: dict[str, Any], flags: dict[str, Any], tasks: Tasks) -> NetworkConfig:
    """What file and flags say of the network; phrases are read where all descriptions mark them.

    Raises:
        ConfigError: a value out of range, or phrases asked for where none are marked.
    """
    from pydantic import ValidationError

    from detour.hypernetwork.config import NetworkConfig

    descriptions = [d for task in tasks.of("train") for d in task.of_set()]
    marked = all(d.parts for d in descriptions)
    given = {name: flags[name] for name in NETWORK_FLAGS}
    given["targets"] = _names(flags["targets"])
    wanted = {**told, **{name: value for name, value in given.items() if value is not None}}
    wanted.setdefault("encoder", "spans" if marked else "tokens")
    wanted.setdefault("spelling", SPELLING if wanted["encoder"] == "spans" else 0)
    if "alpha" not in wanted and isinstance(wanted.get("rank"), int):
        wanted["alpha"] = 2.0 * wanted["rank"]
    if wanted["encoder"] == "spans" and not any(d.parts for d in descriptions):
        raise ConfigError(
            text("--encoder spans needs descriptions whose phrases are marked"),
            expected=text("parts in the descriptions of task.yaml"),
            hint="--encoder tokens",
        )
    try:
        return NetworkConfig.model_validate(wanted)
    except ValidationError as cause:
        raise _out_of_range(cause) from cause


def supervise_config(told: dict[str, Any], flags: dict[str, Any], seed: int) -> Any:  # noqa: ANN401 - imported lazily
    """What file and flags say of the training.

    Raises:
        ConfigError: a value out of range.
    """
    from pydantic import ValidationError

    from detour.hypernetwork.config import SuperviseConfig

    given = {name: flags[name] for name in TRAINING_FLAGS if flags[name] is not None}
    try:
        return SuperviseConfig.model_validate({**told, **given, "seed": seed})
    except ValidationError as cause:
        raise _out_of_range(cause) from cause


def _out_of_range(cause: Any) -> ConfigError:  # noqa: ANN401 - pydantic's error
    first = cause.errors()[0]
    name = str(first["loc"][0])
    flag = f"--{name.replace('_', '-')}" if name in (*NETWORK_FLAGS, *TRAINING_FLAGS) else name
    return ConfigError(
        text("{flag} is out of range", flag=flag),
        expected=str(first["msg"]),
        found=repr(first["input"])[:60],
    )


def _names(given: str | None) -> tuple[str, ...] | str | None:
    if given is None or given == "all-linear":
        return given
    return tuple(part.strip() for part in given.split(",") if part.strip())


def _oracles(
    base: Base,
    tasks: Sequence[Task],
    config: NetworkConfig,
    folder: Path | None,
    steps: int,
    seed: int,
) -> dict[str, Adapter]:
    """The tasks' own adapters, of the hypernetwork's size: read, or trained together now."""
    from detour.evaluate.baselines import task_adapters

    return task_adapters(
        base, tasks, folder, targets=_listed(config.targets), rank=config.rank,
        alpha=config.alpha, steps=steps, seed=seed, teller=note,
    )  # fmt: skip


def _listed(targets: tuple[str, ...] | str) -> list[str] | str:
    return targets if isinstance(targets, str) else list(targets)


def _watcher() -> Watcher:
    """Progress on stderr: often where a person watches, a few lines otherwise."""
    often = 100 if is_terminal(sys.stderr) else LINES

    def watch(progress: Progress) -> None:
        every = max(1, progress.steps // often)
        if progress.step % every and progress.validation is None:
            return
        judged = "" if progress.validation is None else f"  validation {progress.validation:.3f}"
        note(
            f"hypernetwork  {progress.step}/{progress.steps}  loss {progress.loss:.3f}  "
            f"naming {progress.named:.3f}  size {progress.size:.2f}{judged}  "
            f"{progress.seconds_left:.0f} s left"
        )

    return watch


def _check_names(beside: Sequence[str]) -> None:
    """Raise ConfigError where a column of the table would stand for two things."""
    taken = [name for name in beside if name in ARMS or beside.count(name) > 1]
    if taken:
        raise ConfigError(
            text("--beside names a column that is there already"),
            expected=text("folders whose names differ from each other and from {names}",
                          names=", ".join(ARMS)),
            found=", ".join(dict.fromkeys(taken)),
        )  # fmt: skip


@group.command("evaluate")
@click.argument("hypernet", type=click.Path(path_type=Path))
@click.argument("tasks", type=click.Path(path_type=Path), required=False)
@model_options
@click.option("--items", type=click.IntRange(min=1), default=100, show_default=True,
              help="Rows of each task, under each set of descriptions.")  # fmt: skip
@click.option("--seen", type=click.IntRange(min=0), default=30, show_default=True,
              help="Training tasks that are judged beside the held-out ones.")  # fmt: skip
@click.option("--beside", type=click.Path(path_type=Path), multiple=True,
              help="Another hypernetwork of the same base; may be given again.")  # fmt: skip
@oracle_options
@click.option("--all-tasks", type=click.Path(path_type=Path),
              help="An adapter of all tasks together; trained there if missing.")  # fmt: skip
@click.option("--all-tasks-steps", type=click.IntRange(min=1), default=1200, show_default=True,
              help="Its steps, of 48 rows.")  # fmt: skip
@click.option("--map", "picture", type=click.Path(path_type=Path),
              help="PNG: the adapters in weight space, and scores by distance.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the rows drawn.")
@suite_options
@json_option
def evaluate(
    hypernet: Path,
    tasks: Path | None,
    base_name: str,
    device: str | None,
    dtype: str | None,
    quantize: str | None,
    items: int,
    seen: int,
    beside: tuple[Path, ...],
    oracles: Path | None,
    oracle_steps: int,
    all_tasks: Path | None,
    all_tasks_steps: int,
    picture: Path | None,
    seed: int,
    as_json: bool,
    **suite: Any,  # noqa: ANN401 - whatever Click hands over
) -> None:
    """Measure HYPERNET on the held-out tasks and descriptions of TASKS, beside other ways."""
    tasks = tasks_or_suite(tasks, suite)
    if tasks is None:
        evaluate_suite(hypernet, base_name, device, dtype, quantize, as_json, suite)
        return
    from detour.evaluate import hypernet as ways
    from detour.evaluate.baselines import mean_of, one_for_all
    from detour.evaluate.costs import costs
    from detour.hypernetwork.saved import load_generator
    from detour.hypernetwork.tasks import read_tasks

    found = read_tasks(tasks, seed)
    _check_names([path.name for path in beside])
    generator, *others = [load_generator(path) for path in (hypernet, *beside)]
    base = load_base(base_name, device, dtype, quantize)
    for one in (generator, *others):
        one.check_base(base.fingerprint)
    judged = ways.items_of(found, items, seen, seed)
    arms: dict[str, Arm] = {
        "base": ways.base_arm,
        "prompt": ways.prompt_arm(base),
        "few-shot": ways.few_shot_arm(base),
        "generated": ways.generated_arm(generator),
        "wrong": ways.generated_arm(generator, ways.wrong_text(judged)),
        "junk": ways.generated_arm(generator, ways.junk_text),
    }
    arms |= {path.name: ways.generated_arm(one) for path, one in zip(beside, others, strict=True)}
    config = generator.network.config
    if oracles is not None:
        every = {item.task.name: item.task for item in judged}
        every |= {task.name: task for task in found.of("train")}
        own = _oracles(base, list(every.values()), config, oracles, oracle_steps, seed)
        learned = {task.name: own[task.name] for task in found.of("train")}
        arms |= {
            "nearest": ways.nearest_arm(learned, found, generator),
            "mean": ways.one_for_all_arm(mean_of(list(learned.values()))),
            "oracle": ways.adapter_arm(own),
        }
    if all_tasks is not None:
        whole = one_for_all(
            base, found, all_tasks, described=False, targets=_listed(config.targets),
            rank=config.rank, alpha=config.alpha, steps=all_tasks_steps, batch_size=48, seed=seed,
            teller=note,
        )  # fmt: skip
        arms["all tasks"] = ways.one_for_all_arm(whole)
    took = ways.milliseconds_per_adapter(generator, [item.description.text for item in judged])
    table = ways.evaluate(base, judged, arms, teller=note, milliseconds=took)
    spent = costs(
        base, generator, judged,
        {name: arms[name] for name in ("base", "prompt", "few-shot", "generated")},
        steps=oracle_steps,
    )  # fmt: skip
    if picture is not None:
        from detour.evaluate.weight_space import draw

        note(str(draw(generator, found, table, picture)))
    if as_json:
        print_json({**table.to_json(), "costs": spent.to_json()})
        return
    from detour.cli.output import print_table

    rows = [
        (split, *(f"{table.figure(arm, split).value:.2f}" for arm in table.hits),
         str(table.figure("generated", split).n))
        for split in table.splits
    ]  # fmt: skip
    print_table(("exact match", *table.hits, "n"), rows)
    for name in ("wrong", "junk"):
        say(f"matched minus {name}, on held-out tasks: {table.difference('generated', name)}")
    if oracles is not None:
        share = table.share_of_gain()
        say(f"of what the tasks' own adapters gain, on seen tasks: {share:.2f}")
    say(f"{took:.0f} ms a generated adapter")
    for name in ("prompt", "few-shot"):
        if math.isfinite(end := spent.break_even(name)):
            say(f"cheaper than {name} after {math.ceil(end)} answers (FLOPs)")
    say(
        f"training a task's own adapter, {oracle_steps} steps, takes {spent.of_training:.0f} times "
        "the FLOPs of generating one"
    )
