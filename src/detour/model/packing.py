"""From a batch to the hidden states of its supervised tokens, without computing on padding.

Rows of a batch lie one after another in a single line; every linear layer sees real tokens only,
and attention is taken sequence by sequence. The line's boundaries travel in the arguments that
transformers has for it (`cu_seq_lens_q` and its like), so FlashAttention reads them too. Models
that cannot be read so are found out by a trial, and stay padded. Knows batches and transformers'
causal models; knows neither adapters nor optimisers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from detour.decoding.attention import PACKED, attending
from detour.errors import BaseError
from detour.language.catalogue import text
from detour.model.attention import attend, learning_attention, recomputes, torchs_is_slow
from detour.model.loss import IGNORED, hidden_states
from detour.model.prefix import Prefix
from detour.model.recompute import can_recompute, recomputing
from detour.model.rows import Batch

_CLOSE = {torch.float32: 1e-4, torch.float64: 1e-6}
_CLOSE_HALF = 3e-2  # of the largest value, in 16-bit types
LINE = 1024  # tokens that are looked at together before a training


@dataclass(frozen=True)
class Supervised:
    """What a loss needs of a batch: its supervised tokens, row after row.

    Attributes:
        hidden: the last hidden states, (tokens, width).
        targets: what should follow, (tokens).
        row: which row of the batch each belongs to, (tokens).
    """

    hidden: Float[Tensor, "tokens width"]
    targets: Int[Tensor, " tokens"]
    row: Int[Tensor, " tokens"]


class Forward:
    """The forward pass of learning, for one frozen model.

    Make it while nothing acts on the model: a trial of five tokens says whether it can be packed.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self.packs = _can_pack(model)
        self.prefix: Prefix | None = None
        """What is kept of the layers below the lowest adapted one."""
        self.recomputes = False
        """Whether layers run once more in the backward instead of keeping what it needs."""
        self._window = _window(model)

    def remembering(
        self, adapted: Iterable[str], rows: Sequence[Int[Tensor, " tokens"]], limit: int
    ) -> Forward:
        """The same, keeping what frozen first layers say of these rows, on the model's device.

        `adapted` are the modules that something acts on. Itself where nothing lies below them, and
        where it would take more than `limit` bytes. Make it, too, while the slots are empty; it
        holds for one training.
        """
        unique = {row.numpy().tobytes(): row for row in rows if len(row) <= self._window}
        width = self._model.config.get_text_config().hidden_size
        size = sum(map(len, unique.values())) * width * self._model.dtype.itemsize
        prefix = Prefix.below(self._model, adapted) if self.packs and size <= limit else None
        if prefix is None or not _can_pass_by(self._model, prefix):
            return self
        made = copy(self)
        made.prefix = prefix
        for line in _lines(list(unique.values()), LINE):
            prefix.keep(
                [row.to(self._model.device) for row in line], partial(packed_states, self._model)
            )
        return made

    def packs_rows_of(self, longest: int) -> bool:
        """Whether rows of at most so many tokens lie in one line."""
        return self.packs and longest <= self._window

    def recomputing(self) -> Forward:
        """The same with layers that run once more in the backward.

        Raises:
            BaseError: the layers do not lie in one list.
        """
        if not can_recompute(self._model):
            raise BaseError(
                text("the layers of this model do not lie in one list, so they cannot be computed "
                     "again in the backward"),
                hint=text("leave checkpointing away, and take a smaller micro_batch_size"),
            )  # fmt: skip
        made = copy(self)
        made.recomputes = True
        return made

    def __call__(self, batch: Batch) -> Supervised:
        """Gradients flow from `hidden` into whatever the model's slots hold."""
        kept = batch.targets != IGNORED
        row = kept.nonzero()[:, 0]
        lengths: list[int] = batch.mask.sum(-1).tolist()
        if self._fits(lengths):
            there = batch.mask.bool()
            ids = batch.ids[there]
            with self.prefix.around(ids.split(lengths)) if self.prefix else nullcontext():
                line = packed_states(self._model, ids, lengths, recomputes=self.recomputes)
            return Supervised(line[kept[there]], batch.targets[kept], row)
        around = partial(learning_attention, self._model)
        with recomputing(self._model, around) if self.recomputes else nullcontext():
            hidden = hidden_states(self._model, batch.ids, batch.mask)  # (rows, tokens, width)
        return Supervised(hidden[kept], batch.targets[kept], row)

    def row_index(self, batch: Batch) -> tuple[Int[Tensor, "..."], int | None]:
        """Which row of the batch each position of its forward belongs to, as slots want it."""
        rows = torch.arange(len(batch.ids), device=batch.ids.device)
        lengths = batch.mask.sum(-1)
        if self._fits(lengths.tolist()):
            return rows.repeat_interleave(lengths)[None], None
        return rows, batch.ids.shape[1]

    def _fits(self, lengths: Sequence[int]) -> bool:
        """Rows of one length have no padding; windows shorter than a row are left to the model."""
        wanted = min(lengths) < max(lengths) or self.prefix is not None
        within = max(lengths) <= self._window
        return self.packs and wanted and within and not recomputes(self._model)


def _lines(rows: Sequence[Tensor], most: int) -> Iterator[list[Tensor]]:
    """The rows, in their order, as many together as have so many tokens."""
    line: list[Tensor] = []
    for row in rows:
        if line and sum(map(len, line)) + len(row) > most:
            yield line
            line = []
        line.append(row)
    if line:
        yield line


def packed_states(
    model: PreTrainedModel,
    ids: Int[Tensor, " tokens"],
    lengths: Sequence[int],
    attention: Callable[..., tuple[Tensor, None]] | None = None,
    recomputes: bool = False,
) -> Float[Tensor, "tokens width"]:
    """The last hidden states of sequences that lie one after another.

    `lengths` are those of the sequences, in tokens; none of them sees another. `attention` stands
    in for `attend_packed`. With `recomputes` layers run once more in the backward.
    """
    ends = torch.tensor([0, *lengths], device=ids.device).cumsum(0, dtype=torch.int32)
    positions = torch.cat([torch.arange(length, device=ids.device) for length in lengths])
    longest = max(lengths)
    one = attend if torchs_is_slow(model) else sdpa_attention_forward
    parted = partial(attention or attend_packed, one)
    around = partial(attending, model, PACKED, parted, masks=_no_mask)
    with around(), recomputing(model, around) if recomputes else nullcontext():
        output = model.base_model(
            input_ids=ids[None], attention_mask=torch.ones_like(ids)[None],
            position_ids=positions[None], use_cache=False, cu_seq_lens_q=ends,
            cu_seq_lens_k=ends, max_length_q=longest, max_length_k=longest,
        )  # fmt: skip
    return output.last_hidden_state[0]


def _no_mask(*_: Any, **__: Any) -> None:  # noqa: ANN401  (as transformers calls it)
    """Sequences of a line are parted by attention itself."""


def attend_packed(
    one: Callable[..., tuple[Tensor, None]],
    module: nn.Module,
    query: Float[Tensor, "1 heads tokens width"],
    key: Float[Tensor, "1 groups tokens width"],
    value: Float[Tensor, "1 groups tokens value_width"],
    attention_mask: Tensor | None,
    *positional: Any,  # noqa: ANN401  (what a model hands to whatever attention was chosen)
    cu_seq_lens_q: Int[Tensor, " sequences_and_1"],
    **more: Any,  # noqa: ANN401
) -> tuple[Float[Tensor, "1 tokens heads value_width"], None]:
    """Attention of every sequence by `one`, side by side again.

    Raises:
        TypeError: the model did not hand the boundaries on.
    """
    for name in ("cu_seq_lens_k", "max_length_q", "max_length_k"):
        more.pop(name, None)
    lengths: list[int] = cu_seq_lens_q.diff().tolist()
    found = [
        one(module, q, k, v, attention_mask, *positional, **more)[0]
        for q, k, v in zip(
            query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True
        )
    ]
    return torch.cat(found, dim=1), None


def _window(model: PreTrainedModel) -> int:
    """The shortest stretch that any of its layers attends over, where the config states one."""
    config = model.config.get_text_config()
    stated = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    windows = [window for window in stated if isinstance(window, int) and window > 0]
    return min(windows, default=2**62)


@torch.no_grad()
def _can_pass_by(model: PreTrainedModel, prefix: Prefix) -> bool:
    """Whether the model says the same with its first layers passed by.

    It does not where later layers look back at what earlier ones computed.
    """
    ids = torch.tensor([0, 1, 0, 1, 1], device=model.device)
    trial = Prefix(prefix.layers, prefix.place)
    if not trial.is_plain(lambda: packed_states(model, ids, [3, 2])):
        return False
    expected = packed_states(model, ids, [3, 2])
    trial.keep(ids.split([3, 2]), partial(packed_states, model))
    with trial.around(ids.split([3, 2])):
        found = packed_states(model, ids, [3, 2])
    return torch.equal(expected, found)


@torch.no_grad()
def _can_pack(model: PreTrainedModel) -> bool:
    """Whether two short sequences in a line give what they give side by side.

    Every layer must attend by the function that parts them: a state-space layer would carry what it
    has seen of one sequence into the next.
    """
    config = model.config.get_text_config()
    ids = torch.tensor([[0, 1, 0], [1, 1, 0]], device=model.device)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]], device=model.device)
    there = mask.bool()
    calls = 0

    def counted(*given: Any, **more: Any) -> tuple[Tensor, None]:  # noqa: ANN401
        nonlocal calls
        calls += 1
        return attend_packed(*given, **more)

    try:
        line = packed_states(model, ids[there], [3, 2], counted).float()
    except (TypeError, ValueError):  # it takes no boundaries, or heeds none
        return False
    by_library = str(getattr(config, "_attn_implementation", "")).startswith("flash")
    if calls != config.num_hidden_layers and not by_library:
        return False
    expected = hidden_states(model, ids, mask)[there].float()
    error = float((line - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    return error <= _CLOSE.get(model.dtype, _CLOSE_HALF)
