"""A base with a chain in its slots, as the lm-eval harness asks a model: likelihoods and texts.

Text becomes ids, and ids are cut to the context, as the harness does it with models of
transformers, so that figures compare. Knows bases, chains and the harness's model class; knows no
benchmark. Imports lm_eval at once: import this module only where that is installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jinja2.exceptions import TemplateError
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from detour.decoding.request import Request, Sampling
from detour.errors import BaseError, RequestError
from detour.language.catalogue import text
from detour.model.base import AnyChain, Base
from detour.model.loss import hidden_states
from detour.model.text import StopText, cut
from detour.slots.chained import contents_for_chain

ROWS = 16  # in a batch
NEW_TOKENS = 256  # where a benchmark does not say; the harness's own number
_GREEDY = {"until", "max_gen_toks", "do_sample", "temperature"}

Pair = tuple[tuple[str, str] | None, list[int], list[int]]
"""The two texts (None: a piece of a longer one), the context's ids, the continuation's ids."""


class HarnessModel(TemplateLM):
    """What the harness measures: `base`, with `chain` acting on every row.

    Raises:
        BaseError: no tokenizer, or one without a token to begin with.
        WrongBase, SlotError: a chain that does not belong on this base.
    """

    def __init__(self, base: Base, chain: AnyChain = None, batch_size: int = ROWS) -> None:
        super().__init__()
        if base.tokenizer is None:
            raise BaseError(
                text("{name} has no tokenizer, which {purpose!r} needs",
                     name=base.name, purpose="evaluate"),
                expected=text("a tokenizer beside the model"),
            )  # fmt: skip
        self.base = base
        self.tokenizer: PreTrainedTokenizerBase = base.tokenizer
        self.batch_size = batch_size
        bound = base.bind(chain)
        self._chain = bound if bound.terms else None
        self._head = base.head  # verified on the bare model, before the slots are filled
        self._prefix = _first_token(base.tokenizer)

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        end = self.tokenizer.eos_token_id
        return end if isinstance(end, int) else self._prefix

    @property
    def prefix_token_id(self) -> int:
        """What an empty context is replaced by."""
        return self._prefix

    @property
    def max_length(self) -> int:
        """Tokens of the context."""
        return self.base.longest

    @property
    def tokenizer_name(self) -> str:
        """Which base's; the harness keys its caches by it."""
        return self.base.fingerprint.short

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as text.

        Where the template drops or refuses a system turn, its text heads the first turn: a
        description never gets lost.
        """
        first = chat_history[0]
        if first["role"] != "system" or len(chat_history) == 1:
            return self._rendered(chat_history, add_generation_prompt)
        try:
            told = self._rendered(chat_history, add_generation_prompt)
        except TemplateError:
            told = ""
        if first["content"].strip() in told:
            return told
        second = chat_history[1]
        headed = {**second, "content": f"{first['content']}\n\n{second['content']}"}
        return self._rendered([headed, *chat_history[2:]], add_generation_prompt)

    def _rendered(self, messages: list[dict[str, str]], answering: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=answering,
                continue_final_message=not answering,
            )
        )

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: object
    ) -> list[int]:
        """Ids, with the first token only once where the text brings it along."""
        first = str(self.tokenizer.decode([self._prefix]))
        if add_special_tokens is None and string.startswith(first):
            add_special_tokens = False
        if add_special_tokens is None:
            return list(self.tokenizer.encode(string))
        return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens))

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """Nats of every continuation after its context, and whether greedy decoding says it."""
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[float]:
        """Nats of whole texts; longer ones than the context in windows that do not overlap."""
        windows: list[Pair] = []
        owners: list[int] = []
        for place, request in enumerate(requests):
            ids = self.tok_encode(request.args[0])
            for window in get_rolling_token_windows(ids, self._prefix, self.max_length, 1):
                context, continuation = make_disjoint_window(window)
                windows.append((None, context, continuation))
                owners.append(place)
        totals = [0.0] * len(requests)
        for place, (nats, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[place] += nats
        return totals

    @torch.no_grad()
    def _loglikelihood_tokens(
        self, requests: Sequence[Pair], **_: object
    ) -> list[tuple[float, bool]]:
        """What several continuations share (all but their last token) runs once."""
        places: dict[tuple[int, ...], list[int]] = {}
        for place, pair in enumerate(requests):
            context, continuation = pair[1], pair[2]
            self._check_continuation(continuation)
            ids = (*context, *continuation)[-(self.max_length + 1) :][:-1]  # cut from the left
            places.setdefault(ids, []).append(place)
        longest_first = sorted(places, key=len, reverse=True)
        found: dict[int, tuple[float, bool]] = {}
        contents = contents_for_chain(self._chain, torch.float32, self.base.device)
        with self.base.hold(contents):
            for start in range(0, len(longest_first), self.batch_size):
                rows = longest_first[start : start + self.batch_size]
                for ids, states in zip(rows, self._states(rows), strict=True):
                    wanted = {place: requests[place][2] for place in places[ids]}
                    found.update(self._told(states[: len(ids)], wanted))
        return [found[place] for place in range(len(requests))]

    def _states(self, rows: Sequence[tuple[int, ...]]) -> Tensor:
        """(rows, tokens, width), padded on the right: what is causal needs no mask for that."""
        longest = len(rows[0])
        ids = [[*row, *[self.base.pad_id] * (longest - len(row))] for row in rows]
        return hidden_states(self.base.model, torch.tensor(ids, device=self.base.device))

    def _told(
        self, states: Tensor, wanted: Mapping[int, list[int]]
    ) -> dict[int, tuple[float, bool]]:
        """Of one row (tokens, width): the head reads only what some continuation needs of it."""
        longest = max(len(ids) for ids in wanted.values())
        logits = self._head(states[-longest:]).float()  # bfloat16 would round nats to two digits
        nats, best = logits.log_softmax(-1), logits.argmax(-1)  # (longest, vocab), (longest)
        told: dict[int, tuple[float, bool]] = {}
        for place, continuation in wanted.items():
            ids = torch.tensor(continuation, device=nats.device)
            taken = nats[-len(ids) :].gather(1, ids[:, None])
            told[place] = float(taken.sum()), bool((best[-len(ids) :] == ids).all())
        return told

    def _check_continuation(self, ids: Sequence[int]) -> None:
        if not 1 <= len(ids) <= self.max_length:
            raise RequestError(
                text("a continuation does not fit the context"),
                expected=text("1 to {longest} tokens", longest=self.max_length),
                found=str(len(ids)),
            )

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """What greedy decoding says after each context, up to the first stop string."""
        asked: list[Request] = []
        stops: list[list[str]] = []
        for place, request in enumerate(requests):
            context, given = request.arguments
            until, new = self.limits(given)
            prompt = self.tok_encode(context)[-(self.max_length - new) :]  # cut from the left
            sampling = Sampling(max_new_tokens=new, eos_ids=self.base.eos_ids)
            check = StopText(self._spelled, until) if until else None
            asked.append(Request(str(place), tuple(prompt), self._chain, sampling, check))
            stops.append(until)
        made = self.base.engine.generate(asked, self.batch_size)
        return [cut(self.base.decode(m.ids), s) for m, s in zip(made, stops, strict=True)]

    def limits(self, given: Mapping[str, Any]) -> tuple[list[str], int]:
        """Stop strings and the most new tokens, as a benchmark's generation_kwargs say.

        Raises:
            RequestError: sampling, options that greedy decoding has no use for, or more new tokens
                than the context has room for.
        """
        told: dict[str, Any] = dict(normalize_gen_kwargs(dict(given), NEW_TOKENS))
        until = [stop for stop in told["until"] if stop]
        new = int(told["max_gen_toks"])
        strange = [key for key in told if key not in _GREEDY]
        if strange or told["do_sample"] or new < 1:
            raise RequestError(
                text("this benchmark does not decode greedily"),
                expected=", ".join(sorted(_GREEDY)),
                found=str(dict(given))[:200],
            )
        if new >= self.max_length:
            raise RequestError(
                text("the benchmark's answers are longer than the base's context"),
                expected=text("at most {longest} tokens", longest=self.max_length - 1),
                found=str(new),
            )
        return until, new

    def _spelled(self, ids: Sequence[int]) -> str:
        """With special tokens: some benchmarks stop at one that is not this base's end token."""
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def _first_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """What a text without a context follows: the first token, or else the end token."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if isinstance(token, int):
            return token
    raise BaseError(
        text("this base's tokenizer has neither a first nor an end token"),
        expected=text("bos_token or eos_token in its config"),
    )
