"""More descriptions of the same tasks: sentence frames around what is there, or a model's words.

A frame is what stands before and after a description: "Your task: … Thank you." Frames vary the
sentence, not the words that say what to do; only a model that rephrases varies those. Whatever is
added occurs nowhere else: not in another task, not in a set that judges. Knows descriptions and
texts; whoever rephrases is a function from prompts to answers.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Field

from detour.decoding.request import Finish
from detour.errors import DataError
from detour.hypernetwork.frames import ENDINGS, HELD_OUT, NO_ORDER, OPENINGS, ORDERS, Frame
from detour.hypernetwork.tasks import Description, Task, read_task
from detour.language.catalogue import text
from detour.measure.metrics import mentions, normalised, repeats

if TYPE_CHECKING:
    from detour.model.base import Base

Asker: TypeAlias = Callable[[Sequence[str]], list[str]]
"""Prompts to answers, in their order."""

NEW_FRAMES = "new frames"  # the set of descriptions in frames that never train
LONG = 120  # characters of a description whose first sentence may stand for it
LONGER = 3  # times its source, above which (or times shorter) a rephrasing is dropped
TEMPERATURE, TOP_P = 0.9, 0.95  # of rephrasing: the same sentence is asked for many times


class WidenConfig(BaseModel):
    """How far a task is widened."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(64, ge=1)
    """Descriptions to train on that a task should have."""
    hold_out_frames: bool = False
    """Add descriptions in frames that only judge, as the set "new frames"."""


_SCENE = re.compile(r"(?:(?:in|for) (?:this|the following) task,?|here,)\s+", re.IGNORECASE)
_DUTY: Mapping[str, re.Pattern[str]] = MappingProxyType({
    "en": re.compile(
        r"\b(?:you (?:need to|have to|must|should|are (?:asked|expected|required) to)"
        r"|(?:task|job|goal) is to|we (?:ask|want) you to)\b", re.IGNORECASE),
    "de": re.compile(r"\b(?:sollst du|du sollst|musst du|du musst)\b", re.IGNORECASE),
})  # fmt: skip
_NEXT_SENTENCE = re.compile(
    r"(?<=[.!?])(?<!\.[a-zA-Z]\.)(?<!etc\.)(?<!vs\.)(?<! [a-zA-Z]\.)\s+(?=[A-ZÄÖÜ\"“„])"
)
_LOST = re.compile("[\x85\u2028\u2029]")  # line breaks that YAML keeps only where it escapes them
_NAMES = MappingProxyType({"": "en", "english": "en", "german": "de", "deutsch": "de"})
_PROMPTS = MappingProxyType({
    "en": ("Say the following instruction in other words, in the same language. Keep exactly what "
           "it asks for. Write only the new instruction.", "Use these words as they are: "),
    "de": ("Sag die folgende Anweisung mit anderen Worten. Verlange genau dasselbe. Schreib nur "
           "die neue Anweisung.", "Benutze diese Wörter so, wie sie sind: "),
})  # fmt: skip


@dataclass(frozen=True)
class WidenedTask:
    """How many descriptions a task had to train on, and what was added."""

    name: str
    before: int
    rephrased: int = 0
    templates: int = 0
    new_frames: int = 0
    """Of the set that only judges."""

    @property
    def after(self) -> int:
        """Descriptions to train on now."""
        return self.before + self.rephrased + self.templates


@dataclass
class Widened:
    """What was added to which task."""

    added: dict[str, list[Description]] = field(default_factory=dict)
    tasks: list[WidenedTask] = field(default_factory=list)
    short: list[str] = field(default_factory=list)
    """Tasks for which there was too little to make the wanted count of."""
    asked: int = 0
    """Rephrasings that a model was asked for."""
    dropped: Counter[str] = field(default_factory=Counter[str])
    """Why answers were not kept, and how many."""

    def total(self, name: str) -> int:
        """A figure of all tasks together."""
        return sum(getattr(task, name) for task in self.tasks)

    def to_json(self) -> dict[str, Any]:
        """As plain values; without the descriptions themselves."""
        return {
            "tasks": [{**asdict(task), "after": task.after} for task in self.tasks],
            "short": self.short,
            "asked": self.asked,
            "kept": self.total("rephrased"),
            "dropped": dict(self.dropped),
        }


def read_folder(folder: Path) -> list[Task]:
    """The tasks of a folder; those of no split train, as they may once the folder is split.

    Raises:
        DataError: no folder, no task, or a task that cannot be read.
    """
    if not folder.is_dir():
        raise DataError(
            text("{path} is no folder", path=folder),
            expected=text("a folder with one folder a task"),
        )
    places = sorted(path.parent for path in folder.glob("*/task.yaml"))
    if not places:
        raise DataError(
            text("{path} holds no task", path=folder),
            expected=text("task.yaml, train.jsonl and test.jsonl in a folder of their own"),
        )
    return [replace(task, split=split or "train") for task, split in map(read_task, places)]


def write_folder(tasks: Path, folder: Path, added: Mapping[str, Sequence[Description]]) -> None:
    """Fill an empty folder with the tasks' files and the new descriptions behind the old ones."""
    for path in sorted(tasks.glob("*/task.yaml")):
        target = folder / path.parent.name
        target.mkdir()
        for file in sorted(path.parent.iterdir()):
            if file.is_file():
                shutil.copyfile(file, target / file.name)
        if added.get(target.name):
            told = yaml.safe_load(path.read_text("utf-8-sig"))
            new = [_entry(description) for description in added[target.name]]
            told["descriptions"] = [*told["descriptions"], *new]
            kept = not _LOST.search(json.dumps(told, ensure_ascii=False, default=str))
            dumped = yaml.safe_dump(told, allow_unicode=kept, sort_keys=False, width=100)
            (target / "task.yaml").write_text(dumped, encoding="utf-8")


def _entry(description: Description) -> dict[str, Any] | str:
    told = description.model_dump(exclude_defaults=True)
    return description.text if set(told) == {"text"} else told


def widen(tasks: Sequence[Task], config: WidenConfig, ask: Asker | None = None) -> Widened:
    """New descriptions for every task that trains, and frames to judge all tasks by.

    A model's words come first; frames around what stood there before fill up what is missing.
    """
    widened = Widened({task.name: [] for task in tasks})
    pool = _Pool(tasks)
    held = {task.name: pool.held_out(task) if config.hold_out_frames else [] for task in tasks}
    for task in tasks:
        own = task.of_set()
        wanted = config.count - len(own) if task.split == "train" else 0
        said = _rephrased(task, wanted, ask, pool, widened) if ask else []
        framed = pool.framed(task, wanted - len(said))
        made = WidenedTask(task.name, len(own), len(said), len(framed), len(held[task.name]))
        widened.added[task.name] = [*said, *framed, *held[task.name]]
        widened.tasks.append(made)
        if task.split == "train" and made.after < config.count:
            widened.short.append(task.name)
    return widened


def asker_of(base: Base, seed: int = 0) -> Asker:
    """A model as one who rephrases; an answer that it does not end, or has no room for, is empty.

    Raises (when it is asked):
        BaseError: no tokenizer or chat template.
        SlotsBusy: somebody else holds the slots.
    """

    def ask(prompts: Sequence[str]) -> list[str]:
        sizes = {prompt: len(base.chat(prompt)) for prompt in prompts}
        room = base.engine.positions
        fitting = [p for p in prompts if room is None or 2 * sizes[p] <= room]
        told = base.generate(
            fitting, temperature=TEMPERATURE, top_p=TOP_P, seed=seed,
            max_new_tokens=max((sizes[p] for p in fitting), default=1),
        )  # fmt: skip
        ended = (base.decode(t.ids) if t.finish is not Finish.LENGTH else "" for t in told)
        return [next(ended) if room is None or 2 * sizes[p] <= room else "" for p in prompts]

    return ask


class _Pool:
    """All texts that are taken, and the frames that may be put around a task's own."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.taken = {normalised(d.text) for task in tasks for d in task.descriptions}
        self.held_words = {
            phrase
            for task in tasks
            for d in task.descriptions
            if d.set.startswith("new words")
            for phrase in d.parts.values()
        }
        judged = [d.text for task in tasks for d in task.descriptions if d.set]
        self.frames = {
            name: [f for f in self._allowed(_every_frame(name)) if not _is_held(f, judged)]
            for name in OPENINGS
        }
        self.held_frames = {name: self._allowed(frames) for name, frames in HELD_OUT.items()}
        self._owners: dict[str, set[str]] = {}
        for task in tasks:
            for core in map(stripped, task.of_set()):
                for each in (core, first_sentence(core)):
                    if each is not None:
                        self._owners.setdefault(normalised(each.text), set()).add(task.name)

    def claim(self, description: Description) -> bool:
        """Whether nobody has this text; from now on it is taken."""
        key = normalised(description.text)
        is_new = key not in self.taken
        self.taken.add(key)
        return is_new

    def framed(self, task: Task, wanted: int) -> list[Description]:
        """At most `wanted` new descriptions, taking turns between the task's own."""
        cores = self._cores(task)
        turns = [self._around(core, 7 * number) for number, core in enumerate(cores)]
        found: list[Description] = []
        while turns and len(found) < wanted:
            for turn in list(turns):
                made = next(turn, None)
                if made is None:
                    turns.remove(turn)
                elif len(found) < wanted and self.claim(made):
                    found.append(made)
        return found

    def held_out(self, task: Task) -> list[Description]:
        """One description in each frame that never trains, in the languages of the task."""
        own = [stripped(d) for d in task.of_set()]
        found: list[Description] = []
        for language, frames in self.held_frames.items():
            cores = [core for core in own if language_of(core) == language]
            for frame, core in zip(frames, cycle(cores), strict=False):
                made = put(frame, core)
                if made is not None and self.claim(made):
                    found.append(made.model_copy(update={"set": NEW_FRAMES}))
        return found

    def _cores(self, task: Task) -> list[Description]:
        """Texts to put frames around; none that another task has too."""
        whole = [stripped(description) for description in task.of_set()]
        every = [*whole, *(s for core in whole if (s := first_sentence(core)) is not None)]
        return [core for core in every if self._owners[normalised(core.text)] == {task.name}]

    def _around(self, core: Description, first: int) -> Iterator[Description]:
        frames = self.frames.get(language_of(core) or "", [])
        for number in range(len(frames)):
            made = put(frames[(first + number) % len(frames)], core)
            if made is not None:
                yield made

    def _allowed(self, frames: Sequence[Frame]) -> list[Frame]:
        """Without frames that say a phrase which is held out."""
        return [
            frame for frame in frames
            if not any(mentions(f"{frame.before} {frame.after}", p) for p in self.held_words)
        ]  # fmt: skip


def _every_frame(language: str) -> list[Frame]:
    """Every opening with every ending; each run through the openings changes the endings."""
    endings = ENDINGS[language]
    return [
        Frame(before, endings[(place + turn) % len(endings)], mark)
        for turn in range(len(endings))
        for place, (before, mark) in enumerate(OPENINGS[language])
    ]


def _is_held(frame: Frame, judged: Sequence[str]) -> bool:
    """Whether a text that judges opens or ends as the frame does."""
    return any(
        (bool(frame.before) and told.startswith(frame.before))
        or (bool(frame.after) and told.endswith(frame.after))
        for told in judged
    )


def language_of(description: Description) -> str | None:
    """Whose frames fit: en (also where no language is named), de, or none."""
    name = re.split("[-_]", description.language.casefold())[0]
    name = _NAMES.get(name, name)
    return name if name in OPENINGS else None


def put(frame: Frame, core: Description) -> Description | None:
    """The description in the frame; None where the grammar or its phrases do not allow it."""
    body = core.text
    if frame.mark:
        if not is_order(core):
            return None
        body = _clause(body, frame.mark)
    if frame.after and body.rstrip("\"'”“»«)")[-1:] not in tuple(".!?…"):
        body += "."
    told = frame.before + body + frame.after
    start = len(frame.before)
    for phrase in core.parts.values():  # found where it is meant, not in the frame
        if phrase not in body or told.find(phrase) != start + body.find(phrase):
            return None
    return core.model_copy(update={"text": told})


def stripped(description: Description) -> Description:
    """Without an opening and an ending that frames have too; as it is where a phrase would go."""
    language = language_of(description)
    if language is None:
        return description
    told = description.text.strip()
    for ending in filter(None, ENDINGS[language]):
        told = told.removesuffix(ending)
    if language == "en":
        told = told[scene.end() :] if (scene := _SCENE.match(told)) else told
    for before, mark in OPENINGS[language]:
        rest = told[len(before) :]
        if not before or not rest or not told.casefold().startswith(before.casefold()):
            continue
        if not mark or is_order(description.model_copy(update={"text": rest})):
            told = _clause(rest, ".") if mark == "?" else rest
            break
    told = told[:1].upper() + told[1:]
    if not all(phrase in told for phrase in description.parts.values()):
        return description
    return description.model_copy(update={"text": told})


def first_sentence(core: Description) -> Description | None:
    """The first sentence of a long description, where it says what to do; else None."""
    language = language_of(core)
    found = _NEXT_SENTENCE.search(core.text)
    if language is None or found is None or len(core.text) < LONG:
        return None
    told = core.model_copy(update={"text": core.text[: found.start()]})
    says = is_order(told) or _DUTY[language].search(told.text)
    whole = all(phrase in told.text for phrase in core.parts.values())
    return told if says and whole else None


def is_order(description: Description) -> bool:
    """Whether it begins as an order does: "Name the town", not "Name of the town: …"."""
    words = description.text.split()[:4]
    orders = ORDERS.get(language_of(description) or "", frozenset())
    return (
        len(words) > 1
        and words[0].casefold() in orders
        and (len(words[0]) == 1 or words[0][1:].islower())
        and words[1].casefold() not in NO_ORDER
        and not any(word.endswith(":") for word in words)
    )


def _clause(told: str, mark: str) -> str:
    """The order's first sentence as the end of another sentence, the rest as it was."""
    found = _NEXT_SENTENCE.search(told)
    end = found.start() if found else len(told)
    return told[:1].lower() + told[1:end].rstrip(".!?") + mark + told[end:]


def _rephrased(
    task: Task, wanted: int, ask: Asker, pool: _Pool, widened: Widened
) -> list[Description]:
    """What a model says instead of the task's own descriptions, as far as it can be used."""
    sources = list(islice(cycle(task.of_set()), max(0, wanted)))
    if not sources:
        return []
    widened.asked += len(sources)
    found: list[Description] = []
    answers = ask([prompt_for(source) for source in sources])
    for source, answer in zip(sources, answers, strict=True):
        told = _unquoted(" ".join(answer.split()))
        made = source.model_copy(update={"text": told})
        fault = _fault(source, told, pool) or ("" if pool.claim(made) else "there already")
        if fault:
            widened.dropped[fault] += 1
        else:
            found.append(made)
    return found


def prompt_for(source: Description) -> str:
    """What a model is asked for a rephrasing."""
    asked, keep = _PROMPTS["de" if language_of(source) == "de" else "en"]
    phrases = ", ".join(f'"{phrase}"' for phrase in source.parts.values())
    return " ".join([asked, f"{keep}{phrases}." if phrases else ""]).strip() + f"\n\n{source.text}"


def _fault(source: Description, told: str, pool: _Pool) -> str:
    """Why an answer cannot stand for its source; empty where it can."""
    held = (p for p in pool.held_words if mentions(told, p) and not mentions(source.text, p))
    if not told:
        return "empty or unfinished"
    if len(told) > LONGER * len(source.text):
        return "too long"
    if LONGER * len(told) < len(source.text):  # a weak model answers with a word or two
        return "too short"
    if not all(phrase in told for phrase in source.parts.values()):
        return "without a phrase"
    if repeats(told):
        return "repeats itself"
    return "with words that are held out" if any(held) else ""


def _unquoted(told: str) -> str:
    """Without quotes around all of it."""
    pairs = ('""', "''", "“”", "„“", "»«")
    while len(told) > 1 and told[0] + told[-1] in pairs:
        told = told[1:-1].strip()
    return told
