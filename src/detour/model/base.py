"""A frozen model with its tokenizer and slots: load it, ask it, read its logits, share it.

A base is never changed by what is done with it: chains act in its slots and leave again. Knows
models, chats and chains. Does not know training, methods of steering or HTTP; how a folder or a
Hub id becomes a model is `loading`'s business.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from difflib import get_close_matches
from functools import cached_property
from typing import Any, NoReturn, TypeAlias, Unpack, cast

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.adapter.fingerprint import Fingerprint, fingerprint_tensors, sha256_tensors
from detour.decoding.engine import Engine
from detour.decoding.request import Generation, Request, Sampling, SamplingOptions
from detour.errors import BaseError, RequestError, WrongBase
from detour.language.catalogue import text
from detour.model.chat import Message, render
from detour.model.loading import check_causal, load_model
from detour.model.loss import Head
from detour.model.text import StopText, TextStream, cut, stop_strings
from detour.slots.content import Content, contents_for_chain, contents_for_rows
from detour.slots.install import SlotSet, install

AnyChain: TypeAlias = Chain | Adapter | str | None
"""Something that names a chain: itself, one adapter, its text form, or nothing for the base."""

Prompt: TypeAlias = str | Sequence[Message]
"""One question, or a whole conversation that ends before the assistant's answer."""

IN_MEMORY = "in-memory"  # the name of a model that came without one
_OPTIONS = tuple(SamplingOptions.__annotations__)


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
    ) -> None:
        check_causal(model.config, fingerprint.name, [type(model).__name__])
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.fingerprint = fingerprint
        self.slots: SlotSet = install(model)
        self.engine = Engine(model, self.slots)

    @staticmethod
    def load(name: str, dtype: str | None = None, device: str | None = None) -> Base:
        """Load "starter", a folder, or "org/name[@revision]" from the Hugging Face Hub.

        Args:
            name: what to load.
            dtype: "float32" or "bfloat16"; by default float32 on a CPU, bfloat16 on a GPU.
            device: "cpu" or "cuda"; by default the CPU.

        Raises:
            BaseError: it is not there, not readable, incomplete, or not a causal language model.
        """
        return Base(*load_model(name, dtype, device))

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
        with self.slots.hold(self._contents(chains)), self.slots.rows(index), torch.no_grad():
            given = None if mask is None else mask.to(self.device)
            return self.model(ids.to(self.device), attention_mask=given, use_cache=False).logits

    def share(self) -> Base:
        """A second base on the same parameters, with its own module tree and slots."""
        memo: dict[int, Any] = {
            id(tensor): tensor for tensor in (*self.model.parameters(), *self.model.buffers())
        }
        return Base(copy.deepcopy(self.model, memo), self.tokenizer, self.fingerprint)

    def check(self, chain: AnyChain) -> Chain:
        """The chain, known to belong on this base.

        Raises:
            WrongBase: an adapter was made for other weights or another chat template.
            SlotError: a layer or shape that the model does not have.
        """
        whole = self._resolve(chain)
        for term in whole.terms:
            self._check_adapter(term.adapter)
            updates = term.adapter.updates
            self.slots.check({n: (u.out_features, u.in_features) for n, u in updates.items()})
        return whole

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
        known = {key: self.check(chain) for key, chain in distinct.items()}
        return [known[key] if known[key].terms else None for key in keys]

    def _contents(self, chains: Sequence[Chain | None]) -> dict[str, Content]:
        if all(chain is chains[0] for chain in chains):
            return contents_for_chain(chains[0], torch.float32, self.device)
        return contents_for_rows(chains, torch.float32, self.device)

    def _check_adapter(self, adapter: Adapter) -> None:
        made_for, here = adapter.base, self.fingerprint
        if made_for is not None and not made_for.same_weights(here):
            raise _wrong_weights(adapter, made_for, here)
        if made_for is not None and _other_template(made_for, here):
            raise WrongBase(
                text(
                    "the adapter {adapter} was made with another chat template",
                    adapter=adapter.name,
                ),
                expected=text(
                    "the template {digest} of {made_for}",
                    digest=str(made_for.template_sha256)[:8],
                    made_for=made_for.name,
                ),
                found=text(
                    "the template {digest} of {here}",
                    digest=str(here.template_sha256)[:8],
                    here=here.name,
                ),
                hint=text("put the chat template it was trained with beside the model"),
            )

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


def _wrong_weights(adapter: Adapter, made_for: Fingerprint, here: Fingerprint) -> WrongBase:
    """Another model, or the same by name in another release: what to do differs."""
    if made_for.name == here.name != IN_MEMORY:
        return WrongBase(
            text(
                "the adapter {adapter} was made for another release of {base}",
                adapter=adapter.name,
                base=here.name,
            ),
            expected=made_for.short,
            found=here.short,
            hint=text(
                "a new release has new weights, and an adapter fits one only: load the {base} of "
                "then, or train the adapter anew",
                base=here.name,
            ),
        )
    return WrongBase(
        text("the adapter {adapter} was made for another base", adapter=adapter.name),
        expected=made_for.short,
        found=here.short,
        hint=text(
            "load {made_for} as it was then, or train the adapter anew on this base",
            made_for=made_for.name,
        ),
    )


def _other_template(one: Fingerprint, other: Fingerprint) -> bool:
    known = one.template_sha256 is not None and other.template_sha256 is not None
    return known and one.template_sha256 != other.template_sha256


def _weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    return cast("Iterator[tuple[str, Tensor]]", model.named_parameters())


def _unknown_option(name: str) -> NoReturn:
    near = get_close_matches(name, _OPTIONS, 1)
    raise RequestError(
        text("unknown sampling option {name!r}", name=name),
        expected=", ".join(_OPTIONS),
        hint=near[0] if near else "",
    )
