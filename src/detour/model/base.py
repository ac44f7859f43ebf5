"""A frozen model with its tokenizer and slots: load it, ask it, read its logits, share it.

A base is never changed by what is done with it: chains act in its slots and leave again. Knows
models, chats and chains. Does not know training, methods of steering or HTTP; how a folder or a
Hub id becomes a model is `loading`'s business.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from difflib import get_close_matches
from functools import cached_property
from typing import Any, NoReturn, TypeAlias, Unpack, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.adapter.fingerprint import Fingerprint, fingerprint_tensors, sha256_tensors
from detour.decoding.engine import Engine, at_rest
from detour.decoding.request import Generation, Request, Sampling, SamplingOptions
from detour.errors import BaseError, RequestError, SlotsBusy
from detour.language.catalogue import Text, text
from detour.model.belonging import IN_MEMORY, check_belongs, doubts
from detour.model.binding import bound
from detour.model.chat import Message, render
from detour.model.loading import check_causal, load_model
from detour.model.loss import Head
from detour.model.packing import Forward
from detour.model.quantized import method_of
from detour.model.text import StopText, TextStream, cut, stop_strings
from detour.slots.chained import contents_for_chain, contents_for_rows
from detour.slots.content import Content
from detour.slots.install import SlotSet, install
from detour.slots.products import Products

AnyChain: TypeAlias = Chain | Adapter | str | None
"""Something that names a chain: itself, one adapter, its text form, or nothing for the base."""

Prompt: TypeAlias = str | Sequence[Message]
"""One question, or a whole conversation that ends before the assistant's answer."""

_OPTIONS = tuple(SamplingOptions.__annotations__)
UNLIMITED = 1 << 30  # tokens of a context that no model states


class Base:
    """A frozen causal model. Use `Base.load` or `Base.from_model`.

    Attributes:
        name: how people call it.
        kind: "causal"; other kinds are refused by name.
        model: the transformers model, in eval mode, no parameter requiring a gradient.
        tokenizer: its tokenizer, or None.
        fingerprint: which weights these are.
        slots: an empty slot on every linear layer.
        engine: what generates with them.
    """

    kind = "causal"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        fingerprint: Fingerprint,
        products: Products | None = None,
    ) -> None:
        check_causal(model.config, fingerprint.name, [type(model).__name__])
        self.model = model.eval()
        for parameter in model.parameters():  # packed ones are whole numbers
            parameter.requires_grad_(False)
        self.tokenizer = tokenizer
        self.fingerprint = fingerprint
        self.slots: SlotSet = install(model, products=products)
        self._bound: WeakKeyDictionary[Adapter, Adapter | None] = WeakKeyDictionary()
        self.engine = Engine(model, self.slots)
        self.is_spread = False
        """Whether its layers are spread over the processes of a team, which run it together."""

    @staticmethod
    def load(
        name: str,
        dtype: str | None = None,
        device: str | None = None,
        quantize: str | None = None,
        full: bool = False,
    ) -> Base:
        """Load "starter", a folder, or "org/name[@revision]" from the Hugging Face Hub.

        Args:
            name: what to load.
            dtype: "float32" or "bfloat16"; by default float32 on a CPU, bfloat16 on a GPU.
            device: "cpu" or "cuda"; by default the CPU.
            quantize: "8bit" or "4bit", by bitsandbytes; by default as the files are.
            full: hash every byte of the weights' files into the fingerprint, not samples only.

        Raises:
            BaseError: it is not there, not readable, incomplete, or not a causal language model.
            MissingExtra: `quantize` without bitsandbytes.
        """
        return Base(*load_model(name, dtype, device, quantize, full))

    @staticmethod
    def from_model(
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        name: str = IN_MEMORY,
    ) -> Base:
        """A base from a model in memory. It is put in eval mode and frozen, and gets slots.

        Raises:
            BaseError: not a causal language model.
            SlotsBusy: it has slots already; use `share`.
        """
        config: Mapping[str, Any] = model.config.to_dict()
        return Base(model, tokenizer, fingerprint_tensors(_weights(model), config, name))

    @property
    def name(self) -> str:
        """How people call it."""
        return self.fingerprint.name

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of its parameters."""
        return self.model.dtype

    @property
    def longest(self) -> int:
        """Tokens of its context; a very great number for a model that states none."""
        return self.engine.positions or UNLIMITED

    @property
    def pad_id(self) -> int:
        """What fills shorter rows; masked, so any id of the vocabulary does."""
        pad = getattr(self.tokenizer, "pad_token_id", None)
        return pad if isinstance(pad, int) else 0

    @cached_property
    def head(self) -> Head:
        """From hidden states to logits, verified against the model.

        The first use runs two tokens through the model as it stands, so have it before the slots
        are filled row by row.

        Raises:
            BaseError: the model treats its logits in an unknown way.
        """
        return Head(self.model)

    @cached_property
    def forward(self) -> Forward:
        """The forward pass of learning; have it, too, before the slots are filled."""
        return Forward(self.model)

    @cached_property
    def eos_ids(self) -> tuple[int, ...]:
        """The ids that end an answer, by the generation config and the tokenizer."""
        generation = getattr(self.model, "generation_config", None)
        named = getattr(generation, "eos_token_id", None)
        found = list(named) if isinstance(named, list | tuple) else [named]
        found.append(getattr(self.tokenizer, "eos_token_id", None))
        return tuple(sorted({token for token in found if isinstance(token, int) and token >= 0}))

    def chat(self, prompt: Prompt, system: str | None = None) -> tuple[int, ...]:
        """The ids of a question, up to where the answer begins.

        Raises:
            BaseError: this base has no tokenizer or no chat template.
            DataError: messages that the template refuses.
            RequestError: two system messages, or an empty question.
        """
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [*prompt]
        if isinstance(prompt, str) and not prompt.strip():
            raise RequestError(text("the prompt is empty"), expected=text("some text"))
        if system is not None:
            if messages and messages[0].get("role") == "system":
                raise RequestError(
                    text("system= is given and the messages begin with a system message")
                )
            messages = [{"role": "system", "content": system}, *messages]
        return tuple(render(self._tokenizer("ask"), messages, add_generation_prompt=True))

    def ask(
        self,
        prompt: Prompt,
        chain: AnyChain = None,
        system: str | None = None,
        *,
        stop: str | Sequence[str] = (),
        **sampling: Unpack[SamplingOptions],
    ) -> str:
        """The answer to one question, up to its end token or the first of the `stop` strings.

        `sampling` takes the fields of `Sampling`: max_new_tokens, temperature, top_k, top_p, seed,
        repetition_penalty. Greedy unless a temperature is given.

        Raises:
            BaseError: no tokenizer or chat template.
            RequestError: an empty or over-long prompt, an option unknown or out of range.
            WrongBase, SlotError: a chain that does not belong on this base.
            SlotsBusy: somebody else holds the slots.
        """
        return self.ask_many([prompt], chain, system, stop=stop, **sampling)[0]

    def ask_many(
        self,
        prompts: Sequence[Prompt],
        chains: AnyChain | Sequence[AnyChain] = None,
        system: str | None = None,
        *,
        stop: str | Sequence[str] = (),
        batch_size: int = 64,
        **sampling: Unpack[SamplingOptions],
    ) -> list[str]:
        """The answers to many questions, in their order; one chain for all, or one for each.

        With a temperature the same question twice gives two samples: the random numbers depend on
        the seed and the place in `prompts`. Raises as `ask`.
        """
        stops = stop_strings(stop)
        requests = self._requests(prompts, chains, system, stops, sampling)
        results = self.engine.generate(requests, batch_size)
        return [cut(self.decode(result.ids), stops) for result in results]

    def generate(
        self,
        prompts: Sequence[Prompt],
        chains: AnyChain | Sequence[AnyChain] = None,
        system: str | None = None,
        *,
        stop: str | Sequence[str] = (),
        batch_size: int = 64,
        **sampling: Unpack[SamplingOptions],
    ) -> list[Generation]:
        """As `ask_many`, but the ids and why each ended. Raises as `ask`."""
        requests = self._requests(prompts, chains, system, stop_strings(stop), sampling)
        return self.engine.generate(requests, batch_size)

    def stream(
        self,
        prompt: Prompt,
        chain: AnyChain = None,
        system: str | None = None,
        *,
        stop: str | Sequence[str] = (),
        **sampling: Unpack[SamplingOptions],
    ) -> Iterator[str]:
        """The answer in pieces as they come; joined they are what `ask` returns.

        A piece never ends inside a character, nor inside what may become a stop string. Bad
        requests are refused at once, before the first piece. Raises as `ask`.
        """
        stops = stop_strings(stop)
        (request,) = self._requests([prompt], chain, system, stops, sampling)
        self.engine.check([request])
        return self._pieces(request, TextStream(self.decode, stops))

    def _pieces(self, request: Request, text: TextStream) -> Iterator[str]:
        with closing(self.engine.stream(request)) as tokens:  # frees the slots when given up
            for token in tokens:
                if piece := text.push(token):
                    yield piece
        if piece := text.finish():
            yield piece

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids, without special tokens.

        Raises:
            BaseError: this base has no tokenizer.
        """
        return str(
            self._tokenizer("decode").decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def logits(
        self,
        ids: Int[Tensor, "rows tokens"],
        chain: AnyChain | Sequence[AnyChain] = None,
        mask: Shaped[Tensor, "rows tokens"] | None = None,
    ) -> Float[Tensor, "rows tokens vocab"]:
        """Every token's logits, without gradients; one chain for all rows, or one for each.

        `mask` is 1 on real tokens and 0 on padding.

        Raises:
            RequestError: no ids, or ids outside the vocabulary.
            WrongBase, SlotError, SlotsBusy: as `ask`.
        """
        self._check_ids(ids)
        chains = self._chains(chain, len(ids))
        index = torch.arange(len(ids), device=self.device)
        rows = self.slots.rows(index, ids.shape[1])
        with self.slots.hold(self._contents(chains)), rows, torch.no_grad():
            given = None if mask is None else mask.to(self.device)
            return self.model(ids.to(self.device), attention_mask=given, use_cache=False).logits

    def share(self) -> Base:
        """A second base on the same parameters, with its own module tree and slots.

        Raises:
            SlotsBusy: parameters are exchanged at the moment (norms, experts of a held chain).
            BaseError: packed weights, whose layers keep a state of their own.
        """
        if self.slots.exchanged:
            raise SlotsBusy(
                text("parameters of this model are exchanged at the moment"),
                hint=text("share it before such a chain is held, or wait until it is not"),
            )
        if method_of(self.model.config):
            raise BaseError(
                text("{name} is packed, and packed layers cannot be shared", name=self.name),
                hint=text("load it a second time"),
            )
        memo: dict[int, Any] = {
            id(tensor): tensor for tensor in (*self.model.parameters(), *self.model.buffers())
        }
        model = copy.deepcopy(self.model, memo)
        at_rest(model)
        return Base(model, self.tokenizer, self.fingerprint, self.slots.products)

    def bind(self, chain: AnyChain) -> Chain:
        """The chain, known to belong on this base, its adapters made changes of this model.

        What an adapter says in whole values (DoRA's magnitudes, biases, saved modules, token
        rows) becomes updates; layers get this model's names. The same adapter is bound once.

        Raises:
            WrongBase: an adapter was made for other weights or another chat template.
            SlotError: a layer or shape that the model does not have.
            AdapterWeightsError: an adapter that changes nothing.
        """
        return Chain(
            tuple(
                replace(term, adapter=self._bind(term.adapter))
                for term in self._resolve(chain).terms
            )
        )

    def _bind(self, adapter: Adapter) -> Adapter:
        if adapter not in self._bound:
            check_belongs(adapter, self.fingerprint)
            own = bound(adapter, self.model, self.slots)
            if adapter.unbound:  # from now on it is a difference from this very base
                own = own.with_(base=self.fingerprint)
            self._bound[adapter] = None if own is adapter else own  # a value must not hold its key
        return self._bound[adapter] or adapter

    def doubts(self, chain: AnyChain) -> list[Text]:
        """What speaks against the chain without forbidding it, a sentence each."""
        terms = self._resolve(chain).terms
        return [said for term in terms for said in doubts(term.adapter, self.fingerprint)]

    def sha256(self) -> str:
        """The hash of every byte of every parameter: proof that nothing changed them."""
        return sha256_tensors(_weights(self.model))

    def hold(self, contents: Mapping[str, Content]) -> AbstractContextManager[SlotSet]:
        """Fill the slots for as long as the context lasts; see `SlotSet.hold`."""
        return self.slots.hold(contents)

    def _tokenizer(self, purpose: str) -> PreTrainedTokenizerBase:
        if self.tokenizer is None:
            raise BaseError(
                text(
                    "{name} has no tokenizer, which {purpose!r} needs",
                    name=self.name,
                    purpose=purpose,
                ),
                expected=text("a tokenizer beside the model"),
                hint=text("Base.from_model(model, tokenizer), or use logits with token ids"),
            )
        return self.tokenizer

    def _resolve(self, chain: AnyChain) -> Chain:
        return Chain.parse(chain) if isinstance(chain, str) else Chain.of(chain)

    def _chains(self, chains: AnyChain | Sequence[AnyChain], rows: int) -> list[Chain | None]:
        """A checked chain per row; the same object for the same thing, None for the base."""
        if chains is None or isinstance(chains, str | Chain | Adapter):
            chains = [chains] * rows
        if len(chains) != rows:
            raise RequestError(
                text("chains and prompts differ in number"),
                expected=text("one chain, or {rows}", rows=rows),
                found=str(len(chains)),
            )
        keys = [chain if isinstance(chain, str) else id(chain) for chain in chains]
        distinct = dict(zip(keys, chains, strict=True))
        known = {key: self.bind(chain) for key, chain in distinct.items()}
        return [known[key] if known[key].terms else None for key in keys]

    def _contents(self, chains: Sequence[Chain | None]) -> dict[str, Content]:
        if all(chain is chains[0] for chain in chains):
            return contents_for_chain(chains[0], torch.float32, self.device)
        return contents_for_rows(chains, torch.float32, self.device)

    def _requests(
        self,
        prompts: Sequence[Prompt],
        chains: AnyChain | Sequence[AnyChain],
        system: str | None,
        stops: tuple[str, ...],
        options: SamplingOptions,
    ) -> list[Request]:
        for name in options:
            if name not in _OPTIONS:
                _unknown_option(name)
        sampling = Sampling(**options, eos_ids=self.eos_ids)
        check = StopText(self.decode, stops) if stops else None
        return [
            Request(str(place), self.chat(prompt, system), chain, sampling, check)
            for place, (prompt, chain) in enumerate(
                zip(prompts, self._chains(chains, len(prompts)), strict=True)
            )
        ]

    def _check_ids(self, ids: Tensor) -> None:
        vocabulary = self.engine.vocabulary
        if ids.ndim != 2 or ids.numel() == 0:
            raise RequestError(
                text("logits need token ids"),
                expected="(rows, tokens)",
                found=str(tuple(ids.shape)),
            )
        if int(ids.min()) < 0 or int(ids.max()) >= vocabulary:
            raise RequestError(
                text("an id is outside the vocabulary"),
                expected=text("ids from 0 to {last}", last=vocabulary - 1),
                found=str(int(ids.min()) if int(ids.min()) < 0 else int(ids.max())),
            )


def _weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    return cast("Iterator[tuple[str, Tensor]]", model.named_parameters())


def _unknown_option(name: str) -> NoReturn:
    near = get_close_matches(name, _OPTIONS, 1)
    raise RequestError(
        text("unknown sampling option {name!r}", name=name),
        expected=", ".join(_OPTIONS),
        hint=near[0] if near else "",
    )
