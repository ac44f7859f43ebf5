"""A look at data before anything is trained on them: what they are, what is wrong, what to do.

One pass over the rows (`survey.py`), and what follows from it; what is costly (tokens, languages,
near duplicates) is taken from a sample. Personal data, damage, labels and exact duplicates are
looked for in every row. Knows rows and tokenizers; knows no models.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from detour.data.duplicates import Digests, near_duplicates, near_others, shared
from detour.data.findings import A_CLASS, FEWEST, Finding, Verdict, advice_for, verdict_of
from detour.data.formats import Format, listed
from detour.data.labels import likely_typos, same_but_form
from detour.data.languages import language_of
from detour.data.mend import mending, rereading
from detour.data.personal import KINDS
from detour.data.records import Kind, input_of, parts_of, text_of
from detour.data.survey import SAMPLE, SHOWN, Look, Survey, Watch
from detour.data.table import Split, Table
from detour.data.tokens import Decoded, Tokens, counted
from detour.errors import DataError, WrongEncoding
from detour.language.catalogue import Text, text


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
    first_fault: DataError | None = None
    """Why the first row that cannot be read cannot."""
    mend: str = ""
    """The command that writes a copy in which is mended what can be; empty where nothing can."""
    reread: str = ""
    """The command that reads the data in what seems to be their own encoding."""
    shared: frozenset[str] = frozenset()
    """What most training rows have in common, as `duplicates.shared` tells it."""

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
        return advice_for(self.verdict, self.kind, self.mend, self.reread)

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
    survey = Survey(table, look)
    for split in table.splits:
        survey.take(split, watch)
    return _report(survey, tokenizer, limit)


def _report(
    survey: Survey, tokenizer: PreTrainedTokenizerBase | None, limit: int | None
) -> DataReport:
    """All findings, the worst first."""
    sampled = [record for kept in survey.sample.values() for record in kept]
    tokens, example, masked = None, None, []
    if tokenizer is not None and sampled:
        tokens, example, masked = counted(sampled, tokenizer, limit, survey.usable)
    asked = [input_of(record) for record in survey.sample["train"]]
    common = shared(asked) if survey.look.near else frozenset[str]()
    findings = [
        *_unreadable(survey),
        *_amount(survey),
        *_duplicates(survey, common),
        *_leakage(survey, common),
        *_personal(survey),
        *_encoding(survey),
        *_classes(survey),
        *_supervision(survey, masked),
        *_length(tokens),
        *_columns(survey),
        *_unanswered(survey),
    ]
    worst = {"error": 0, "warning": 1, "info": 2}
    return DataReport(
        name=survey.table.name,
        form=survey.table.form,
        format=survey.format,
        told=_told(survey),
        rows={split: seen.rows for split, seen in survey.seen.items()},
        usable=survey.usable,
        findings=tuple(sorted(findings, key=lambda finding: worst[finding.severity])),
        tokens=tokens,
        labels=dict(survey.labels.most_common()),
        languages=dict(Counter(language_of(text_of(r)) for r in sampled).most_common()),
        licences=dict(survey.licences.most_common()),
        example=example,
        sampled=len(sampled),
        first_fault=survey.first_fault,
        mend=_mend(survey, findings),
        reread=_reread(survey),
        shared=common,
    )


def _mend(survey: Survey, findings: Sequence[Finding]) -> str:
    """With all that mends one of the findings, but what needs a decision: names of classes."""
    given = [one.options.split() for one in findings
             if one.options.startswith("--fix") and "--rename" not in one.options]  # fmt: skip
    if not given:
        return ""
    more = dict.fromkeys(word for words in given for word in words if word != "--fix")
    look = survey.look
    return mending(survey.table, look.columns, look.format, look.decimal, tuple(more))


def _reread(survey: Survey) -> str:
    """Only where no row that was read holds a letter beyond ASCII: another encoding spoils it."""
    cause = survey.first_fault
    if not isinstance(cause, WrongEncoding) or not cause.likely or survey.foreign:
        return ""
    look = survey.look
    return rereading(survey.table, cause.likely, look.columns, look.format, look.decimal)


def _told(survey: Survey) -> Text:
    if survey.format is None:
        return text("no row can be read")
    if not survey.table.told:
        return survey.format.told
    return text("{table}; {format}", table=survey.table.told, format=survey.format.told)


def _unreadable(survey: Survey) -> Iterator[Finding]:
    if survey.counts["unreadable"]:
        fault = survey.first_fault.line if survey.first_fault else ""
        yield Finding(
            "unreadable", "error", survey.counts["unreadable"],
            text("mend or drop them; the first: {fault}", fault=fault),
            tuple(survey.trouble["unreadable"]), "" if _reread(survey) else "--fix",
        )  # fmt: skip


def _amount(survey: Survey) -> Iterator[Finding]:
    kind = survey.format.kind if survey.format else "chat"
    usable = len(survey.seen["train"].whole)
    if 0 < usable < FEWEST[kind]:
        yield Finding(
            "too_few", "warning", usable,
            text("{least} rows or more are worth training on", least=FEWEST[kind]),
        )  # fmt: skip


def _duplicates(survey: Survey, common: frozenset[str]) -> Iterator[Finding]:
    seen = survey.seen["train"]
    again = seen.whole.repeated()
    if again:
        yield Finding(
            "exact_duplicates", "warning", len(again),
            text("each of them is learned twice: drop them"), options="--fix",
        )  # fmt: skip
    other = set(seen.inputs.contradicted(seen.answers)) - set(again)
    if other and survey.format and survey.format.kind == "classification":
        yield Finding(
            "contradictions", "warning", len(other),
            text("the same text with another label: decide on one"),
        )  # fmt: skip
    if survey.look.near and survey.sample["train"]:
        texts = [parts_of(record) for record in survey.sample["train"]]
        sources = [record.source for record in survey.sample["train"]]
        near = near_duplicates(texts, common)
        if near:
            few = len(seen.whole) <= SAMPLE  # so many the copy compares
            many = few and len(near) > 0.01 * len(texts)
            yield Finding(
                "near_duplicates", "warning" if many else "info", len(near),
                text("nearly the same as an earlier row, among {count} rows looked at",
                     count=len(texts)),
                tuple(f"{sources[a]} ~ {sources[b]}" for a, b in near[:SHOWN]),
                "--fix" if few else "",
            )  # fmt: skip


def _leakage(survey: Survey, common: frozenset[str]) -> Iterator[Finding]:
    train = survey.seen["train"]
    for split in survey.seen:
        if split == "train":
            continue
        inside = survey.seen[split].inputs.within(train.inputs)
        places = _near(survey, split, common) if survey.look.near else []
        if inside or places:
            asked = Digests()
            for record in survey.sample[split]:
                asked.add(input_of(record))
            shown = (*asked.within(train.inputs), *places)[:SHOWN]
            yield Finding(
                "leakage", "error", len(inside) + len(places),
                text("rows of {split} stand in train too ({exact} to the letter, {near} "
                     "nearly): what they measure is memory; drop them",
                     split=split, exact=len(inside), near=len(places)),
                tuple(survey.sample[split][place].source for place in shown), "--fix",
            )  # fmt: skip


def _near(survey: Survey, split: Split, common: frozenset[str]) -> list[int]:
    texts = [input_of(record) for record in survey.sample[split]]
    others = [input_of(record) for record in survey.sample["train"]]
    return near_others(texts, others, common) if texts and others else []


def _personal(survey: Survey) -> Iterator[Finding]:
    kinds = [kind for kind in KINDS if survey.counts[kind]]
    if kinds:
        places = tuple(dict.fromkeys(p for kind in kinds for p in survey.trouble[kind]))
        told = ", ".join(f"{kind} {survey.counts[kind]}" for kind in kinds)
        yield Finding(
            "personal_data", "warning", survey.counts["personal_data"],
            text("{told}: a model may learn them by heart; replace them",
                 told=told),
            places[:SHOWN], "--fix --redact",
        )  # fmt: skip


def _encoding(survey: Survey) -> Iterator[Finding]:
    if survey.counts["encoding"]:
        yield Finding(
            "encoding", "warning", survey.counts["encoding"],
            text("letters that only a wrong decoding makes, such as Ã¶ for ö"),
            tuple(survey.trouble["encoding"]), "--fix",
        )  # fmt: skip


def _columns(survey: Survey) -> Iterator[Finding]:
    if survey.left:
        yield Finding(
            "unused_columns", "info", survey.counts["unused_columns"],
            text("not learned: {names}; a column that matters needs a role "
                 "(--column ROLE=NAME)", names=listed(list(survey.left))),
        )  # fmt: skip


def _unanswered(survey: Survey) -> Iterator[Finding]:
    if survey.counts["unanswered"]:
        yield Finding(
            "unanswered", "info", survey.counts["unanswered"],
            text("turns behind the last answer are left off: nobody answers them"),
            tuple(survey.trouble["unanswered"]),
        )  # fmt: skip


def _supervision(survey: Survey, masked: Sequence[str]) -> Iterator[Finding]:
    count = survey.counts["no_supervision"] + len(masked)
    if count:
        everything = len(masked) == survey.usable
        yield Finding(
            "no_supervision", "error" if everything else "warning", count,
            text("nothing in these rows would be learned: they need an answer at their end"),
            (*survey.trouble.get("no_supervision", ()), *masked)[:SHOWN], "--fix",
        )  # fmt: skip


def _classes(survey: Survey) -> Iterator[Finding]:
    if not survey.labels:
        return
    if len(survey.labels) == 1:
        yield Finding(
            "one_class", "error", survey.usable,
            text("every row is {label!r}: there is nothing to tell apart; add rows of another "
                 "class", label=next(iter(survey.labels))),
        )  # fmt: skip
        return
    forms, typos = same_but_form(survey.labels), likely_typos(survey.labels)
    if forms:
        yield Finding(
            "label_form", "warning", sum(survey.labels[name] for name in forms),
            text("the same class but for its form: {told}", told=_arrows(forms)),
            _firsts(survey, forms), "--fix",
        )  # fmt: skip
    if typos:
        renames = [f"--rename-label {shlex.quote(f'{rare}={name}')}"
                   for rare, name in list(typos.items())[:SHOWN]]  # fmt: skip
        yield Finding(
            "label_typo", "warning", sum(survey.labels[rare] for rare in typos),
            text("perhaps the same class: {told}; if so, rename it", told=_arrows(typos)),
            _firsts(survey, typos), " ".join(["--fix", *renames]),
        )  # fmt: skip
    doubtful = {*forms, *typos}
    small = [n for n, count in survey.labels.items() if count < A_CLASS and n not in doubtful]
    if small:
        yield Finding(
            "small_classes", "warning", sum(survey.labels[name] for name in small),
            text("classes with fewer than {least} rows: {names}", least=A_CLASS,
                 names=", ".join(small[:SHOWN])),
            _firsts(survey, small),
        )  # fmt: skip


def _firsts(survey: Survey, names: Iterable[str]) -> tuple[str, ...]:
    """Where each of some classes stands first."""
    return tuple(survey.first_of[name] for name in names)[:SHOWN]


def _arrows(names: Mapping[str, str]) -> str:
    return ", ".join(f"{one!r} → {name!r}" for one, name in list(names.items())[:SHOWN])


def _length(tokens: Tokens | None) -> Iterator[Finding]:
    if tokens and tokens.too_long:
        share = tokens.too_long / tokens.rows
        yield Finding(
            "truncated", "error" if share > 0.01 else "warning", tokens.too_long,
            text("{share:.1%} of the rows are longer than the base's {limit} tokens: shorten or "
                 "drop them", share=share, limit=tokens.limit or 0),
            tokens.where, "--fix",
        )  # fmt: skip
