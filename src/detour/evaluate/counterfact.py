"""Edits in the form of CounterFact, judged by the names of the papers: ES, PS, NS and S.

Of each edit the file tells a prompt, the object that is true and the new one, paraphrases of the
prompt, and prompts about neighbours of the subject. An object's score behind a prompt is the mean
log-probability of its tokens. Efficacy (ES) is the share of edits whose new object beats the true
one behind the edit's own prompt, PS the same behind paraphrases, NS the share of neighbourhood
prompts behind which the true one still wins; S is their harmonic mean (Meng et al. 2022,
arXiv:2202.05262, section 3.3). Of several prompts an edit counts their mean.

Knows files, bases and chains; changes none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, harmonic_mean
from typing import Any, Final, cast

from transformers import PreTrainedTokenizerBase

from detour.errors import DataError
from detour.evaluate.steer_report import as_clause
from detour.language.catalogue import text
from detour.measure.statistics import Figure, wilson
from detour.model.base import AnyChain, Base
from detour.model.examples import Example, read_text
from detour.model.likelihood import log_likelihoods
from detour.model.rows import Encoded, encode
from detour.training.material import tokenizer_of

SCORES: Final = ("ES", "PS", "NS")
Asked = Callable[[str, str], Encoded]
"""A prompt and an object behind it, as ids; the object's are marked."""


@dataclass(frozen=True)
class Case:
    """One edit."""

    prompt: str
    """With its subject in it."""
    true: str
    new: str
    paraphrases: tuple[str, ...]
    neighbours: tuple[str, ...]
    source: str

    @property
    def statement(self) -> str:
        """The edit as a sentence."""
        return f"{self.prompt} {self.new}."

    def prompts(self) -> dict[str, tuple[str, ...]]:
        """By the score that they count for."""
        return {"ES": (self.prompt,), "PS": self.paraphrases, "NS": self.neighbours}


def read_cases(path: Path, limit: int | None = None) -> list[Case]:
    """The edits of a JSON list, the first `limit` of them.

    Raises:
        DataError: it cannot be read, or an edit lacks something; names the edit and the key.
    """
    try:
        told = json.loads(read_text(path, text("a list of edits")))
    except ValueError as cause:
        raise DataError(
            text("{path} is not JSON", path=path), expected=text("a list of edits"),
            found=str(cause),
        ) from cause  # fmt: skip
    if not isinstance(told, list) or not told:
        raise DataError(
            text("{path} holds no edits", path=path), expected=text("a list of edits"),
            found=type(told).__name__,
        )  # fmt: skip
    rows = cast("list[Any]", told)[:limit]
    return [_case(row, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]


def _case(row: Any, source: str) -> Case:  # noqa: ANN401 - any JSON
    told: Mapping[str, Any] = row if isinstance(row, Mapping) else {}
    edit: Mapping[str, Any] = told.get("requested_rewrite") or {}
    new, true = (_said(edit, key, source) for key in ("target_new", "target_true"))
    prompt, subject = edit.get("prompt"), edit.get("subject")
    if not isinstance(prompt, str) or prompt.count("{}") != 1 or not isinstance(subject, str):
        raise DataError(
            text("{source} is no edit", source=source),
            expected=text('"requested_rewrite" with a "subject", and a "prompt" with one {hole}',
                          hole="{}"),
            found=repr(edit)[:80],
        )  # fmt: skip
    more = {key: told.get(key, ()) for key in ("paraphrase_prompts", "neighborhood_prompts")}
    for key, prompts in more.items():
        if not isinstance(prompts, list | tuple) or not all(isinstance(p, str) for p in prompts):
            raise DataError(
                text("{source} is no edit", source=source),
                expected=text("{key}: a list of texts", key=key), found=repr(prompts)[:80],
            )  # fmt: skip
    paraphrases, neighbours = (tuple(map(str.strip, prompts)) for prompts in more.values())
    return Case(prompt.format(subject), true, new, paraphrases, neighbours, source)


def _said(edit: Mapping[str, Any], key: str, source: str) -> str:
    """An object's text: `{"str": …}`, or the text itself."""
    told: Any = edit.get(key)
    said: Any = cast("Mapping[str, Any]", told).get("str") if isinstance(told, Mapping) else told
    if not isinstance(said, str) or not said.strip():
        raise DataError(
            text("{source} is no edit", source=source),
            expected=text('"{key}": an object such as {example}', key=key,
                          example='{"str": "Rome"}'),
            found=repr(told)[:80],
        )  # fmt: skip
    return said.strip()


def scores(base: Base, cases: Sequence[Case], chain: AnyChain = None) -> dict[str, Figure]:
    """ES, PS, NS and S of a base under a chain, prompts being continued as bare text.

    Raises:
        BaseError: the base has no tokenizer. WrongBase, SlotError: a chain of another base.
    """
    tokenizer = tokenizer_of(base)
    return _judged(base, cases, lambda _: lambda prompt, said: continued(tokenizer, prompt, said),
                   chain)  # fmt: skip


def told_before(base: Base, cases: Sequence[Case]) -> dict[str, Figure]:
    """The same of the base alone, where the edit stands as a sentence before every prompt."""
    tokenizer = tokenizer_of(base)

    def of(case: Case) -> Asked:
        return lambda prompt, said: continued(tokenizer, f"{case.statement} {prompt}", said)

    return _judged(base, cases, of)


def told_by_system(base: Base, cases: Sequence[Case]) -> dict[str, Figure] | None:
    """The same where the edit is the system message of a chat, a prompt its question and an object
    the answer; nothing where the base knows no chat.
    """
    tokenizer = tokenizer_of(base)
    if tokenizer.chat_template is None:
        return None

    def of(case: Case) -> Asked:
        system = f"Imagine that {as_clause(case.statement, case.prompt)}."

        def asked(prompt: str, said: str) -> Encoded:
            turns = (("system", system), ("user", prompt), ("assistant", said))
            told = tuple({"role": role, "content": content} for role, content in turns)
            (row,) = encode(tokenizer, [Example(told, case.source)], base.longest)
            return row

        return asked

    return _judged(base, cases, of)


def continued(tokenizer: PreTrainedTokenizerBase, prompt: str, said: str) -> Encoded:
    """A prompt and an object behind it as bare text; what begins a text in this tokenizer, and
    nothing that ends one.
    """

    def ids_of(told: str) -> list[int]:
        return cast("list[int]", tokenizer(told, add_special_tokens=False)["input_ids"])

    opening = cast("list[int]", tokenizer("")["input_ids"])[:1]
    begin = opening if opening == [tokenizer.bos_token_id] else []
    alone, whole = ids_of(prompt), ids_of(f"{prompt} {said}")
    same = next(
        (n for n, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b),
        min(len(alone), len(whole)),
    )
    ids = [*begin, *whole]
    return Encoded(ids, [place >= len(begin) + same for place in range(len(ids))])


def _judged(
    base: Base,
    cases: Sequence[Case],
    asked_of: Callable[[Case], Asked],
    chain: AnyChain = None,
) -> dict[str, Figure]:
    rows: list[Encoded] = []
    for case in cases:
        asked = asked_of(case)
        prompts = [prompt for own in case.prompts().values() for prompt in own]
        rows += [asked(prompt, said) for prompt in prompts for said in (case.new, case.true)]
    totals = log_likelihoods(base, rows, chain)
    means = iter([total / sum(row.learned[1:]) for total, row in zip(totals, rows, strict=True)])
    found: list[dict[str, float]] = []
    for case in cases:
        won: dict[str, float] = {}
        for name, prompts in case.prompts().items():
            pairs = [(next(means), next(means)) for _ in prompts]  # of the new one, the true one
            if pairs:
                won[name] = fmean(true > new if name == "NS" else new > true for new, true in pairs)
        found.append(won)
    return _figures(found)


def _figures(found: Sequence[Mapping[str, float]]) -> dict[str, Figure]:
    told: dict[str, Figure] = {}
    for name in SCORES:
        values = [one[name] for one in found if name in one]
        if values:
            share = fmean(values)
            told[name] = Figure(share, *wilson(share, len(values)), len(values))
    if len(told) == len(SCORES):
        each = list(told.values())
        told["S"] = Figure(
            harmonic_mean([one.value for one in each]),
            harmonic_mean([one.low for one in each]),  # wider than need be: all three low at once
            harmonic_mean([one.high for one in each]),
            min(one.n for one in each),
        )
    return told
