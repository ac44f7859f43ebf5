"""A look at data before anything is trained on them: what they are, what is wrong, what to do.

One pass over the rows, in bounded memory: eight bytes a row for duplicates, and a sample of at most
20,000 rows for whatever is costly (tokens, languages, near duplicates). Personal data, damage,
labels and exact duplicates are looked for in every row. Knows rows and tokenizers; knows no models.
"""

from __future__ import annotations

import random
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from transformers import PreTrainedTokenizerBase

from detour.data.damage import is_damaged
from detour.data.duplicates import Digests, near_duplicates
from detour.data.findings import A_CLASS, FEWEST, Finding, Verdict, advice_for, verdict_of
from detour.data.formats import Columns, Format, detect, listed
from detour.data.forms import Fault, Raw
from detour.data.labels import likely_typos, same_but_form
from detour.data.languages import language_of
from detour.data.numbers import Mark
from detour.data.personal import KINDS, personal_data
from detour.data.records import Example, Kind, Labelled, Record, answer_of, input_of, text_of
from detour.data.table import Split, Table
from detour.data.tokens import Decoded, Tokens, counted
from detour.errors import DataError, NoSupervision
from detour.language.catalogue import Text, text

SAMPLE = 20_000  # rows that are looked at closely
FIRST = 200  # rows from which the format is told
SHOWN = 5  # places a finding names
LABELS = 10_000  # different ones beyond which a label is no class
COLUMNS = 100  # without a role that are remembered
LICENCES = ("license", "licence", "lizenz")
Watch = Callable[[str, int, int], None]
"""Told the split, and how many bytes of how many were read."""


@dataclass(frozen=True)
class Look:
    """How closely to look."""

    columns: Columns = field(default_factory=lambda: {})
    format: str | None = None
    names: bool = False
    """Whether names behind titles count as personal data."""
    sample: int = SAMPLE
    decimal: Mark | None = None
    """The decimal mark of numbers, where they do not show it."""
    near: bool = True
    """Whether near duplicates are looked for, which needs datasketch."""
    seed: int = 0


@dataclass(frozen=True)
class DataReport:
    """Everything that was found."""

    name: str
    form: str
    format: Format | None
    told: Text
    """How the rows were taken apart."""
    rows: Mapping[Split, int]
    usable: int
    findings: tuple[Finding, ...]
    tokens: Tokens | None = None
    labels: Mapping[str, int] = field(default_factory=lambda: {})
    languages: Mapping[str, int] = field(default_factory=lambda: {})
    licences: Mapping[str, int] = field(default_factory=lambda: {})
    example: Decoded | None = None
    sampled: int = 0

    @property
    def kind(self) -> Kind | None:
        """What would be trained."""
        return self.format.kind if self.format else None

    @property
    def verdict(self) -> Verdict:
        """`ready`, `dirty`, `too_few` or `unusable`."""
        return verdict_of(self.findings, self.usable, self.kind)

    @property
    def advice(self) -> Text:
        """What to do next."""
        return advice_for(self.verdict, self.kind)

    def to_json(self) -> dict[str, Any]:
        """The contract of `detour check --json`."""
        tokens = self.tokens
        return {
            "name": self.name,
            "form": self.form,
            "format": self.format.name if self.format else None,
            "columns": dict(self.format.columns) if self.format else {},
            "kind": self.kind,
            "rows": sum(self.rows.values()),
            "splits": dict(self.rows),
            "usable": self.usable,
            "tokens": tokens and {"median": tokens.median, "most": tokens.most,
                                  "total": tokens.total, "too_long": tokens.too_long,
                                  "limit": tokens.limit, "rows_counted": tokens.rows},
            "supervised_tokens": tokens and {"median": tokens.supervised_median,
                                             "least": tokens.supervised_least,
                                             "most": tokens.supervised_most},
            "labels": dict(self.labels),
            "languages": dict(self.languages),
            "licences": dict(self.licences),
            "verdict": self.verdict,
            "advice": str(self.advice),
            "findings": [finding.to_json() for finding in self.findings],
            "sampled": self.sampled,
        }  # fmt: skip


def look_at(
    table: Table,
    tokenizer: PreTrainedTokenizerBase | None = None,
    limit: int | None = None,
    look: Look | None = None,
    watch: Watch | None = None,
) -> DataReport:
    """Read all rows once and say what is there.

    The tokenizer is that of the base that is to be trained, `limit` the tokens of its context;
    without a tokenizer no tokens are counted.

    Raises:
        DataError: a file as a whole cannot be read. ConfigError: columns or a format that are not
        there. MissingExtra: near duplicates are wanted without datasketch.
    """
    look = look or Look()
    survey = _Survey(table, look)
    for split in table.splits:
        survey.take(split, watch)
    return survey.report(tokenizer, limit)


class _Seen:
    """What is kept of one split."""

    def __init__(self) -> None:
        self.rows = 0
        self.whole = Digests()
        self.inputs = Digests()
        self.answers = Digests()
        self.sources: list[str] = []


class _Survey:
    """One pass; every row is looked at once and forgotten, but for a sample."""

    def __init__(self, table: Table, look: Look) -> None:
        self.table = table
        self.look = look
        self.format: Format | None = None
        self.rng = random.Random(look.seed)
        self.seen: dict[Split, _Seen] = {}
        self.sample: dict[Split, list[Record]] = {}
        self.usable = 0
        self.trouble: dict[str, list[str]] = {}
        self.counts: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.licences: Counter[str] = Counter()
        self.left: dict[str, None] = {}
        self.first_fault: DataError | None = None

    def take(self, split: Split, watch: Watch | None) -> None:
        """All rows of a split."""
        seen = self.seen[split] = _Seen()
        kept = self.sample[split] = []
        step = (lambda done, of: watch(split, done, of)) if watch else None
        for row in self._detected(self.table.rows(split, step)):
            seen.rows += 1
            record = self._record(row)
            if record is None:
                continue
            place = len(seen.whole)
            self._look_at(record, seen)
            if isinstance(row, Raw):
                self._licence(row)
                self._beside(row)
            if place < self.look.sample:
                kept.append(record)
            elif (chosen := self.rng.randrange(place + 1)) < self.look.sample:
                kept[chosen] = record

    def _detected(self, rows: Iterator[Raw | Fault]) -> Iterator[Raw | Fault]:
        """The same rows; the first of them say the format."""
        if self.format is not None:
            return rows
        first = list(islice(rows, FIRST))
        known = [row for row in first if isinstance(row, Raw)]
        if known:
            self.format = detect(known, self.look.columns, self.look.format, self.look.decimal)
        return chain(first, rows)

    def _record(self, row: Raw | Fault) -> Record | None:
        error: DataError
        if isinstance(row, Fault):
            error = row.error
        elif self.format is None:
            return None
        else:
            try:
                return self.format.record(row)
            except DataError as cause:
                error = cause
        if isinstance(error, NoSupervision):
            self._note("no_supervision", row.source)
            return None
        self._note("unreadable", row.source)
        self.first_fault = self.first_fault or error
        return None

    def _look_at(self, record: Record, seen: _Seen) -> None:
        self.usable += 1
        told = text_of(record)
        seen.whole.add(f"{told}\0{record.label}" if isinstance(record, Labelled) else told)
        seen.inputs.add(input_of(record))
        seen.answers.add(answer_of(record))
        if is_damaged(told):
            self._note("encoding", record.source)
        for kind in {one.kind for one in personal_data(told, self.look.names)}:
            self._note(kind, record.source)
        if isinstance(record, Example) and record.unanswered:
            self._note("unanswered", record.source)
        if isinstance(record, Labelled) and len(self.labels) < LABELS:
            self.labels[record.label] += 1

    def _licence(self, row: Raw) -> None:
        for name in LICENCES:
            value = row.values.get(name)
            if isinstance(value, str) and value.strip() and len(self.licences) < LABELS:
                self.licences[value.strip()] += 1

    def _beside(self, row: Raw) -> None:
        left = self.format.beside(row) if self.format else []
        if left:
            self._note("unused_columns", row.source)
        if len(self.left) < COLUMNS:
            self.left.update(dict.fromkeys(left))

    def _note(self, code: str, source: str) -> None:
        self.counts[code] += 1
        places = self.trouble.setdefault(code, [])
        if len(places) < SHOWN:
            places.append(source)

    # ---- what follows from it ----------------------------------------------------------------

    def report(self, tokenizer: PreTrainedTokenizerBase | None, limit: int | None) -> DataReport:
        """All findings, the worst first."""
        sampled = [record for kept in self.sample.values() for record in kept]
        tokens, example, masked = None, None, []
        if tokenizer is not None and sampled:
            tokens, example, masked = counted(sampled, tokenizer, limit, self.usable)
        findings = [
            *self._unreadable(),
            *self._amount(),
            *self._duplicates(),
            *self._leakage(),
            *self._personal(),
            *self._encoding(),
            *self._classes(),
            *self._supervision(masked),
            *_length(tokens),
            *self._columns(),
            *self._unanswered(),
        ]
        worst = {"error": 0, "warning": 1, "info": 2}
        return DataReport(
            name=self.table.name,
            form=self.table.form,
            format=self.format,
            told=self._told(),
            rows={split: seen.rows for split, seen in self.seen.items()},
            usable=self.usable,
            findings=tuple(sorted(findings, key=lambda finding: worst[finding.severity])),
            tokens=tokens,
            labels=dict(self.labels.most_common()),
            languages=dict(Counter(language_of(text_of(r)) for r in sampled).most_common()),
            licences=dict(self.licences.most_common()),
            example=example,
            sampled=len(sampled),
        )

    def _told(self) -> Text:
        if self.format is None:
            return text("no row can be read")
        if not self.table.told:
            return self.format.told
        return text("{table}; {format}", table=self.table.told, format=self.format.told)

    def _unreadable(self) -> Iterator[Finding]:
        if self.counts["unreadable"]:
            fault = self.first_fault.message if self.first_fault else ""
            yield Finding(
                "unreadable", "error", self.counts["unreadable"],
                text("mend or drop them; the first: {fault}", fault=fault),
                tuple(self.trouble["unreadable"]),
            )  # fmt: skip

    def _amount(self) -> Iterator[Finding]:
        kind = self.format.kind if self.format else "chat"
        usable = len(self.seen["train"].whole)
        if 0 < usable < FEWEST[kind]:
            yield Finding(
                "too_few", "warning", usable,
                text("{least} rows or more are worth training on", least=FEWEST[kind]),
            )  # fmt: skip

    def _duplicates(self) -> Iterator[Finding]:
        seen = self.seen["train"]
        again = seen.whole.repeated()
        if again:
            yield Finding(
                "exact_duplicates", "warning", len(again),
                text("each of them is learned twice: drop them (--fix)"),
            )  # fmt: skip
        other = set(seen.inputs.contradicted(seen.answers)) - set(again)
        if other and self.format and self.format.kind == "classification":
            yield Finding(
                "contradictions", "warning", len(other),
                text("the same text with another label: decide on one"),
            )  # fmt: skip
        if self.look.near and self.sample["train"]:
            texts = [text_of(record) for record in self.sample["train"]]
            sources = [record.source for record in self.sample["train"]]
            near = near_duplicates(texts)
            if near:
                yield Finding(
                    "near_duplicates", "warning" if len(near) > 0.01 * len(texts) else "info",
                    len(near),
                    text("nearly the same as an earlier row, among {count} rows looked at",
                         count=len(texts)),
                    tuple(f"{sources[a]} ~ {sources[b]}" for a, b in near[:SHOWN]),
                )  # fmt: skip

    def _leakage(self) -> Iterator[Finding]:
        train = self.seen["train"]
        for split in self.seen:
            if split == "train":
                continue
            inside = self.seen[split].inputs.within(train.inputs)
            places = [p for p, _ in self._near(split, "train")] if self.look.near else []
            if inside or places:
                asked = Digests()
                for record in self.sample[split]:
                    asked.add(input_of(record))
                shown = (*asked.within(train.inputs), *places)[:SHOWN]
                yield Finding(
                    "leakage", "error", len(inside) + len(places),
                    text("rows of {split} stand in train too ({exact} to the letter, {near} "
                         "nearly): what they measure is memory; drop them (--fix)",
                         split=split, exact=len(inside), near=len(places)),
                    tuple(self.sample[split][place].source for place in shown),
                )  # fmt: skip

    def _near(self, split: Split, other: Split) -> list[tuple[int, int]]:
        texts = [input_of(record) for record in self.sample[split]]
        others = [input_of(record) for record in self.sample[other]]
        return near_duplicates(texts, others) if texts and others else []

    def _personal(self) -> Iterator[Finding]:
        kinds = [kind for kind in KINDS if self.counts[kind]]
        if kinds:
            places = tuple(dict.fromkeys(p for kind in kinds for p in self.trouble[kind]))
            told = ", ".join(f"{kind} {self.counts[kind]}" for kind in kinds)
            yield Finding(
                "personal_data", "warning", max(self.counts[kind] for kind in kinds),
                text("{told}: a model may learn them by heart; replace them (--fix --redact)",
                     told=told),
                places[:SHOWN],
            )  # fmt: skip

    def _encoding(self) -> Iterator[Finding]:
        if self.counts["encoding"]:
            yield Finding(
                "encoding", "warning", self.counts["encoding"],
                text("letters that only a wrong decoding makes, such as Ã¶ for ö (--fix)"),
                tuple(self.trouble["encoding"]),
            )  # fmt: skip

    def _columns(self) -> Iterator[Finding]:
        if self.left:
            yield Finding(
                "unused_columns", "info", self.counts["unused_columns"],
                text("not learned: {names}; a column that matters needs a role "
                     "(--column ROLE=NAME)", names=listed(list(self.left))),
            )  # fmt: skip

    def _unanswered(self) -> Iterator[Finding]:
        if self.counts["unanswered"]:
            yield Finding(
                "unanswered", "info", self.counts["unanswered"],
                text("turns behind the last answer are left off: nobody answers them"),
                tuple(self.trouble["unanswered"]),
            )  # fmt: skip

    def _supervision(self, masked: Sequence[str]) -> Iterator[Finding]:
        count = self.counts["no_supervision"] + len(masked)
        if count:
            everything = len(masked) == self.usable
            yield Finding(
                "no_supervision", "error" if everything else "warning", count,
                text("nothing in these rows would be learned: they need an answer at their end"),
                (*self.trouble.get("no_supervision", ()), *masked)[:SHOWN],
            )  # fmt: skip

    def _classes(self) -> Iterator[Finding]:
        if not self.labels:
            return
        if len(self.labels) == 1:
            yield Finding(
                "one_class", "error", self.usable,
                text("every row is {label!r}: there is nothing to tell apart; add rows of another "
                     "class", label=next(iter(self.labels))),
            )  # fmt: skip
            return
        forms, typos = same_but_form(self.labels), likely_typos(self.labels)
        if forms:
            yield Finding(
                "label_form", "warning", sum(self.labels[name] for name in forms),
                text("the same class but for its form: {told} (--fix)", told=_arrows(forms)),
            )  # fmt: skip
        if typos:
            rare, name = next(iter(typos.items()))
            yield Finding(
                "label_typo", "warning", sum(self.labels[rare] for rare in typos),
                text("perhaps the same class: {told}; if so: --fix with --rename-label {example}",
                     told=_arrows(typos), example=shlex.quote(f"{rare}={name}")),
            )  # fmt: skip
        doubtful = {*forms, *typos}
        small = [n for n, count in self.labels.items() if count < A_CLASS and n not in doubtful]
        if small:
            yield Finding(
                "small_classes", "warning", sum(self.labels[name] for name in small),
                text("classes with fewer than {least} rows: {names}", least=A_CLASS,
                     names=", ".join(small[:SHOWN])),
            )  # fmt: skip


def _arrows(names: Mapping[str, str]) -> str:
    return ", ".join(f"{one!r} → {name!r}" for one, name in list(names.items())[:SHOWN])


def _length(tokens: Tokens | None) -> Iterator[Finding]:
    if tokens and tokens.too_long:
        share = tokens.too_long / tokens.rows
        yield Finding(
            "truncated", "error" if share > 0.01 else "warning", tokens.too_long,
            text("{share:.1%} of the rows are longer than the base's {limit} tokens: shorten or "
                 "drop them (--fix)", share=share, limit=tokens.limit or 0),
            tokens.where,
        )  # fmt: skip
