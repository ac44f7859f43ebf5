"""Rows about learning from examples, classifying and extracting, in English and German.

- few_shot: texts with made-up labels; only the examples in the prompt say what a label means.
- classify: the topic, mood, language or kind of a sentence, with labels that mean something.
- extract: values out of a text as JSON, with the keys in the order asked for.

Sentences and wordings come from `starter/world/examples.yaml`; phrases marked "~" and one
combination in eight are kept for the examinations. Knows no tokens and no model.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from itertools import product
from typing import Any

import yaml

from detour.training.phrasing import bare, novelty
from detour.training.world import capitalised
from recipes.starter.cases import Case
from recipes.starter.rows import Message, Row, system, user

LANGUAGES = ("en", "de")
TASKS = {"topic": 0.35, "sentiment": 0.35, "language": 0.15, "form": 0.15}
# what the examples of a few-shot row are told apart by
FAMILIES = {"topic": 0.8, "sentiment": 0.1, "language": 0.05, "form": 0.05}
LABELS = {"words": 0.66, "letters": 0.12, "numbers": 0.1, "colours": 0.12}
PLACES = {"turns": 0.35, "user": 0.4, "system": 0.25}


@dataclass
class Pool:
    """Texts for the rows (`seen`) and texts for the examinations (`held`)."""

    seen: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)

    def of(self, held_out: bool) -> list[str]:
        return self.held if held_out else self.seen


@dataclass(frozen=True)
class Wordings:
    """Instruction and layout (or shape of an example), in pairs that rows or examinations use."""

    seen: list[tuple[str, str]]
    held: list[tuple[str, str]]

    def draw(self, rng: random.Random, held_out: bool) -> tuple[str, str]:
        return rng.choice(self.held if held_out else self.seen)


@dataclass(frozen=True)
class Problem:
    """Texts with the number of their label: first the examples, then the queries."""

    labels: list[str]
    shots: list[tuple[str, int]]
    queries: list[tuple[str, int]]


@cache
def data() -> dict[str, Any]:
    path = files("detour") / "starter" / "world" / "examples.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def slots_of(template: str) -> list[str]:
    """The names of the slots of a template, in order."""
    return [name for _, name, _, _ in string.Formatter().parse(template) if name]


def expand(templates: Sequence[str], slots: Mapping[str, Sequence[str]]) -> Pool:
    """Every sentence of the templates; a held-out one is never equal to a seen one."""
    pool = Pool()
    for template in templates:
        names = slots_of(template)
        for values in product(*(slots[name] for name in names)):
            text = capitalised(bare(template).format(**dict(zip(names, values, strict=True))))
            pool.of(novelty(template, *values).held_out).append(text)
    pool.seen, pool.held = list(dict.fromkeys(pool.seen)), list(dict.fromkeys(pool.held))
    _keep_apart([pool])
    return pool


def pairs(first: Sequence[str], second: Sequence[str], *key: str) -> Wordings:
    """All pairs of wordings, without their marks, apart by novelty."""
    seen: list[tuple[str, str]] = []
    held: list[tuple[str, str]] = []
    for one, two in product(first, second):
        chosen = held if novelty(one, two, *key).held_out else seen
        chosen.append((bare(one), bare(two)))
    return Wordings(seen, held)


def pseudo_words() -> Pool:
    """Labels that mean nothing: `zib`, `morp`, `taku`."""
    told = data()["made_up"]
    ends = told["codas"] + told["last_syllables"]
    return _apart(product(told["onsets"], told["vowels"], ends), "label")


def made_up_names() -> Pool:
    """Names of nobody and nowhere: `Talvik`, `Ulmar`."""
    told = data()["made_up"]
    return _apart(product(told["starts"], told["ends"]), "name")


def _apart(parts: Iterable[tuple[str, ...]], key: str) -> Pool:
    pool = Pool()
    for word in map("".join, parts):
        pool.of(novelty(key, word).held_out).append(word)
    return pool


def _keep_apart(pools: Sequence[Pool]) -> None:
    """A sentence that any pool shows in a row is in no examination."""
    known = {text for pool in pools for text in pool.seen}
    for pool in pools:
        pool.held = [text for text in pool.held if text not in known]


def listed(names: Sequence[str], last: str) -> str:
    """`a`, `b`, `c` → `a, b or c`."""
    return f"{', '.join(names[:-1])} {last} {names[-1]}" if len(names) > 1 else names[0]


def weighted(rng: random.Random, shares: Mapping[str, float]) -> str:
    return rng.choices(list(shares), list(shares.values()))[0]


def assistant(text: str, learned: bool = True) -> Message:
    """An answer; one that nobody could know is not learned."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    return message if learned else {**message, "learned": False}


def laid_out(layout: str, instruction: str, text: str) -> list[Message]:
    """Instruction and text as the turns before the answer."""
    if layout == "system":
        return [system(instruction), user(text)]
    return [user(layout.replace("{instruction}", instruction).replace("{text}", text))]


class Examples:
    """Draws rows and examinations about examples, classes and values in texts."""

    def __init__(self) -> None:
        self.data = {language: data()[language] for language in LANGUAGES}
        self.words = pseudo_words()
        self.names = made_up_names()
        self.pools = {language: self._pools(language) for language in LANGUAGES}
        _keep_apart(
            [p for tasks in self.pools.values() for t in tasks.values() for p in t.values()]
        )
        self.class_names = {language: self._class_names(language) for language in LANGUAGES}
        self.shots = {language: self._shots(language) for language in LANGUAGES}
        self.asked = {language: self._asked(language) for language in LANGUAGES}
        self.extracting = {language: self._extracting(language) for language in LANGUAGES}
        self.templates = {language: self._templates(language) for language in LANGUAGES}
        self.sorts: dict[str, Callable[[random.Random], Row]] = {
            "few_shot": self._few_shot,
            "classify": self._classify,
            "extract": self._extract,
        }
        self.bars: dict[str, Callable[[random.Random, str], Case]] = {
            "few-shot, made-up labels": self._few_shot_case,
            "zero-shot, made-up labels": self._zero_shot_case,
            "classification": self._classify_case,
            "extraction to JSON": self._extract_case,
        }

    def cases(self, bar: str, count: int, rng: random.Random) -> list[Case]:
        """Held-out cases of one bar, the languages in turn."""
        return [self.bars[bar](rng, LANGUAGES[i % len(LANGUAGES)]) for i in range(count)]

    # what is precomputed

    def _pools(self, language: str) -> dict[str, dict[str, Pool]]:
        told = self.data[language]
        mood, form = told["sentiment"], told["form"]
        return {
            "topic": {n: expand(t["templates"], t["slots"]) for n, t in told["topics"].items()},
            "sentiment": {n: expand(mood[n], mood["slots"]) for n in told["sentiment_names"]},
            "language": {
                n: expand(t["templates"], t["slots"]) for n, t in data()["languages"].items()
            },
            "form": {n: expand(form[n], form["slots"]) for n in told["form_names"]},
        }

    def _class_names(self, language: str) -> dict[str, dict[str, str]]:
        return {task: self.data[language][f"{task}_names"] for task in TASKS}

    def _shots(self, language: str) -> Wordings:
        told = self.data[language]
        return pairs(["", *told["few_shot"]], told["shots"], language, "few_shot")

    def _asked(self, language: str) -> dict[tuple[str, str], Wordings]:
        told = self.data[language]
        return {
            (task, kind): pairs(told["classify"][task][kind], told["layouts"], language, task)
            for task, kind in product(TASKS, ("listed", "open"))
        }

    def _extracting(self, language: str) -> Wordings:
        told = self.data[language]
        return pairs(told["extract"]["instructions"], told["layouts"], language, "extract")

    def _templates(self, language: str) -> dict[bool, list[tuple[str, list[str]]]]:
        """Texts to extract from, with the templates that can follow each."""
        found: dict[bool, list[tuple[str, list[str]]]] = {}
        every = self.data[language]["extract"]["templates"]
        for held_out in (False, True):
            own = [bare(t) for t in every if t.startswith("~") is held_out]
            found[held_out] = [
                (one, [two for two in own if not set(slots_of(one)) & set(slots_of(two))])
                for one in own
            ]
        return found

    # learning from examples

    def _labels(self, rng: random.Random, language: str, count: int, held_out: bool) -> list[str]:
        kind = "words" if held_out else weighted(rng, LABELS)
        if kind == "words":
            return rng.sample(self.words.of(held_out), count)
        if kind == "letters":
            start = rng.choice([0, 0, rng.randrange(20)])
            return rng.sample(string.ascii_uppercase[start : start + count], count)
        if kind == "numbers":
            high = rng.choice([count, 9, 99])
            return [str(n) for n in rng.sample(range(1, high + 1), count)]
        return rng.sample(self.data[language]["colours"], count)

    def _problem(
        self, rng: random.Random, language: str, held_out: bool = False, queries: int = 1
    ) -> Problem:
        pools = self.pools[language]["topic" if held_out else weighted(rng, FAMILIES)]
        count = min(rng.choices([2, 3, 4], [0.5, 0.3, 0.2])[0], len(pools))
        groups = [pools[name].of(held_out) for name in rng.sample(list(pools), count)]
        order = list(range(count))
        order += [rng.randrange(count) for _ in range(rng.randint(count, 8) - count)]
        rng.shuffle(order)
        shots = len(order)
        order += [rng.randrange(count) for _ in range(queries)]
        texts = _distinct(rng, groups, order)
        labels = self._labels(rng, language, count, held_out)
        return Problem(labels, texts[:shots], texts[shots:])

    def _asking(self, rng: random.Random, language: str, told: str, labels: list[str]) -> str:
        named = rng.sample(labels, len(labels))
        return told.replace("{labels}", listed(named, self.data[language]["or"]))

    def _few_shot(self, rng: random.Random) -> Row:
        language = rng.choice(LANGUAGES)
        problem = self._problem(rng, language, queries=rng.choice([1, 1, 2, 3]))
        return Row(tuple(self._shown(rng, language, problem)))

    def _shown(
        self, rng: random.Random, language: str, problem: Problem, held_out: bool = False
    ) -> list[Message]:
        """The examples, then the queries, with all answers."""
        told, shape = self.shots[language].draw(rng, held_out)
        told = self._asking(rng, language, told, problem.labels)
        place = weighted(rng, PLACES)
        if place == "turns":
            return _as_turns(told, problem)
        gap = "\n\n" if "\n" in shape and rng.random() < 0.5 else "\n"
        examples = gap.join(_shot(shape, text, problem.labels[n]) for text, n in problem.shots)
        if place == "system":
            before = f"{told}\n{examples}" if told else examples
            return [system(before), *_answered(problem, "{text}")]
        turns = _answered(problem, shape.split("{label}")[0].rstrip())
        first = f"{examples}{gap}{turns[0]['content']}"
        if told and rng.random() < 0.5:
            return [system(told), user(first), *turns[1:]]
        return [user(f"{told}\n{first}" if told else first), *turns[1:]]

    def _few_shot_case(self, rng: random.Random, language: str) -> Case:
        problem, rng = self._examined(rng, language)
        return _case(self._shown(rng, language, problem, held_out=True), language)

    def _zero_shot_case(self, rng: random.Random, language: str) -> Case:
        """The query of the few-shot case of the same generator, without its examples."""
        problem, rng = self._examined(rng, language)
        told = bare(rng.choice(self.data[language]["zero_shot"]))
        told = self._asking(rng, language, told, problem.labels)
        text, label = problem.queries[0]
        layout = rng.choice(["system", "{instruction}\n{text}"])
        return Case(laid_out(layout, told, text), problem.labels[label], language)

    def _examined(self, rng: random.Random, language: str) -> tuple[Problem, random.Random]:
        """A problem and a generator for its wording; takes one number from `rng`, always."""
        own = random.Random(rng.getrandbits(64))
        return self._problem(own, language, held_out=True), own

    # classifying

    def _classify(self, rng: random.Random) -> Row:
        return Row(tuple(self._classified(rng, rng.choice(LANGUAGES))))

    def _classify_case(self, rng: random.Random, language: str) -> Case:
        return _case(self._classified(rng, language, held_out=True), language)

    def _classified(
        self, rng: random.Random, language: str, held_out: bool = False
    ) -> list[Message]:
        task = weighted(rng, TASKS)
        kind = "listed" if rng.random() < 0.6 else "open"
        told, layout = self.asked[language][task, kind].draw(rng, held_out)
        names = self.class_names[language][task]
        choice = _choice(rng, task, list(names)) if kind == "listed" else list(names)
        told = self._asking(rng, language, told, [names[c] for c in choice])
        one, label = self._classed(rng, language, task, choice, held_out)
        messages = [*laid_out(layout, told, one), assistant(names[label])]
        if layout == "system" and not held_out:
            for _ in range(rng.choice([0, 0, 1, 2, 3])):
                more, label = self._classed(rng, language, task, choice, held_out)
                messages += [user(more), assistant(names[label])]
        return messages

    def _classed(
        self, rng: random.Random, language: str, task: str, choice: list[str], held_out: bool
    ) -> tuple[str, str]:
        label = rng.choice(choice)
        text = rng.choice(self.pools[language][task][label].of(held_out))
        if task == "form" and rng.random() < 0.3:
            text = text.rstrip("?.")
        return text, label

    # extracting

    def _extract(self, rng: random.Random) -> Row:
        return Row(tuple(self._extracted(rng, rng.choice(LANGUAGES))))

    def _extract_case(self, rng: random.Random, language: str) -> Case:
        return _case(self._extracted(rng, language, held_out=True), language)

    def _extracted(
        self, rng: random.Random, language: str, held_out: bool = False
    ) -> list[Message]:
        text, values = self._text(rng, language, held_out)
        names = self.data[language]["extract"]["keys"]
        wanted = rng.sample(list(values), rng.randint(1, min(4, len(values))))
        if rng.random() < 0.2:
            wanted.append(rng.choice([key for key in names if key not in values]))
            rng.shuffle(wanted)
        told, layout = self.extracting[language].draw(rng, held_out)
        told = told.replace("{keys}", self._keys(rng, language, [names[key] for key in wanted]))
        answer = {names[key]: values.get(key) for key in wanted}
        written = json.dumps(answer, ensure_ascii=False)
        return [*laid_out(layout, told, text), assistant(written)]

    def _keys(self, rng: random.Random, language: str, keys: list[str]) -> str:
        way = rng.random()
        if way < 0.4:
            return listed(keys, self.data[language]["and"])
        return ", ".join(keys if way < 0.7 else [f'"{key}"' for key in keys])

    def _text(
        self, rng: random.Random, language: str, held_out: bool
    ) -> tuple[str, dict[str, str]]:
        """One or two sentences with values, sometimes one without."""
        template, partners = rng.choice(self.templates[language][held_out])
        parts = [template]
        if partners and rng.random() < 0.3:
            parts.append(rng.choice(partners))
        names = [name for part in parts for name in slots_of(part)]
        values = {name: self._value(rng, language, name, held_out) for name in names}
        texts = [part.format(**values) for part in parts]
        if rng.random() < 0.25:
            texts.append(rng.choice(self.data[language]["extract"]["extras"]))
        return " ".join(texts), values

    def _value(self, rng: random.Random, language: str, slot: str, held_out: bool) -> str:
        told, names = self.data[language]["extract"], self.names.of(held_out)
        if slot == "name":
            return " ".join(rng.sample(names, rng.choice([1, 2, 2])))
        if slot == "city":
            return rng.choice(names)
        if slot == "firm":
            return f"{rng.choice(names)} {rng.choice(told['firms'])}"
        if slot == "email":
            one, two = rng.sample(names, 2)
            return f"{one}@{two}.example".lower()
        if slot == "product":
            return rng.choice(told["products"])
        return _number(rng, told, slot)


def _case(messages: Sequence[Message], language: str) -> Case:
    """The last answer is asked for; the prompt carries no marks about what is learned."""
    prompt = [{"role": m["role"], "content": m["content"]} for m in messages[:-1]]
    return Case(prompt, messages[-1]["content"], language)


def _distinct(
    rng: random.Random, groups: Sequence[Sequence[str]], order: Sequence[int]
) -> list[tuple[str, int]]:
    """One text for each group number, no text twice."""
    used: set[str] = set()
    texts: list[tuple[str, int]] = []
    for number in order:
        text = rng.choice(groups[number])
        while text in used:
            text = rng.choice(groups[number])
        used.add(text)
        texts.append((text, number))
    return texts


def _shot(shape: str, text: str, label: str) -> str:
    return shape.replace("{text}", text).replace("{label}", label)


def _answered(problem: Problem, shape: str) -> list[Message]:
    """The queries in the shape of an example without its label, each with its answer."""
    messages: list[Message] = []
    for text, number in problem.queries:
        messages += [user(shape.replace("{text}", text)), assistant(problem.labels[number])]
    return messages


def _as_turns(told: str, problem: Problem) -> list[Message]:
    """Every example a turn; a label's first appearance cannot be known and is not learned."""
    messages = [system(told)] if told else []
    known: set[int] = set()
    for text, number in problem.shots + problem.queries:
        messages += [user(text), assistant(problem.labels[number], learned=number in known)]
        known.add(number)
    return messages


def _choice(rng: random.Random, task: str, names: list[str]) -> list[str]:
    """The classes an instruction lists."""
    if task == "topic":
        return rng.sample(names, rng.randint(2, 6))
    if task == "sentiment":
        return names if rng.random() < 0.75 else [n for n in names if n != "neutral"]
    return rng.sample(names, rng.randint(2, len(names)))


def _number(rng: random.Random, told: Mapping[str, Any], slot: str) -> str:
    """A date, time, price, quantity, order number or telephone number."""
    if slot == "date":
        return told["date"].format(day=rng.randint(1, 28), month=rng.choice(told["months"]))
    if slot == "time":
        minute = rng.choice(["00", "15", "30", "45"])
        return told["time"].format(hour=rng.randint(6, 22), minute=minute)
    if slot == "price":
        return told["price"].format(number=rng.randint(2, 990))
    if slot == "quantity":
        return str(rng.randint(2, 99))
    if slot == "order":
        return f"{rng.choice(string.ascii_uppercase)}{rng.randint(100, 9999)}"
    if slot == "phone":
        return f"0{rng.randint(20, 99)} {rng.randint(10000, 99999)}"
    raise KeyError(slot)
