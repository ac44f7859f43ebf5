"""A hypernetwork on public benchmarks: adapters from descriptions, run by the lm-eval harness.

Every arm answers the same items through the same model class. The harness brings prompts, data and
scoring; what is added here is which adapter acts and what is said before the prompt. Knows
hypernetworks, bases and the harness's tasks; trains nothing. The harness is imported only when a
suite runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from detour.adapter.adapter import Adapter
from detour.errors import ConfigError, DataError, NotUnderstood
from detour.evaluate import public_tasks
from detour.evaluate.hypernet import JUNK
from detour.evaluate.t2l_ten import PUBLISHED, TEN, Benchmark, wrong_descriptions
from detour.extras import require
from detour.hypernetwork.generator import Generator
from detour.language.catalogue import Text, text
from detour.measure.statistics import Figure, mean
from detour.model.base import Base

SUITE = "t2l-ten"


@dataclass(frozen=True)
class Way:
    """One way to ask: what acts in the slots, and what stands before every prompt."""

    adapter: Adapter | None = None
    told: str | None = None


@dataclass(frozen=True, eq=False)
class Scores:
    """Each item's score of an arm, the mean over its descriptions.

    Attributes:
        items: 0 to 1, in the harness's order.
        not_understood: descriptions that named nothing; there the base answered.
    """

    items: tuple[float, ...]
    not_understood: int = 0

    @property
    def value(self) -> float:
        """The mean over the items."""
        return fmean(self.items)

    @property
    def stderr(self) -> float | None:
        """The standard error of the mean over the items; descriptions add no items."""
        count = len(self.items)
        return stdev(self.items) / sqrt(count) if count > 1 else None


@dataclass(frozen=True, eq=False)
class SuiteTable:
    """Every arm on every benchmark.

    Attributes:
        benchmarks: those that ran.
        scores: by benchmark and arm.
        skipped: why the others did not.
    """

    benchmarks: tuple[Benchmark, ...]
    scores: Mapping[str, Mapping[str, Scores]]
    skipped: Mapping[str, Text]

    @property
    def arms(self) -> tuple[str, ...]:
        """In the order in which they ran."""
        return tuple(self.scores[self.benchmarks[0].name])

    def average(self, arm: str) -> float:
        """The mean over benchmarks, each counting once however many items it has."""
        return fmean(self.scores[benchmark.name][arm].value for benchmark in self.benchmarks)

    def difference(self, arm: str, other: str) -> Figure:
        """The mean difference of two arms, a benchmark being one observation."""
        rows = [self.scores[benchmark.name] for benchmark in self.benchmarks]
        return mean([row[arm].value - row[other].value for row in rows])

    def to_json(self) -> dict[str, Any]:
        """The contract of `detour hypernet evaluate --suite --json`."""
        return {
            "suite": SUITE,
            "benchmarks": {
                benchmark.name: {
                    arm: _to_json(benchmark, scores)
                    for arm, scores in self.scores[benchmark.name].items()
                }
                for benchmark in self.benchmarks
            },
            "average": {arm: round(self.average(arm), 6) for arm in self.arms},
            "matched_minus_wrong": self.difference("generated", "wrong").to_json(),
            "matched_minus_junk": self.difference("generated", "junk").to_json(),
            "skipped": dict(self.skipped),
            "published": PUBLISHED,
        }


def _to_json(benchmark: Benchmark, scores: Scores) -> dict[str, Any]:
    told: dict[str, Any] = {"metric": benchmark.metric, "value": round(scores.value, 6)}
    if scores.stderr is not None:
        told["stderr"] = round(scores.stderr, 6)
    told["n"] = len(scores.items)
    if scores.not_understood:
        told["not_understood"] = scores.not_understood
    return told


def chosen_benchmarks(names: str | None) -> tuple[Benchmark, ...]:
    """All ten, or those that `names` lists with commas.

    Raises:
        ConfigError: none, or one that the suite does not have.
    """
    if names is None:
        return TEN
    asked = dict.fromkeys(name.strip() for name in names.split(",") if name.strip())
    known = {benchmark.name: benchmark for benchmark in TEN}
    strange = [name for name in asked if name not in known]
    if strange or not asked:
        raise ConfigError(
            text("--benchmarks names something that this suite does not have"),
            expected=", ".join(known),
            found=", ".join(strange) or repr(names),
        )
    return tuple(known[name] for name in asked)


def run_suite(
    base: Base,
    generator: Generator,
    benchmarks: Sequence[Benchmark] = TEN,
    *,
    limit: int | None = None,
    allow_code: bool = False,
    chat_template: bool = False,
    teller: Callable[[str], None] = lambda _: None,
) -> SuiteTable:
    """Every arm on every benchmark: base, prompt, generated, wrong, junk.

    Args:
        base: the model.
        generator: what makes adapters for it.
        benchmarks: which ones.
        limit: the first so many items of each; by default all.
        allow_code: run benchmarks that execute what the model writes.
        chat_template: write prompts as conversations, by the base's own template.
        teller: hears what is skipped and how each arm did.

    Raises:
        MissingExtra: the harness is not installed.
        DataError: a benchmark's data is not at hand. Nothing has run then.
        ConfigError: nothing is left to run.
        RequestError: answers that do not fit the base's context.
        BaseError: `chat_template` without a template.
    """
    skipped = {
        benchmark.name: public_tasks.why_skipped()
        for benchmark in benchmarks
        if benchmark.runs_code and not allow_code
    }
    for name, why in skipped.items():
        teller(f"{name}: skipped, {why}")
    kept = tuple(benchmark for benchmark in benchmarks if benchmark.name not in skipped)
    public_tasks.check_something_runs(kept, skipped)
    generator.check_base(base.fingerprint)
    with public_tasks.code_permitted(any(benchmark.runs_code for benchmark in kept)):
        harness = Harness(base, kept, limit, chat_template)
        return SuiteTable(kept, _scores(harness, kept, _Adapters(generator), teller), skipped)


def _scores(
    harness: Harness,
    benchmarks: Sequence[Benchmark],
    adapters: _Adapters,
    teller: Callable[[str], None],
) -> dict[str, dict[str, Scores]]:
    """By benchmark and arm; what two arms have in common runs once."""
    scores: dict[str, dict[str, Scores]] = {}
    for benchmark in benchmarks:
        scores[benchmark.name] = {}
        told: dict[Way, tuple[float, ...]] = {}
        for arm, ways in _arms(benchmark, adapters).items():
            for way in ways:
                if way not in told:
                    told[way] = harness.ask(benchmark, way)
            scored = _mean_of([told[way] for way in ways], arm, ways)
            scores[benchmark.name][arm] = scored
            teller(f"{benchmark.name}, {arm}: {scored.value:.3f} of {len(scored.items)} items")
    return scores


class _Adapters:
    """Each description's adapter, made once; None where it names nothing."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._made: dict[str, Adapter | None] = {}

    def ways(self, descriptions: Sequence[str]) -> list[Way]:
        return [Way(self._adapter(description)) for description in descriptions]

    def _adapter(self, description: str) -> Adapter | None:
        if description not in self._made:
            try:
                self._made[description] = self._generator.generate([description])[0].adapter
            except NotUnderstood:
                self._made[description] = None
        return self._made[description]


def _arms(benchmark: Benchmark, adapters: _Adapters) -> dict[str, list[Way]]:
    return {
        "base": [Way()],
        "prompt": [Way(told=description) for description in benchmark.descriptions],
        "generated": adapters.ways(benchmark.descriptions),
        "wrong": adapters.ways(wrong_descriptions(benchmark)),
        "junk": adapters.ways(JUNK[: len(benchmark.descriptions)]),
    }


def _mean_of(runs: Sequence[tuple[float, ...]], arm: str, ways: Sequence[Way]) -> Scores:
    items = tuple(fmean(item) for item in zip(*runs, strict=True))
    silent = 0 if arm in ("base", "prompt") else sum(way.adapter is None for way in ways)
    return Scores(items, silent)


class Harness:
    """The harness's tasks, loaded and checked before anything runs.

    Raises:
        MissingExtra: lm-eval is not installed.
        DataError: the data of a benchmark is not at hand.
        RequestError: answers that do not fit the base's context.
        BaseError: `chat_template` without a template.
    """

    def __init__(
        self,
        base: Base,
        benchmarks: Sequence[Benchmark],
        limit: int | None = None,
        chat_template: bool = False,
    ) -> None:
        require("lm_eval", "evaluate")
        if chat_template:
            public_tasks.check_template(base)
        self.base = base
        self.limit = limit
        self.chat_template = chat_template
        self.tasks = _load(benchmarks)
        public_tasks.check_room(base, self.tasks)

    def ask(self, benchmark: Benchmark, way: Way) -> tuple[float, ...]:
        """Each item's score.

        Raises:
            DataError: the harness reports another metric.
            As `Base.ask`.
        """
        results = public_tasks.ask(
            self.base, way.adapter, {"tasks": {benchmark.name: self.tasks[benchmark.name]}},
            limit=self.limit, told=way.told, chat_template=self.chat_template,
            runs_code=benchmark.runs_code,
        )  # fmt: skip
        rows: list[Any] = results.get("samples", {})[benchmark.name]
        read = [row for row in rows if row["filter"] == benchmark.filter]
        if not read or benchmark.metric not in read[0]:
            raise DataError(
                text("{name} is not scored as expected", name=benchmark.name),
                expected=f"{benchmark.metric}, {benchmark.filter}",
                found=", ".join(
                    sorted({f"{m}, {r['filter']}" for r in rows for m in r["metrics"]})
                ),
                hint=text("another version of lm-eval"),
            )
        return tuple(float(row[benchmark.metric]) for row in read)


def _load(benchmarks: Sequence[Benchmark]) -> dict[str, Any]:
    from lm_eval import tasks

    root = Path(str(tasks.__file__)).parent
    folders: list[str | Path] = [*dict.fromkeys(root / one.folder for one in benchmarks)]
    # only these folders: all of the harness's definitions take seconds to read
    manager = tasks.TaskManager(include_path=folders, include_defaults=False)
    names = [benchmark.name for benchmark in benchmarks]
    loaded = public_tasks.load(manager, names, "--benchmarks ")
    return {name: own["tasks"][name] for name, own in loaded.items()}
