"""What a look at data found, how bad it is, and the verdict that follows.

Knows counts and names of findings; reads nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from detour.data.records import Kind
from detour.errors import DataError
from detour.language.catalogue import Text, joined, text

Severity: TypeAlias = Literal["error", "warning", "info"]
Verdict: TypeAlias = Literal["ready", "dirty", "too_few", "unusable"]

FEWEST: dict[Kind, int] = {"chat": 50, "text": 20, "classification": 50, "regression": 50}
A_CLASS = 10  # rows
BLOCKING: dict[str, Text] = {
    "leakage": text("validation and test rows whose questions nothing was trained on"),
    "truncated": text("rows that fit into the base's context, but for 1 % of them at most"),
}


@dataclass(frozen=True)
class Finding:
    """One kind of trouble, in how many rows, and what to do about it."""

    code: str
    severity: Severity
    rows: int
    advice: str
    where: tuple[str, ...] = ()
    """The first few places."""
    options: str = ""
    """Of `detour check`: what mends it."""

    @property
    def told(self) -> str:
        """The advice, with the options."""
        if not self.options:
            return self.advice
        return text("{advice} ({options})", advice=self.advice, options=self.options)

    def to_json(self) -> dict[str, object]:
        """As `detour check --json` prints it."""
        return {
            "code": self.code,
            "severity": self.severity,
            "rows": self.rows,
            "advice": str(self.told),
            "where": list(self.where),
        }


def is_blocking(finding: Finding) -> bool:
    """Whether nothing is trained because of it."""
    return finding.severity == "error" and finding.code in BLOCKING


def check_trainable(findings: Sequence[Finding], mend: str = "detour check DATA --fix OUT") -> None:
    """Nothing, if the data may be trained on; `mend` is the command that mends them.

    Raises:
        DataError: rows of another part stand in train too, or more than 1 % of the rows are longer
            than the context: what would be measured, or learned, is not what stands there.
    """
    for finding in findings:
        if is_blocking(finding):
            raise DataError(
                text("the data are not trained on: {code} ({rows})", code=finding.code,
                     rows=finding.rows),
                expected=BLOCKING[finding.code],
                found=joined("; ", [finding.advice, ", ".join(finding.where)]),
                hint=mend,
            )  # fmt: skip


def verdict_of(findings: Sequence[Finding], usable: int, kind: Kind | None) -> Verdict:
    """Nothing to learn from at all; too little of it; something to clean; or ready."""
    fatal = {"one_class", "no_supervision"}
    if kind is None or not usable:
        return "unusable"
    if any(f.code in fatal and f.severity == "error" for f in findings):
        return "unusable"
    if any(finding.code == "too_few" for finding in findings):
        return "too_few"
    dirty = any(finding.severity != "info" for finding in findings)
    return "dirty" if dirty else "ready"


def advice_for(verdict: Verdict, kind: Kind | None, mend: str, reread: str = "") -> Text:
    """What to do next, also where that is not to train."""
    if verdict == "ready":
        return text("train on it")
    if reread:
        return text("read it in its own encoding first: {command}", command=reread)
    if verdict == "dirty" and not mend:
        return text("see the advice beside each finding first")
    if verdict == "dirty":
        return text("clean it first: {command}; or the advice beside each finding", command=mend)
    if verdict == "unusable":
        return text("nothing can be trained on this; see the findings")
    if kind == "chat":
        return text(
            "too little to train on: put the rows into the prompt as examples (few-shot); "
            "change a single fact with detour teach; describe the task to detour generate"
        )
    if kind == "text":
        return text("too little to train on: put the text into the prompt, or search in it")
    return text("too little to train on: put the rows into the prompt as examples (few-shot)")
