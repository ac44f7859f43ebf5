"""Prompts in, new token ids out; every row may have its own chain.

One running batch is stepped until its rows have ended; rows that end leave it. `generate` and
`stream` step the same batch, so offline and streamed tokens are the same.

Knows causal models of transformers, slots and requests. Does not know text, tokenizers, bases or
HTTP.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from detour.adapter.chain import Chain
from detour.decoding.attention import one_token_attention, torch_attention
from detour.decoding.cache import RoomyCache
from detour.decoding.request import Generation, Request, check_request
from detour.decoding.sampling import Sampler
from detour.decoding.scheduler import Row, plan
from detour.errors import RequestError
from detour.slots.chained import contents_for_chain, contents_for_rows
from detour.slots.content import Content
from detour.slots.install import SlotSet


class Engine:
    """Generates with one model and its slots.

    Args:
        model: a causal model of transformers.
        slots: its slots; only needed for chains.
        pad_id: what fills the left of shorter prompts; masked, so any id of the vocabulary does.
    """

    def __init__(self, model: PreTrainedModel, slots: SlotSet | None, pad_id: int = 0) -> None:
        self.model = model
        self.slots = slots
        self.pad_id = pad_id
        config = model.config.get_text_config()
        self.vocabulary = vocabulary_of(model)
        self.positions: int | None = getattr(config, "max_position_embeddings", None)

    def check(self, requests: Sequence[Request]) -> None:
        """Refuse what the model cannot run, before anything runs.

        Raises:
            RequestError: an empty or over-long prompt, or ids outside the vocabulary.
        """
        for request in requests:
            check_request(request, self.vocabulary, self.positions)

    def generate(
        self, requests: Sequence[Request], batch_size: int = 64, *, hold: bool = True
    ) -> list[Generation]:
        """Run all requests; results stand in the order of the requests.

        With `hold=False` the slots are left as they are: whoever holds them (a training loop that
        wants to see what its adapter says) decides what acts, on all rows alike.

        Raises:
            RequestError: a request that the model cannot run; then none has run.
            SlotsBusy: somebody else holds the slots.
            SlotError: a chain that does not fit this model.
        """
        if batch_size < 1:
            raise RequestError(
                "batch_size is out of range", expected="at least 1", found=str(batch_size)
            )
        self.check(requests)
        rows = [Row(request) for request in requests]
        with _ready(self.model):
            for indices in plan(requests, batch_size):
                with self._batch([rows[index] for index in indices], hold) as batch:
                    while batch.rows:
                        batch.step()
        return [row.generation() for row in rows]

    def stream(self, request: Request, *, hold: bool = True) -> Generator[int]:
        """The ids of one request as they come; closing the iterator frees the slots.

        Raises:
            RequestError, SlotsBusy, SlotError: as `generate`, on the first step.
        """
        self.check([request])
        row, sent = Row(request), 0
        with _ready(self.model), self._batch([row], hold) as batch:
            try:
                while batch.rows:
                    batch.step()
                    yield from row.ids[sent : row.settled]
                    sent = row.settled
            finally:
                if row.finish is None:
                    row.cancel()

    @contextmanager
    def _batch(self, rows: list[Row], hold: bool) -> Generator[Batch]:
        """The chains of these rows in the slots while their batch runs."""
        if not hold:
            with self._faster():
                yield Batch(self.model, rows, self.pad_id, None, None)
            return
        contents, index = _contents([row.request.chain for row in rows], self.model)
        if self.slots is None:
            if contents:
                raise RequestError("this engine has no slots", expected="requests without chains")
            yield Batch(self.model, rows, self.pad_id, None, None)
            return
        with self.slots.hold(contents), self._faster():
            yield Batch(self.model, rows, self.pad_id, self.slots, index)

    def _faster(self) -> AbstractContextManager[object]:
        return self.slots.faster_products() if self.slots is not None else nullcontext()


class Batch:
    """Rows that run together: their cache, their mask, and the step that gives each one token."""

    def __init__(
        self,
        model: PreTrainedModel,
        rows: list[Row],
        pad_id: int,
        slots: SlotSet | None,
        index: Int[Tensor, " rows"] | None,
    ) -> None:
        self.rows = rows
        self._model = model
        self._slots = slots
        self._index = index
        self._cache = RoomyCache(model.config)
        self._step = 0
        self._accepted = frozenset(inspect.signature(model.forward).parameters)
        names, samplings = zip(
            *((row.request.id, row.request.sampling) for row in rows), strict=True
        )
        self._sampler = Sampler(names, samplings, model.device)
        prompts = [row.request.prompt_ids for row in rows]
        self._next, self._mask = _left_padded(prompts, pad_id, model.device)
        self._positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)  # (rows, tokens)
        self._padded = bool((self._mask == 0).any())
        self._seen = self._find_seen() if self._sampler.penalises else None
        for row in rows:
            row.start()

    def _find_seen(self) -> Tensor:
        shape = (len(self.rows), vocabulary_of(self._model))
        seen = torch.zeros(shape, dtype=torch.bool, device=self._next.device)
        for place, row in enumerate(self.rows):
            seen[place, list(row.request.prompt_ids)] = True
        return seen

    @torch.inference_mode()
    def step(self) -> None:
        """One token for every row; rows that end leave."""
        logits = self._forward()
        tokens = self._sampler.choose(logits, self._step, self._seen)
        self._step += 1
        for row, token in zip(self.rows, tokens.tolist(), strict=True):
            row.push(token)
        self._next = tokens.unsqueeze(1)
        self._positions = self._positions[:, -1:] + 1
        if self._padded:
            ones = self._mask.new_ones(len(self.rows), 1)
            self._mask = torch.cat([self._mask, ones], dim=1)
        if self._seen is not None:
            self._seen.scatter_(1, self._next, True)
        if any(row.finish is not None for row in self.rows):
            self._drop_finished()

    def _forward(self) -> Tensor:
        arguments: dict[str, Any] = {
            "input_ids": self._next,
            "attention_mask": self._mask if self._padded else None,
            "position_ids": self._positions,
            "past_key_values": self._cache,
            "use_cache": True,
            "logits_to_keep": 1,
        }
        known = {key: value for key, value in arguments.items() if key in self._accepted}
        with self._rows_in_slots():
            return self._model(**known).logits[:, -1]

    def _rows_in_slots(self) -> AbstractContextManager[object]:
        if self._slots is None or self._index is None:
            return nullcontext()
        return self._slots.rows(self._index, self._next.shape[1])

    def _drop_finished(self) -> None:
        places = [place for place, row in enumerate(self.rows) if row.finish is None]
        self.rows = [self.rows[place] for place in places]
        if not places:
            return
        kept = torch.tensor(places, device=self._next.device)
        self._cache.batch_select_indices(kept)
        self._sampler.keep(kept)
        self._next, self._positions = self._next[kept], self._positions[kept]
        self._mask = self._mask[kept]
        if self._index is not None and self._slots is not None:
            self._slots.keep(kept)  # laid out anew once, rather than picked in every layer and step
            self._index = torch.arange(len(places), device=kept.device)
        self._seen = None if self._seen is None else self._seen[kept]


def vocabulary_of(model: PreTrainedModel) -> int:
    """How many ids the model can read."""
    return cast(nn.Embedding, model.get_input_embeddings()).num_embeddings


def _left_padded(
    prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[Int[Tensor, "rows tokens"], Int[Tensor, "rows tokens"]]:
    longest = max(len(prompt) for prompt in prompts)
    ids = [[pad_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _contents(
    chains: Sequence[Chain | None], model: PreTrainedModel
) -> tuple[Mapping[str, Content], Int[Tensor, " rows"] | None]:
    """One chain for all rows where they agree, else a bank and which row is whose."""
    first = chains[0]
    if all(chain is first for chain in chains):
        if first is None:
            return {}, None
        return contents_for_chain(first, torch.float32, model.device), None
    return contents_for_rows(chains, torch.float32, model.device), torch.arange(
        len(chains), device=model.device
    )


@contextmanager
def _ready(model: PreTrainedModel) -> Generator[None]:
    """Dropout off, attention made for single tokens, and the head fed with contiguous rows.

    A bf16 head on the strided slice of the last token costs 300 times as much on a CPU.
    """
    head = cast(nn.Module, model.get_output_embeddings())
    hook = head.register_forward_pre_hook(_contiguous)
    training = model.training
    if training:
        model.eval()
    try:
        with one_token_attention(model):
            yield
    finally:
        hook.remove()
        if training:
            model.train()


def at_rest(model: PreTrainedModel) -> None:
    """Take off a copy what decoding had put on the original while it was copied."""
    torch_attention(model)
    head = cast(nn.Module, model.get_output_embeddings())
    hooks = head._forward_pre_hooks  # pyright: ignore[reportPrivateUsage]
    for key in [key for key, hook in hooks.items() if hook is _contiguous]:
        del hooks[key]


def _contiguous(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.contiguous() for value in inputs)
