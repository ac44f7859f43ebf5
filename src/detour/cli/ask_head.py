"""`detour ask` with an adapter that has a head: the class or the number of each text.

Knows headed bases and output; called by `detour ask` when the chain is such an adapter.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from detour.cli.output import one_line, print_json, print_table, say
from detour.errors import ConfigError
from detour.language.catalogue import text

if TYPE_CHECKING:
    from detour.adapter.adapter import Adapter
    from detour.adapter.chain import Chain
    from detour.model.headed import HeadedBase

SHOWN = 5  # classes, the likeliest first


def has_head(chain: Chain) -> bool:
    """Whether an adapter of the chain tells classes or numbers instead of words."""
    return any(term.adapter.card.head is not None for term in chain.terms)


def sole_head(chain: Chain) -> Adapter:
    """The only adapter of the chain. Raises ConfigError: there are others, or it has no head."""
    if len(chain.terms) != 1:
        raise ConfigError(
            text("texts get a class or a number from one adapter that has a head"),
            expected="--chain ./NAME",
            found=chain.text or text("none"),
        )
    return chain.terms[0].adapter


def check_options(**given: bool) -> None:
    """Refuse what means nothing to a head. Raises ConfigError."""
    for name, is_given in given.items():
        if is_given:
            raise ConfigError(
                text("--{name} is not for an adapter with a head, which says no words", name=name),
                hint=text("leave it out"),
            )


def tell(base: HeadedBase, texts: Sequence[str], chain: Chain, as_json: bool) -> None:
    """Classes with their probabilities, or numbers, as a table or one JSON object.

    Raises:
        WrongBase, SlotError: a chain that does not belong on this base.
    """
    began = time.perf_counter()
    if base.labels:
        found = [
            {"answer": guess.label, "probability": guess.probability,
             "probabilities": dict(guess.probabilities)}
            for guess in base.classify(texts, chain)
        ]  # fmt: skip
    else:
        found = [{"answer": value} for value in base.estimate(texts, chain)]
    seconds = time.perf_counter() - began
    if as_json:
        turns = [{"question": one, **told} for one, told in zip(texts, found, strict=True)]
        more = {"turns": turns} if len(turns) > 1 else {}
        told = {"base": base.name, "chain": chain.text, "seconds": seconds, **more}
        print_json({**found[-1], **told})
        return
    for one, told in zip(texts, found, strict=True):
        if len(texts) > 1:
            say(f"> {one_line(one)}")
        _say(told)


def _say(told: dict[str, Any]) -> None:
    if "probabilities" not in told:
        say(f"{told['answer']:.4g}")
        return
    likeliest = sorted(told["probabilities"].items(), key=lambda item: -item[1])[:SHOWN]
    print_table(("class", "probability"), [(name, f"{share:.3f}") for name, share in likeliest])
