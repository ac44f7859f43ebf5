"""Benchmarks of the lm-eval harness on a base and on the base with a chain, told as figures.

The harness brings prompts, data and scoring; what is added here is how a benchmark is found, which
chain acts, and an interval for every figure. Knows bases, chains and the harness's tasks; knows no
hypernetworks. The harness is imported only when benchmarks are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, nullcontext
from dataclasses import dataclass
from difflib import get_close_matches
from math import hypot
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import yaml

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.errors import ConfigError, DataError
from detour.evaluate import public_tasks
from detour.evaluate.t2l_ten import TEN
from detour.extras import require
from detour.language.catalogue import Text, text
from detour.measure.statistics import Figure, mean, rate, resampled
from detour.model.base import Base

HARNESS = "lm-eval:"
TEN_NAME = "t2l-ten"
DRAWS = 200  # of the bootstrap; BLEU of a thousand texts takes a second
_CODE = frozenset(benchmark.name for benchmark in TEN if benchmark.runs_code)

Arms = dict[str, dict[str, Figure]]


@dataclass(frozen=True, eq=False)
class Benchmarks:
    """What is ready to run.

    Attributes:
        loaded: by the name that was asked for; a group has several tasks.
        skipped: why others do not run.
    """

    loaded: Mapping[str, public_tasks.Loaded]
    skipped: Mapping[str, Text]

    @property
    def tasks(self) -> dict[str, Any]:
        """The harness's tasks by name."""
        return {name: task for one in self.loaded.values() for name, task in one["tasks"].items()}


def names_of(suite: str) -> tuple[str, ...]:
    """`lm-eval:piqa,boolq` as names; `t2l-ten` stands for the ten of Text-to-LoRA.

    Raises:
        ConfigError: another suite, or no name.
    """
    given = suite.removeprefix(HARNESS).split(",")
    names = [name.strip() for name in given if name.strip()]
    if not suite.startswith(HARNESS) or not names:
        raise ConfigError(
            text("--suite names no benchmark"),
            expected="lm-eval:TASK[,TASK…]", found=repr(suite), hint=f"--suite {HARNESS}{TEN_NAME}",
        )  # fmt: skip
    ten = [benchmark.name for benchmark in TEN]
    every = [one for name in names for one in (ten if name == TEN_NAME else [name])]
    return tuple(dict.fromkeys(every))


def load_benchmarks(
    names: Sequence[str],
    folder: Path | None = None,
    shots: int | None = None,
    allow_code: bool = False,
    teller: Callable[[str], None] = lambda _: None,
) -> Benchmarks:
    """Definitions and data, read before a model is.

    Args:
        names: of tasks, groups or tags, as the harness calls them.
        folder: definitions of one's own; they win, and paths in them start there.
        shots: worked examples before every item; by default as many as the definition says.
            Benchmarks that are defined without any stay without.
        allow_code: load benchmarks that execute what the model writes.
        teller: hears what is skipped, and where `shots` does not apply.

    Raises:
        MissingExtra: the harness is not installed.
        ConfigError: a name that is not known, or nothing is left to run.
        DataError: a definition that cannot be read, or data that are not at hand.
    """
    require("lm_eval", "evaluate")
    skipped = {} if allow_code else {name: public_tasks.why_skipped() for name in names
                                     if name in _CODE}  # fmt: skip
    kept = [name for name in names if name not in skipped]
    folder = folder.resolve() if folder else None
    with public_tasks.code_permitted(allow_code), chdir(folder) if folder else nullcontext():
        manager = _manager(kept, folder)
        loaded = public_tasks.load(manager, kept, f"--suite {HARNESS}", folder)
    if not allow_code:
        skipped |= {name: public_tasks.why_skipped() for name in kept if _runs_code(loaded[name])}
    for name, why in skipped.items():
        teller(f"{name}: {why}")
    left = {name: own for name, own in loaded.items() if name not in skipped}
    public_tasks.check_something_runs(list(left), skipped)
    found = Benchmarks(left, skipped)
    for name, task in found.tasks.items():
        _set_shots(name, task, shots, teller)
    return found


def run_benchmarks(
    base: Base,
    benchmarks: Benchmarks,
    chain: Chain | Adapter | None = None,
    *,
    limit: int | None = None,
    chat_template: bool = False,
    teller: Callable[[str], None] = lambda _: None,
) -> Arms:
    """Figures by arm (`base`, and `chain` where one is given) and by `task/metric`.

    Where the harness reads answers in several ways, the way stands behind the metric, as in
    `gsm8k/exact_match,strict-match`.

    Args:
        base: the model.
        benchmarks: what it answers.
        chain: what is judged beside it.
        limit: the first so many items of each task; by default all.
        chat_template: write prompts as conversations, by the base's own template.
        teller: hears how each benchmark went.

    Raises:
        RequestError: answers that do not fit the base's context. Nothing has run then.
        BaseError: no tokenizer, or `chat_template` without a template.
        WrongBase, SlotError: a chain that does not belong on this base.
    """
    if chat_template:
        public_tasks.check_template(base)
    public_tasks.check_room(base, benchmarks.tasks)
    bound = base.bind(chain)
    acting = {"base": None, **({"chain": bound} if bound.terms else {})}
    runs_code = any(_runs_code(one) for one in benchmarks.loaded.values())
    arms: Arms = {arm: {} for arm in acting}
    with public_tasks.code_permitted(runs_code):
        for name, loaded in benchmarks.loaded.items():
            for arm, figures in arms.items():
                told = public_tasks.ask(
                    base, acting[arm], loaded,
                    limit=limit, chat_template=chat_template, runs_code=runs_code,
                )  # fmt: skip
                figures |= figures_of(told, loaded)
                items = sum(told["n-samples"][task]["effective"] for task in loaded["tasks"])
                teller(
                    text("{name}, {arm}: items judged: {items}", name=name, arm=arm, items=items)
                )
    return arms


def _manager(names: Sequence[str], folder: Path | None) -> Any:  # noqa: ANN401 - the harness's
    """The fewest definitions that hold the names; all of the harness's take seconds to read."""
    from lm_eval import tasks

    root = Path(str(tasks.__file__)).parent
    own: list[str | Path] = [folder] if folder else []
    ten: list[str | Path] = [*dict.fromkeys(root / one.folder for one in TEN if one.name in names)]
    near = tasks.TaskManager(include_path=[*ten, *own], include_defaults=False)
    if all(name in near.task_index for name in names):
        return near
    if folder is not None:
        _check_readable(folder)
    every = tasks.TaskManager(include_path=own)
    strange = [name for name in names if name not in every.task_index]
    if strange:
        known = near.all_tasks if folder else every.all_tasks
        close = get_close_matches(strange[0], every.all_tasks, 3) or known[:8]
        raise ConfigError(
            text("the harness knows no benchmark {names}", names=", ".join(strange)),
            expected=", ".join(close),
            hint=text("--tasks-folder names a folder of definitions"),
        )  # fmt: skip
    return every


def _check_readable(folder: Path) -> None:
    """Name the first definition that is no YAML; the harness passes over it in silence."""
    for path in sorted(folder.glob("**/*.yaml")):
        try:
            yaml.compose(path.read_text("utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as cause:
            mark = getattr(cause, "problem_mark", None)
            place = f"{path}:{mark.line + 1}" if mark else str(path)
            raise DataError(
                text("{place} is not YAML", place=place),
                found=str(getattr(cause, "problem", None) or cause),
            ) from cause


def _runs_code(loaded: public_tasks.Loaded) -> bool:
    return any(getattr(task, "UNSAFE_CODE", False) for task in loaded["tasks"].values())


def _set_shots(name: str, task: Any, shots: int | None, teller: Callable[[str], None]) -> None:  # noqa: ANN401
    """The harness's own rule: who is defined without examples keeps to that."""
    defined = task.get_config("num_fewshot")
    if defined == 0 and shots:
        teller(text("{name} is defined without examples and stays so", name=name))
        return
    if shots is None:
        return
    pool = task.fewshot_docs()
    if pool is not None and len(pool) < shots:
        raise ConfigError(
            text("{name} has too few rows for that many examples", name=name),
            expected=text("at most {limit:,}", limit=len(pool)),
            found=f"--shots {shots}",
        )
    task.set_config("num_fewshot", shots)


def figures_of(told: Mapping[str, Any], loaded: public_tasks.Loaded) -> dict[str, Figure]:
    """Every figure of the harness's results, from its items' scores; then those of groups.

    Shares have Wilson's interval, means Student's, what is no mean (BLEU, perplexity) the
    bootstrap's over items; groups add their tasks' intervals as independent errors.
    """
    figures: dict[str, Figure] = {}
    for name, task in loaded["tasks"].items():
        aggregations: Mapping[str, Any] = task.aggregation()
        for (metric, way), values in _by_metric(told["samples"][name]).items():
            key = f"{name}/{metric}" + ("" if way == "none" else f",{way}")
            figures[key] = _figure(values, aggregations.get(metric))
    for name, group in loaded.get("groups", {}).items():
        for metric, value in told.get("groups", {}).get(name, {}).items():
            if "," in metric and "_stderr" not in metric:
                metric = metric.removesuffix(",none")
                figures[f"{name}/{metric}"] = _of_group(group, metric, value, figures)
    return figures


def _by_metric(samples: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Any]]:
    """Every item's value by metric and way of reading, in the harness's order."""
    found: dict[tuple[str, str], list[Any]] = {}
    for sample in samples:
        for metric in sample["metrics"]:
            if metric != "bypass":
                found.setdefault((metric, sample["filter"]), []).append(sample[metric])
    return found


def _figure(values: Sequence[Any], aggregation: Callable[[Sequence[Any]], float] | None) -> Figure:
    """As the harness sums up: by `aggregation`, and where a metric has none, by the mean."""
    from lm_eval.api.metrics import mean as plain_mean

    if aggregation not in (None, plain_mean):
        assert aggregation is not None
        with catch_warnings():
            simplefilter("ignore")  # of scikit-learn, where a draw has one class only
            return resampled(values, lambda drawn: float(aggregation(drawn)), DRAWS)
    numbers = [float(value) for value in values]
    if all(number in (0, 1) for number in numbers):
        return rate(number == 1 for number in numbers)
    return mean(numbers)


def _of_group(group: Any, metric: str, value: float, figures: Mapping[str, Figure]) -> Figure:  # noqa: ANN401
    """The members' mean, by size where the group says so; it lies between their ends."""
    told = [figures[key] for key in _members(group, metric) if key in figures]
    sized = next(c.weight_by_size for c in group.aggregate_metric_list
                 if c.metric == metric.partition(",")[0])  # fmt: skip
    sizes = [one.n if sized else 1 for one in told]
    half = hypot(*(
        size / sum(sizes) * (one.high - one.low) / 2 for size, one in zip(sizes, told, strict=True)
    ))  # fmt: skip
    low, high = min(one.low for one in told), max(one.high for one in told)
    return Figure(value, max(low, value - half), min(high, value + half), sum(o.n for o in told))


def _members(group: Any, metric: str) -> Iterator[str]:  # noqa: ANN401 - the harness's own class
    return (f"{task.task_name}/{metric}" for task in group.get_all_tasks())
