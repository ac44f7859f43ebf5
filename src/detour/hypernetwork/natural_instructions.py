"""Super-NaturalInstructions files as task folders: one `taskNNN_name.json`, one task.

    {"Definition": ["…"], "Source": ["…"], "URL": ["…"], "Instance License": ["…"],
     "Input_language": ["English"], "Output_language": ["…"], "Instruction_language": ["…"],
     "Instances": [{"id": "…", "input": "…", "output": ["…", "…"]}], …}

The format is that of github.com/allenai/natural-instructions; older files hold one text where
newer ones hold a list. Only definitions and instances are taken. An input that allows several
answers is learned with the first of them and never judges, because a task's metric compares with
one answer. Knows JSON, rows and task folders; knows no tokens and no model.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field

from detour.errors import DataError
from detour.language.catalogue import text
from detour.measure.metrics import normalised
from detour.model.examples import read_text

FEW = 5  # rows to learn from, and rows to judge by, below which a file is no task
CODES = {"English": "en", "German": "de"}  # as descriptions name their language
_HALF = re.compile("[\ud800-\udfff]")  # half of a surrogate pair: JSON may hold it, files may not


class ImportConfig(BaseModel):
    """What is taken of the files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(500, ge=1)
    """Rows to learn from, at most."""
    test_rows: int = Field(100, ge=1)
    """Rows to judge by, at most; never more than half of what a file has."""
    self_describing: bool = False
    """Put the definition before every input. Then the base can read there what to do."""
    english: bool = False
    """Leave out what is not English to English."""
    skip_broken: bool = False
    """Leave out files of a folder that cannot be used."""


@dataclass(frozen=True)
class Row:
    """One input and every answer that is right."""

    prompt: str
    answers: tuple[str, ...]

    @property
    def place(self) -> str:
        """Where a split puts it, whatever else the file holds."""
        return sha256(normalised(self.prompt).encode()).hexdigest()


@dataclass(frozen=True)
class Instructions:
    """One file as it was read."""

    path: Path
    definitions: tuple[str, ...]
    rows: tuple[Row, ...]
    """Every input once, with the answers of all its instances."""
    language: str = ""
    """Of the definitions."""
    is_english: bool = False
    """From English to English."""
    licence: str = ""
    source: str = ""
    repeated: int = 0
    """Instances whose input had occurred before."""
    unusable: int = 0
    """Instances without an input or an answer that can be written down."""


@dataclass(frozen=True)
class ImportedTask:
    """What became of one file."""

    name: str
    train: int
    test: int
    several_answers: int
    """Inputs with several answers: learned with the first, never judged by."""
    repeated: int
    unusable: int


@dataclass(frozen=True)
class Skipped:
    """A file that made no task."""

    file: str
    why: str


@dataclass
class Imported:
    """What was made, and what was not."""

    tasks: list[ImportedTask] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def total(self, name: str) -> int:
        """A figure of all tasks together."""
        return sum(getattr(task, name) for task in self.tasks)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "tasks": [asdict(task) for task in self.tasks],
            "rows": {"train": self.total("train"), "test": self.total("test")},
            "skipped": [asdict(file) for file in self.skipped],
        }


def import_tasks(source: Path, folder: Path, config: ImportConfig) -> Imported:
    """Fill an empty folder with a task for the file, or for every file below the folder, `source`.

    Raises:
        DataError: no file; one that is not this format, has too few rows or the definition of
            another (unless they are skipped); two of one name; nothing left to import.
    """
    made = Imported()
    owners: dict[str, Path] = {}
    names: dict[str, Path] = {}
    for path in files_of(source):
        try:
            _check_name(path, names)
            told = read_instructions(path)
            if config.english and not told.is_english:
                made.skipped.append(Skipped(str(path), text("not from English to English")))
                continue
            _check_own(told, owners)
            made.tasks.append(_write(told, folder / path.stem, config))
            owners.update((normalised(definition), path) for definition in told.definitions)
        except DataError as error:
            if not source.is_dir():
                raise
            if not config.skip_broken:
                raise _skippable(error) from error
            made.skipped.append(Skipped(str(path), error.line))
    if not made.tasks:
        raise DataError(
            text("{path} yields no task", path=source),
            expected=text("at least one file that can be used"),
            found=text("{count} skipped, the first: {why}", count=len(made.skipped),
                       why=made.skipped[0].why),
        )  # fmt: skip
    return made


def files_of(source: Path) -> list[Path]:
    """The file itself, or every JSON file below a folder, hidden ones left out.

    Raises:
        DataError: a folder without one.
    """
    if not source.is_dir():
        return [source]
    found = sorted(
        path for path in source.rglob("*.json")
        if not any(part.startswith(".") for part in path.relative_to(source).parts)
    )  # fmt: skip
    if not found:
        raise DataError(
            text("{path} holds no JSON file", path=source),
            expected=text("files such as task001_name.json"),
        )
    return found


def _check_name(path: Path, names: dict[str, Path]) -> None:
    """No two files of one name: they would be one task's folder."""
    other = names.setdefault(path.stem.casefold(), path)
    if other is not path:
        raise DataError(
            text("{path} would make a task that is there already", path=path),
            expected=text("file names that differ in more than their case"),
            found=str(other),
            hint=text("rename one of them, or --skip-broken"),
        )


def read_instructions(path: Path) -> Instructions:
    """One file.

    Raises:
        DataError: missing, not JSON, without definition or instances, or with an instance that
            has no input or output.
    """
    told = _read_json(path)
    definitions = _texts(told.get("Definition"))
    if not definitions:
        raise DataError(
            text("{path} has no Definition", path=path),
            expected=text("a text that says what to do, or a list of such texts"),
            found=repr(told.get("Definition"))[:80],
            hint=text("a file of Super-NaturalInstructions, as in its folder tasks"),
        )
    rows, repeated, unusable = _rows(told.get("Instances"), path)
    languages = [_texts(told.get(key)) for key in ("Input_language", "Output_language")]
    spoken = _texts(told.get("Instruction_language"))
    origin = ", ".join([*_texts(told.get("Source")), *_texts(told.get("URL"))])
    return Instructions(
        path, definitions, rows,
        language=CODES.get(spoken[0], spoken[0].casefold()) if spoken else "",
        is_english=all(told == ("English",) for told in languages),
        licence=", ".join(_texts(told.get("Instance License"))),
        source=f"Super-NaturalInstructions, {path.stem}" + (f": {origin}" if origin else ""),
        repeated=repeated,
        unusable=unusable,
    )  # fmt: skip


def split_rows(told: Instructions, config: ImportConfig) -> tuple[list[Row], list[Row]]:
    """Rows to learn from and rows to judge by.

    Rows are ordered by a hash of their input; the first judge and the last are learned. So a row
    stays on its side when more of either are wanted, as long as there are enough.

    Raises:
        DataError: too few rows, or too few with one answer.
    """
    if len(told.rows) < 2 * FEW:
        raise DataError(
            text("{path} has too few instances", path=told.path),
            expected=text("at least {count} different inputs with an answer", count=2 * FEW),
            found=str(len(told.rows)),
        )
    ordered = sorted(told.rows, key=lambda row: row.place)
    single = [row for row in ordered if len(row.answers) == 1]
    if len(single) < FEW:
        raise DataError(
            text("{path} has too few instances with only one answer", path=told.path),
            expected=text("at least {count}, to be judged by", count=FEW),
            found=str(len(single)),
            hint=text("a task whose inputs have many right answers cannot be judged by one"),
        )
    judged = single[: min(config.test_rows, len(ordered) // 2)]
    kept = {row.place for row in judged}
    learned = [row for row in reversed(ordered) if row.place not in kept]
    return learned[: config.rows], judged


def _write(told: Instructions, folder: Path, config: ImportConfig) -> ImportedTask:
    """The task's folder; nothing of it where the rows do not do."""
    learned, judged = split_rows(told, config)
    language = {"language": told.language} if told.language else {}
    task: dict[str, object] = {
        "descriptions": [{"text": each, **language} for each in told.definitions],
        "metric": "exact_match",
        "licence": told.licence,
        "source": told.source,
    }
    before = f"{told.definitions[0]}\n\n" if config.self_describing else ""
    folder.mkdir()
    dumped = yaml.safe_dump(task, allow_unicode=True, sort_keys=False, width=100)
    (folder / "task.yaml").write_text(dumped, encoding="utf-8")
    for name, rows in (("train", learned), ("test", judged)):
        lines = "".join(
            json.dumps(
                {"prompt": before + row.prompt, "completion": row.answers[0]}, ensure_ascii=False
            )
            + "\n"
            for row in rows
        )
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    several = sum(len(row.answers) > 1 for row in told.rows)
    return ImportedTask(
        folder.name, len(learned), len(judged), several, told.repeated, told.unusable
    )


def _check_own(told: Instructions, owners: Mapping[str, Path]) -> None:
    """No two tasks of one description: chance may put them on both sides of a split."""
    for definition in told.definitions:
        other = owners.get(normalised(definition))
        if other is not None:
            raise DataError(
                text("{path} has the definition of another task", path=told.path),
                expected=text("a definition of its own"),
                found=str(other),
            )


def _skippable(error: DataError) -> DataError:
    return DataError(
        error.message,
        expected=error.expected,
        found=error.found,
        hint=error.hint or text("--skip-broken leaves out files that cannot be used"),
    )


def _read_json(path: Path) -> Mapping[str, Any]:
    raw = read_text(path, text("one JSON object"))
    try:
        told = json.loads(raw)
    except json.JSONDecodeError as cause:
        found = text("{message} at column {column}", message=cause.msg, column=cause.colno)
        raise _not_json(f"{path}:{cause.lineno}", found) from cause
    except (ValueError, RecursionError) as cause:  # a number of 5,000 digits, 10,000 brackets
        raise _not_json(str(path), str(cause)) from cause
    if not isinstance(told, dict):
        raise DataError(
            text("{source} is not a JSON object", source=path),
            expected=text("one task, with Definition and Instances"),
            found=type(told).__name__,
        )
    return cast("dict[str, Any]", told)


def _not_json(source: str, found: str) -> DataError:
    return DataError(
        text("{source} is not JSON", source=source), expected=text("one JSON object"), found=found
    )


def _texts(value: object) -> tuple[str, ...]:
    """A text or a list of texts, each once; what is empty or cannot be written is left out.

    Rare line breaks, such as U+0085, become plain ones: YAML does not keep them.
    """
    values = cast("Sequence[object]", value) if isinstance(value, list) else [value]
    found: dict[str, str] = {}
    for each in values:
        if isinstance(each, str) and each.strip() and not _HALF.search(each):
            found.setdefault(normalised(each), "\n".join(each.strip().splitlines()))
    return tuple(found.values())


def _rows(value: object, path: Path) -> tuple[tuple[Row, ...], int, int]:
    """Every input once with all its answers, how many came again, and how many are of no use."""
    if not isinstance(value, list) or not value:
        raise DataError(
            text("{path} has no Instances", path=path),
            expected=text('a list of {{"input": text, "output": [text, …]}}'),
            found=repr(value)[:80],
        )
    found: dict[str, tuple[str, list[str]]] = {}
    repeated = unusable = 0
    for number, instance in enumerate(cast("list[object]", value), start=1):
        prompt, outputs = _instance(instance, number, path)
        answers = [each for each in outputs if each.strip() and not _HALF.search(each)]
        if not prompt.strip() or _HALF.search(prompt) or not answers:
            unusable += 1
            continue
        repeated += normalised(prompt) in found
        _, known = found.setdefault(normalised(prompt), (prompt, []))
        known += answers
    rows = tuple(Row(prompt, _distinct(answers)) for prompt, answers in found.values())
    return rows, repeated, unusable


def _instance(value: object, number: int, path: Path) -> tuple[str, list[str]]:
    if isinstance(value, dict):
        instance = cast("dict[str, object]", value)
        prompt, output = instance.get("input"), instance.get("output")
        outputs = cast("list[object]", output) if isinstance(output, list) else [output]
        answers = [each for each in outputs if isinstance(each, str)]
        if isinstance(prompt, str) and len(answers) == len(outputs):
            return prompt, answers
    raise DataError(
        text("{path}: instance {number} cannot be read", path=path, number=number),
        expected=text('"input" as a text and "output" as a list of texts'),
        found=repr(value)[:80],
    )


def _distinct(answers: Sequence[str]) -> tuple[str, ...]:
    """Answers that differ for the metric: not in white space or Unicode form alone."""
    kept: dict[str, str] = {}
    for answer in answers:
        kept.setdefault(" ".join(unicodedata.normalize("NFC", answer).split()), answer)
    return tuple(kept.values())
