"""What an adapter did to text that it has nothing to do with: perplexity and KL, before and after.

Knows bases and chains; knows no training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import torch
import yaml
from torch.nn.functional import cross_entropy, kl_div

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.errors import BaseError, DataError
from detour.language.catalogue import text
from detour.model.base import Base

STRANGE = 1000.0  # perplexity of neutral text from which on a base does not know it
MUCH = 2.0  # times the base's perplexity that are harm


@dataclass(frozen=True)
class Retention:
    """A base and the same base under a chain, on the same neutral tokens."""

    perplexity_before: float
    perplexity_after: float
    kl_mean: float
    """Mean over tokens of KL(base || adapted), in nats."""
    tokens: int

    @property
    def remark(self) -> str:
        """What the figures mean where they need a word; else nothing."""
        if self.perplexity_before > STRANGE:
            return text(
                "the base itself does not know such text (perplexity {before:.0f}): of harm the KL "
                "tells more", before=self.perplexity_before,
            )  # fmt: skip
        if self.perplexity_after > MUCH * self.perplexity_before:
            return text(
                "that is harm to what nothing was trained on: take fewer steps, a lower "
                "--learning-rate or --rank, or add rows of other kinds (docs/continual.md)"
            )
        return ""

    def to_json(self) -> dict[str, float | int]:
        """Rounded to what two runs of one machine agree on."""
        return {
            "perplexity_before": round(self.perplexity_before, 4),
            "perplexity_after": round(self.perplexity_after, 4),
            "kl_mean": round(self.kl_mean, 6),
            "tokens": self.tokens,
        }


def neutral_texts() -> list[str]:
    """The packaged sentences, English and German."""
    told = files("detour.measure").joinpath("neutral.yaml").read_text("utf-8")
    return [line for lines in yaml.safe_load(told).values() for line in lines]


def retention(
    base: Base,
    chain: Chain | Adapter | None,
    texts: Sequence[str] | None = None,
    *,
    changed: Base | None = None,
) -> Retention:
    """Perplexity of the texts without and with the chain, and how far its distributions moved.

    Each text is read from its first token on, as the tokenizer begins it, without a chat template.
    `changed` is the base after a training of its own weights; the chain then acts on it.

    Raises:
        BaseError: the base has no tokenizer. DataError: no text of two tokens or more.
    """
    moves = token_moves(base, chain, neutral_texts() if texts is None else texts, changed=changed)
    count = sum(len(one.nats) for one in moves)
    if not count:
        raise DataError(
            text("there is no neutral text to measure on"),
            expected=text("texts of at least two tokens"),
        )
    before, after, divergence = (
        sum(sum(getattr(one, what)) for one in moves) / count
        for what in ("nats_before", "nats", "divergences")
    )
    return Retention(math.exp(before), math.exp(after), max(0.0, divergence), count)


@dataclass(frozen=True)
class TokenMoves:
    """What happened to every token of one text after its first.

    Attributes:
        nats_before: the base's loss.
        nats: that of the adapted model.
        divergences: KL(base || adapted), in nats.
        flips: 1 where the most probable token is another one, else 0.
    """

    nats_before: tuple[float, ...]
    nats: tuple[float, ...]
    divergences: tuple[float, ...]
    flips: tuple[int, ...]


def token_moves(
    base: Base,
    chain: Chain | Adapter | None,
    texts: Sequence[str],
    *,
    changed: Base | None = None,
    before: str = "",
) -> list[TokenMoves]:
    """Token by token how a chain, or a text that stands `before`, moves what comes next in texts.

    Texts of fewer than two tokens are left out; `changed` is as in `retention`.

    Raises:
        BaseError: the base has no tokenizer.
    """
    if base.tokenizer is None:
        raise BaseError(
            text("{base} has no tokenizer", base=base.name),
            hint=text("retention is measured on text"),
        )
    found: list[TokenMoves] = []
    extra = base.tokenizer.encode(f"{before}\n", add_special_tokens=False) if before else []
    for told in texts:
        ids = base.tokenizer.encode(told)[: max(0, base.longest - len(extra))]
        if len(ids) < 2:
            continue
        begins = 1 if ids[0] == base.tokenizer.bos_token_id else 0  # stands before everything
        targets = torch.tensor(ids[1:], device=base.device)
        bare = base.logits(torch.tensor([ids]))[0, :-1].float()  # (tokens - 1, vocab)
        whole = torch.tensor([ids[:begins] + extra + ids[begins:]])
        adapted = (changed or base).logits(whole, chain)[0, len(extra) : -1].float()
        divergence = kl_div(
            adapted.log_softmax(-1), bare.log_softmax(-1), reduction="none", log_target=True
        ).sum(-1)
        found.append(
            TokenMoves(
                tuple(cross_entropy(bare, targets, reduction="none").tolist()),
                tuple(cross_entropy(adapted, targets, reduction="none").tolist()),
                tuple(divergence.tolist()),
                tuple((bare.argmax(-1) != adapted.argmax(-1)).int().tolist()),
            )
        )
    return found
