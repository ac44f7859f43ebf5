"""How probable whole answers are, and where in the layers an answer turns.

Knows models and text; draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detour.adapter.chain import Chain
from detour.errors import BaseError
from detour.language.catalogue import text
from detour.measure.statistics import Figure, mean_probability
from detour.model.base import AnyChain, Base
from detour.model.chat import supervised
from detour.model.examples import Example, pair
from detour.model.likelihood import log_likelihoods
from detour.model.rows import Encoded
from detour.slots.chained import contents_for_chain

_FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")


@dataclass(frozen=True)
class Trace:
    """Probability of the old and of the new answer's turning token after each layer.

    Layer 0 is the embedding. `question` and `prefix` tell at which place it was read.
    """

    question: str
    prefix: str
    old_token: str
    new_token: str
    base_old: tuple[float, ...]
    base_new: tuple[float, ...]
    steered_old: tuple[float, ...]
    steered_new: tuple[float, ...]


def answer_log_probabilities(
    base: Base, pairs: Sequence[tuple[str, str]], chain: AnyChain = None, batch_size: int = 64
) -> list[float]:
    """Sum of log-probabilities (nats) of each whole answer, its end token included.

    Args:
        base: the model.
        pairs: (question, answer).
        chain: what acts in the slots.
        batch_size: rows at a time.
    """
    rows = [_encoded(base, pair(question, answer)) for question, answer in pairs]
    return log_likelihoods(base, rows, chain, batch_size)


def nats_per_token(base: Base, question: str, answer: str) -> float:
    """The whole answer's log-probability, its end token included, over its tokens."""
    assert base.tokenizer is not None
    (told,) = answer_log_probabilities(base, [(question, answer)])
    return told / (len(base.tokenizer.encode(answer, add_special_tokens=False)) + 1)


def _encoded(base: Base, example: Example) -> Encoded:
    assert base.tokenizer is not None
    return Encoded(*supervised(base.tokenizer, example.messages))


def answer_probability(
    base: Base, questions: Sequence[str], answer: str, chain: AnyChain = None
) -> Figure:
    """The mean probability of the whole answer over the questions."""
    told = answer_log_probabilities(base, [(question, answer) for question in questions], chain)
    return mean_probability([float(torch.tensor(value).exp()) for value in told])


def trace(base: Base, question: str, old: str, new: str, chain: Chain) -> Trace:
    """The logit lens (nostalgebraist 2020) at the place where the two answers part.

    Each layer's hidden state goes through the model's own final norm and head.

    Raises:
        BaseError: the model's final norm is not known.
    """
    assert base.tokenizer is not None
    old_ids = _encoded(base, pair(question, old)).ids
    new_ids = _encoded(base, pair(question, new)).ids
    place = next(
        (n for n, (a, b) in enumerate(zip(old_ids, new_ids, strict=False)) if a != b), None
    )
    if place is None:
        raise BaseError(
            text("old and new answer are the same tokens"), hint=text("name another target")
        )
    prompt = len(base.chat(question))
    ids = torch.tensor([new_ids[:place]], device=base.device)
    with base.hold({}):
        bare = _lens(base, ids)
    with base.hold(contents_for_chain(base.bind(chain), torch.float32, base.device)):
        steered = _lens(base, ids)
    before, after = old_ids[place], new_ids[place]
    return Trace(
        question, base.decode(new_ids[prompt:place]), base.decode([before]), base.decode([after]),
        tuple(bare[:, before].tolist()), tuple(bare[:, after].tolist()),
        tuple(steered[:, before].tolist()), tuple(steered[:, after].tolist()),
    )  # fmt: skip


def _lens(base: Base, ids: Tensor) -> Tensor:
    """Next-token probabilities after every layer: (layers + 1, vocab)."""
    norm = final_norm(base)
    with torch.no_grad():
        output = base.model.base_model(input_ids=ids, output_hidden_states=True, use_cache=False)
        layers = [norm(h[:, -1]) for h in output.hidden_states[:-1]]
        layers.append(output.last_hidden_state[:, -1])  # transformers has normed the last one
        return base.head(torch.cat(layers)).float().softmax(-1)


def final_norm(base: Base) -> nn.Module:
    """The norm before the head.

    Raises:
        BaseError: it is under none of the usual names.
    """
    for name in _FINAL_NORMS:
        found = getattr(base.model.base_model, name, None)
        if isinstance(found, nn.Module):
            return found
    raise BaseError(
        text("the final norm of {model} is not known", model=type(base.model).__name__),
        expected=text("one of {names}", names=", ".join(_FINAL_NORMS)),
    )
