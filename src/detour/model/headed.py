"""A frozen model with a head for classes or a number: encoders and decoders, with the same slots.

The model is transformers' own `…ForSequenceClassification` of the base's architecture. What the
base's files do not hold (the head, sometimes a pooler) is new: it is trained whole, and every
adapter of such a model brings its own. Knows transformers' classification models, slots and chains;
knows no training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.adapter.fingerprint import Fingerprint
from detour.errors import BaseError, ConfigError, DataError
from detour.language.catalogue import text
from detour.model.belonging import check_belongs
from detour.model.binding import bound
from detour.model.embedder import means_tokens
from detour.model.loading import find, load_headed
from detour.slots.chained import contents_for_chain
from detour.slots.content import Content
from detour.slots.install import SlotSet, install

UNLIMITED = 10**9


Pooling: TypeAlias = Literal["own", "mean"]
"""What the head reads: as the architecture does (its first or last token), or all tokens' mean."""


@dataclass(frozen=True)
class Guess:
    """What a text is taken for."""

    label: str
    probability: float
    probabilities: Mapping[str, float]


class HeadedBase:
    """A base with a head.

    Attributes:
        model: in eval mode, its parameters frozen.
        tokenizer: its tokenizer.
        fingerprint: which weights the base has; the head is not among them.
        labels: names of the classes in the order of the outputs; none for a number.
        slots: an empty slot on every linear layer.
        new: the parameters that the base's files do not hold.
        pooling: what the head reads of a text.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        fingerprint: Fingerprint,
        labels: Sequence[str],
        new: Sequence[str],
        pooling: Pooling = "own",
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.fingerprint = fingerprint
        self.labels = tuple(labels)
        self.new = tuple(new)
        self.pooling: Pooling = pooling
        self.slots: SlotSet = install(model)

    @staticmethod
    def load(
        name: str,
        labels: Sequence[str] = (),
        *,
        dtype: str | None = None,
        device: str | None = None,
        seed: int = 0,
        pooling: Pooling | None = None,
    ) -> HeadedBase:
        """A folder, a Hub id, "starter", or the packaged text encoder by its Hub id.

        Args:
            name: what to load; an encoder or a decoder.
            labels: names of the classes; without any the head gives a number.
            dtype: as `Base.load`.
            device: as `Base.load`.
            seed: of what is new.
            pooling: what the head reads; by default the mean for a text encoder whose folder says
                that its vectors are means of its tokens, else as the architecture does.

        Raises:
            BaseError: it is not there, damaged, without a tokenizer, or of an architecture that
                transformers knows no classification model of.
            ConfigError: fewer than two classes, or one twice; the mean, where a head is more than
                one linear layer.
        """
        if labels and (len(labels) < 2 or len(set(labels)) < len(labels)):
            raise ConfigError(
                text("a head needs at least two classes, each once"), found=", ".join(labels)
            )
        folder = find(name)
        model, tokenizer, fingerprint, new = load_headed(
            name, max(1, len(labels)), dtype, device, seed, folder
        )
        chosen = pooling or ("mean" if means_tokens(folder) else "own")
        base = HeadedBase(model, tokenizer, fingerprint, labels, new, chosen)
        if chosen == "mean" and len({n.rpartition(".")[0] for n in new if "pooler" not in n}) > 1:
            raise ConfigError(
                text("the head of {name} is more than one layer", name=name),
                expected='pooling="own"', found='pooling="mean"',
            )  # fmt: skip
        return base

    @staticmethod
    def for_adapter(
        adapter: Adapter, name: str, *, dtype: str | None = None, device: str | None = None
    ) -> HeadedBase:
        """The base `name` with the classes that the adapter's card names.

        Raises:
            ConfigError: the adapter has no head.
            BaseError: as `load`.
        """
        told = adapter.card.head
        if told is None:
            raise ConfigError(
                text("{name} has no head for classes or numbers", name=adapter.name),
                expected=text("an adapter that was trained on rows with a label or a value"),
            )
        labels = [str(label) for label in told.get("labels", ())]
        pooling: Pooling = "mean" if told.get("pooling") == "mean" else "own"
        return HeadedBase.load(name, labels, dtype=dtype, device=device, pooling=pooling)

    @property
    def kind(self) -> Literal["classification", "regression"]:
        """What it tells of a text."""
        return "classification" if self.labels else "regression"

    @property
    def name(self) -> str:
        """How people call it."""
        return self.fingerprint.name

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return self.model.device

    @property
    def width(self) -> int:
        """Numbers of a hidden state."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def longest(self) -> int:
        """Tokens of its context; a very great number for a model that states none."""
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        offset = 2 if getattr(self.model.config, "model_type", "") in _OFFSET else 0
        return positions - offset if isinstance(positions, int) else UNLIMITED

    @property
    def pad_id(self) -> int:
        """What fills shorter rows."""
        return int(self.model.config.pad_token_id or 0)

    @property
    def projection(self) -> nn.Linear:
        """The last layer of the head: from hidden to outputs."""
        outputs = max(1, len(self.labels))
        names = {name.rpartition(".")[0] for name in self.new}
        for name, module in reversed([*self.model.named_modules()]):
            if name in names and isinstance(module, nn.Linear) and module.out_features == outputs:
                return module
        raise BaseError(text("{name} has no head that is known", name=self.name))

    def new_parameters(self) -> dict[str, nn.Parameter]:
        """What the base's files do not hold, by name."""
        return {name: self.model.get_parameter(name) for name in self.new}

    def inner_layers(self) -> list[str]:
        """The linear layers of the base itself: those that an adapter may change in low rank."""
        heads = {name.rpartition(".")[0] for name in self.new}
        unused = ".pooler." if self.pooling == "mean" else "\0"
        return [n for n in self.slots.linear_names() if n not in heads and unused not in n]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids with the special tokens of the architecture, cut to the context.

        Raises:
            DataError: a text without any token.
        """
        found: list[list[int]] = []
        for number, one in enumerate(texts, start=1):
            given: Any = self.tokenizer(one, truncation=True, max_length=min(self.longest, 2**15))
            ids = list(given["input_ids"])
            if not ids:
                raise DataError(
                    text("text {number} has no token", number=number), found=repr(one)[:60]
                )
            found.append(ids)
        return found

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special ones among them, however many the context holds."""
        given: Any = self.tokenizer(list(texts), verbose=False) if texts else {"input_ids": []}
        return [len(ids) for ids in given["input_ids"]]

    def forward(self, rows: Sequence[Sequence[int]]) -> Float[Tensor, "rows outputs"]:
        """Outputs of encoded rows, whatever the slots hold; shorter ones are padded behind."""
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self.pad_id)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        if self.pooling == "own":
            found: Any = self.model(ids, attention_mask=mask)
            return found.logits.float()
        states: Tensor = self.model.base_model(ids, attention_mask=mask).last_hidden_state
        weights = mask[:, :, None].to(states)  # (rows, tokens, 1)
        return self.projection((states * weights).sum(1) / weights.sum(1)).float()

    def logits(
        self, texts: Sequence[str], chain: Chain | Adapter | str | None = None, batch_size: int = 64
    ) -> Float[Tensor, "texts outputs"]:
        """The outputs for texts, without gradients, on the CPU.

        Raises:
            WrongBase, SlotError: a chain that does not belong on this base.
            DataError: as `encode`.
        """
        rows = self.encode(texts)
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        outputs = torch.zeros(len(rows), max(1, len(self.labels)))
        with self.hold(self.contents(chain)), torch.no_grad():
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size]
                outputs[chosen] = self.forward([rows[place] for place in chosen]).cpu()
        return outputs

    def classify(
        self, texts: Sequence[str], chain: Chain | Adapter | str | None = None
    ) -> list[Guess]:
        """The class of each text. Raises ConfigError: the head gives a number; as `logits`."""
        if not self.labels:
            raise ConfigError(text("this head gives a number, and has no classes"))
        found: list[Guess] = []
        for row in self.logits(texts, chain).softmax(-1).tolist():
            shares = dict(zip(self.labels, row, strict=True))
            best = max(shares, key=lambda label: shares[label])
            found.append(Guess(best, shares[best], shares))
        return found

    def estimate(
        self, texts: Sequence[str], chain: Chain | Adapter | str | None = None
    ) -> list[float]:
        """The number for each text. Raises ConfigError: the head gives classes; as `logits`."""
        if self.labels:
            raise ConfigError(text("this head gives classes, and no number"))
        return [float(value) for value in self.logits(texts, chain)[:, 0]]

    def bind(self, chain: Chain | Adapter | str | None) -> Chain:
        """The chain as changes of this model. Raises as `Base.bind`."""
        known = Chain.parse(chain) if isinstance(chain, str) else Chain.of(chain)
        return Chain(tuple(replace(term, adapter=self._bind(term.adapter)) for term in known.terms))

    def _bind(self, adapter: Adapter) -> Adapter:
        check_belongs(adapter, self.fingerprint)
        self._check_labels(adapter)
        return bound(adapter, self.model, self.slots).with_(base=self.fingerprint)

    def contents(self, chain: Chain | Adapter | str | None) -> dict[str, Content]:
        """What the slots hold for a chain."""
        own = self.bind(chain)
        return contents_for_chain(own if own.terms else None, torch.float32, self.device)

    def hold(self, contents: Mapping[str, Content]) -> AbstractContextManager[SlotSet]:
        """Fill the slots for as long as the context lasts."""
        return self.slots.hold(contents)

    def _check_labels(self, adapter: Adapter) -> None:
        told = adapter.card.head
        if told is not None and list(told.get("labels", ())) != list(self.labels):
            raise ConfigError(
                text("{name} has other classes than this head", name=adapter.name),
                expected=", ".join(self.labels) or text("a number"),
                found=", ".join(map(str, told.get("labels", ()))) or text("a number"),
                hint=text("HeadedBase.for_adapter(adapter, base)"),
            )


_OFFSET = frozenset(("roberta", "xlm-roberta", "camembert", "longformer", "mpnet"))
"""Architectures that count positions behind the padding's."""
