"""`detour hypernet train` and `evaluate`: hypernetworks from task folders, and what they are worth.

Knows Click and files; wires task folders, the base, the oracle adapters of the training floor and
the two objectives.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.cli.options import full_option, json_option, load_base, model_options
from detour.cli.output import is_terminal, note, print_json, say
from detour.cli.unfinished import state_folder
from detour.errors import ConfigError, DataError, Interrupted
from detour.language.catalogue import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detour.adapter.adapter import Adapter
    from detour.evaluate.hypernet import Arm, Item
    from detour.hypernetwork.config import NetworkConfig
    from detour.hypernetwork.generator import Generator
    from detour.hypernetwork.optimise import Progress, Watcher
    from detour.hypernetwork.tasks import Tasks
    from detour.model.base import Base

HEADS = ("L", "M", "S", "Z")
LINES = 20  # of a run that nobody watches


@click.group("hypernet")
def group() -> None:
    """Networks that make adapters from sentences."""


@group.command("train")
@click.argument("tasks", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True,
              help="The hypernetwork's folder.")  # fmt: skip
@model_options
@full_option
@click.option("--head", type=click.Choice(HEADS), default="L", show_default=True,
              help="How much a head makes at once; Z only a diagonal.")  # fmt: skip
@click.option("--by", "objective", type=click.Choice(["sft", "recon"]), default="sft",
              show_default=True, help="Loss on the tasks' rows, or on their adapters.")  # fmt: skip
@click.option("--encoder", type=click.Choice(["mean", "tokens", "spans"]),
              help="What is read of a description.  [default: spans if marked]")  # fmt: skip
@click.option("--embedder", help="Text encoder: a folder or a Hub id.  [default: MiniLM]")
@click.option("--targets", help="Layers to adapt, names with commas.  [default: q_proj,v_proj]")
@click.option("--rank", type=int, help="Rank of an update.  [default: 4]")
@click.option("--alpha", type=float, help="Scale is alpha / rank.  [default: 2 x rank]")
@click.option("--steps", type=int, help="Optimiser steps.  [default: 1200]")
@click.option("--batch-size", type=int, help="Rows a step.  [default: 48]")
@click.option("--learning-rate", type=float, help="Highest rate.  [default: 0.001]")
@click.option("--naming-steps", type=int,
              help="Steps of learning names before them.  [default: 800]")  # fmt: skip
@click.option("--noise", type=float, help="Noise on descriptions, as a share.  [default: 0.3]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights and order.")
@click.option("--oracles", type=click.Path(path_type=Path),
              help="Folder of task adapters to reconstruct.  [default: trained first]")  # fmt: skip
@click.option("--oracle-steps", type=int, default=300, show_default=True,
              help="Steps of each task's adapter, where they are trained first.")  # fmt: skip
@click.option("--unsupported", type=click.Path(path_type=Path),
              help="Sentences that it must not claim to understand, a line each.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@json_option
def train(
    tasks: Path,
    output: Path,
    base_name: str,
    device: str | None,
    dtype: str | None,
    quantize: str | None,
    full: bool,
    objective: str,
    oracles: Path | None,
    oracle_steps: int,
    unsupported: Path | None,
    resume: bool,
    as_json: bool,
    **flags: Any,  # noqa: ANN401 - whatever Click hands over
) -> None:
    """Train a hypernetwork on TASKS, a folder with one folder a task."""
    from detour.hypernetwork.build import build
    from detour.hypernetwork.saved import check_output, save_generator
    from detour.hypernetwork.tasks import read_tasks
    from detour.model.examples import read_text

    check_output(output)
    seed = int(flags.pop("seed"))
    found = read_tasks(tasks, seed)
    config = network_config(flags, found)
    training = supervise_config(flags, seed)
    strange = read_text(unsupported, text("a sentence a line")).splitlines() if unsupported else []
    state = state_folder(output)
    if resume and not (state / "state.safetensors").exists():
        raise ConfigError(
            text("{state} holds no interrupted run", state=state),
            hint=text("leave out --resume"),
        )
    base = load_base(base_name, device, dtype, quantize, full)
    library = None
    if objective == "recon":
        library = _oracles(base, found, config, oracles, oracle_steps, seed)
    try:
        built = build(
            base, found, config, training, adapters=library, watcher=_watcher(), teller=note,
            unsupported=[line for line in strange if line.strip()],
            checkpoints=state, resume=resume,
        )  # fmt: skip
    except KeyboardInterrupt as cause:
        raise Interrupted(
            text("stopped; the state is saved in {state}", state=state),
            hint=text("the same command with --resume"),
        ) from cause
    figures: dict[str, Any] = {
        "by": objective,
        "best_loss": round(built.best_loss, 6),
        "best_step": built.best_step,
        "steps": training.steps,
        "parameters": built.parameters,
        "tasks": {split: len(found.of(split)) for split in ("train", "validation", "test")},
        **built.figures,
    }
    save_generator(built.generator, output, figures)
    shutil.rmtree(state, ignore_errors=True)
    if as_json:
        print_json({"hypernetwork": str(output), **figures})
        return
    say(
        f"{output}: {built.parameters:,} parameters, {figures['tasks']['train']} training tasks, "
        f"validation {built.best_loss:.3f} at step {built.best_step} of {training.steps}"
    )
    say(f'Try: detour generate "…" --hypernet {output} --base {base_name} -o my-adapter')


def network_config(flags: dict[str, Any], tasks: Tasks) -> NetworkConfig:
    """What the flags say of the network; phrases are read where all descriptions mark them.

    Raises:
        ConfigError: a value out of range, or phrases asked for where none are marked.
    """
    from pydantic import ValidationError

    from detour.hypernetwork.config import NetworkConfig

    told = [d for task in tasks.of("train") for d in task.of_set()]
    marked = all(d.parts for d in told)
    wanted = {
        "head": flags["head"],
        "encoder": flags["encoder"] or ("spans" if marked else "tokens"),
        "embedder": flags["embedder"],
        "rank": flags["rank"],
        "alpha": 2.0 * (flags["rank"] or 4) if flags["alpha"] is None else flags["alpha"],
        "targets": _names(flags["targets"]),
    }
    if wanted["encoder"] == "spans" and not any(d.parts for d in told):
        raise ConfigError(
            text("--encoder spans needs descriptions whose phrases are marked"),
            expected=text("parts in the descriptions of task.yaml"),
            hint="--encoder tokens",
        )
    try:
        return NetworkConfig.model_validate({k: v for k, v in wanted.items() if v is not None})
    except ValidationError as cause:
        raise _out_of_range(cause) from cause


def supervise_config(flags: dict[str, Any], seed: int) -> Any:  # noqa: ANN401 - imported lazily
    """What the flags say of the training.

    Raises:
        ConfigError: a value out of range.
    """
    from pydantic import ValidationError

    from detour.hypernetwork.config import SuperviseConfig

    names = ("steps", "batch_size", "learning_rate", "naming_steps", "noise")
    given = {name: flags[name] for name in names if flags[name] is not None}
    try:
        return SuperviseConfig.model_validate({**given, "seed": seed})
    except ValidationError as cause:
        raise _out_of_range(cause) from cause


def _out_of_range(cause: Any) -> ConfigError:  # noqa: ANN401 - pydantic's error
    first = cause.errors()[0]
    flag = "--" + str(first["loc"][0]).replace("_", "-")
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
    tasks: Tasks,
    config: NetworkConfig,
    folder: Path | None,
    steps: int,
    seed: int,
) -> dict[str, Adapter]:
    """The adapters to reconstruct: read from a folder, or trained together now.

    Raises:
        DataError: the folder has no adapter of that name for any task.
    """
    from detour.adapter.adapter import Adapter
    from detour.training.many import train_many

    wanted = [task for task in tasks.every if task.split != "test"]
    if folder is None:
        note(f"training the adapters of {len(wanted)} tasks, {steps} steps each")
        return train_many(
            base,
            {task.name: task.train for task in wanted},
            targets=config.targets if isinstance(config.targets, str) else list(config.targets),
            rank=config.rank,
            alpha=config.alpha,
            steps=steps,
            seed=seed,
        )
    found = {
        task.name: Adapter.load(folder / task.name)
        for task in wanted
        if (folder / task.name).is_dir()
    }
    if not found:
        raise DataError(
            text("{path} holds no adapter of any task", path=folder),
            expected=text("a folder named as a task, such as {name}", name=wanted[0].name),
        )
    return found


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


@group.command("evaluate")
@click.argument("hypernet", type=click.Path(path_type=Path))
@click.argument("tasks", type=click.Path(path_type=Path))
@model_options
@click.option("--items", type=click.IntRange(min=1), default=100, show_default=True,
              help="Rows of each task, under each set of descriptions.")  # fmt: skip
@click.option("--seen", type=click.IntRange(min=0), default=30, show_default=True,
              help="Training tasks that are judged beside the held-out ones.")  # fmt: skip
@click.option("--oracles", type=click.Path(path_type=Path),
              help="Folder of task adapters: oracle, nearest, mean.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the rows drawn.")
@json_option
def evaluate(
    hypernet: Path,
    tasks: Path,
    base_name: str,
    device: str | None,
    dtype: str | None,
    quantize: str | None,
    items: int,
    seen: int,
    oracles: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Measure HYPERNET on the held-out tasks and descriptions of TASKS, beside other ways."""
    from detour.evaluate.hypernet import evaluate as measured
    from detour.evaluate.hypernet import items_of, milliseconds_per_adapter
    from detour.hypernetwork.saved import load_generator
    from detour.hypernetwork.tasks import read_tasks

    found = read_tasks(tasks, seed)
    generator = load_generator(hypernet)
    base = load_base(base_name, device, dtype, quantize)
    generator.check_base(base.fingerprint)
    judged = items_of(found, items, seen, seed)
    texts = [item.description.text for item in judged]
    took = milliseconds_per_adapter(generator, texts)
    arms = _arms(base, generator, found, judged, oracles)
    table = measured(base, judged, arms, teller=note, milliseconds=took)
    if as_json:
        print_json(table.to_json())
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
    say(f"{took:.0f} ms a generated adapter")


def _arms(
    base: Base, generator: Generator, tasks: Tasks, items: Sequence[Item], oracles: Path | None
) -> dict[str, Arm]:
    """Every way to steer that there is something for."""
    from detour.evaluate import hypernet as ways

    arms: dict[str, Arm] = {
        "base": ways.base_arm,
        "prompt": ways.prompt_arm,
        "few-shot": ways.few_shot_arm(base),
        "generated": ways.generated_arm(generator),
        "wrong": ways.generated_arm(generator, ways.wrong_text(items)),
        "junk": ways.generated_arm(generator, ways.junk_text),
    }
    if oracles is None:
        return arms
    from detour.adapter.adapter import Adapter
    from detour.adapter.chain import Chain

    there = {
        task.name: Adapter.load(oracles / task.name)
        for task in tasks.every
        if (oracles / task.name).is_dir()
    }
    learned = {task.name: there[task.name] for task in tasks.of("train") if task.name in there}
    missing = sorted({item.task.name for item in items} - set(there))
    if missing or not learned:
        raise DataError(
            text("{path} holds no adapter of any task", path=oracles)
            if not learned
            else text("{path} lacks adapters of tasks that are judged", path=oracles),
            expected=text("a folder named as a task, such as {name}", name=items[0].task.name),
            found=", ".join(missing[:3]),
        )
    every = [1 / len(learned) * Chain.of(adapter) for adapter in learned.values()]
    mean = sum(every[1:], every[0])
    return {
        **arms,
        "nearest": ways.nearest_arm(learned, tasks, generator),
        "mean": ways.one_for_all_arm(mean),
        "oracle": ways.adapter_arm(there),
    }
