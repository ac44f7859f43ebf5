"""One question to a model as the engine sees it: token ids in, a chain, how to sample, when to end.

Knows token ids and chains. Does not know text, messages, models or HTTP.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain as concatenated
from typing import TypeAlias, TypedDict

from detour.adapter.chain import Chain
from detour.errors import RequestError
from detour.language.catalogue import text

StopCheck: TypeAlias = Callable[[Sequence[int]], bool]
"""Asked after every token with all ids generated so far; True ends the row."""


class Status(Enum):
    """Where a request is in its life."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"


class Finish(Enum):
    """Why a row ended. The values are those of the OpenAI protocol where it has one."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


def _whole(name: str, value: object, lowest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise RequestError(
            text("{name} is out of range", name=name),
            expected=text("a whole number of at least {lowest}", lowest=lowest),
            found=repr(value),
        )


def _sound(value: float, holds: Callable[[float], bool]) -> bool:
    return math.isfinite(value) and holds(value)


def _real(name: str, value: object, holds: Callable[[float], bool], expected: str) -> None:
    if isinstance(value, int | float) and type(value) is not bool and _sound(value, holds):
        return
    raise RequestError(
        text("{name} is out of range", name=name), expected=expected, found=repr(value)
    )


class SamplingOptions(TypedDict, total=False):
    """The fields of `Sampling` that people set; the ids that end a row come from the base."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    seed: int
    repetition_penalty: float


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, and when to end.

    Temperature 0 is greedy. `top_k` 0 and `top_p` 1 switch the filters off. `stop_ids` are
    sequences of ids that end a row and are cut off; each of `eos_ids` does the same alone.

    Raises:
        RequestError: a value out of range.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    repetition_penalty: float = 1.0
    stop_ids: tuple[tuple[int, ...], ...] = ()
    eos_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _whole("max_new_tokens", self.max_new_tokens, 1)
        _whole("top_k", self.top_k, 0)
        _whole("seed", self.seed, 0)
        _real("temperature", self.temperature, lambda t: t >= 0, text("a number of at least 0"))
        _real("top_p", self.top_p, lambda p: 0 < p <= 1, text("a number above 0 and up to 1"))
        positive = text("a number above 0")
        _real("repetition_penalty", self.repetition_penalty, lambda r: r > 0, positive)
        if any(not sequence for sequence in self.stop_ids):
            raise RequestError(
                text("stop_ids holds an empty sequence"), expected=text("at least one id in it")
            )
        for token in concatenated(self.eos_ids, *self.stop_ids):
            _whole("a stop id", token, 0)

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0

    @property
    def filtered(self) -> bool:
        """Whether the unlikely tokens are cut off before drawing."""
        return self.top_k > 0 or self.top_p < 1


@dataclass(frozen=True, eq=False)
class Request:
    """One row for the engine.

    The random numbers of a row depend on `sampling.seed` and `id` alone, so that its neighbours in
    the batch change nothing. `stops` ends a row by what has been generated so far (a stop string).
    """

    id: str
    prompt_ids: tuple[int, ...]
    chain: Chain | None = None
    sampling: Sampling = field(default_factory=Sampling)
    stops: StopCheck | None = None


@dataclass(frozen=True)
class Generation:
    """What came out: the new ids without the token or stop sequence that ended them."""

    ids: tuple[int, ...]
    finish: Finish
    prompt_tokens: int


def check_request(request: Request, vocabulary: int, positions: int | None) -> None:
    """Refuse a request the model cannot run: `positions` is its longest text in tokens.

    Raises:
        RequestError: an empty prompt, an id outside the vocabulary, or more tokens than positions.
    """
    ids, name = request.prompt_ids, text("request {id!r}", id=request.id)
    if not ids:
        raise RequestError(
            text("{name} has an empty prompt", name=name), expected=text("at least one token")
        )
    if min(ids) < 0 or max(ids) >= vocabulary:
        raise RequestError(
            text("{name} holds an id outside the vocabulary", name=name),
            expected=text("ids from 0 to {last}", last=vocabulary - 1),
            found=str(min(ids) if min(ids) < 0 else max(ids)),
            hint=text("encode the prompt with this model's own tokenizer"),
        )
    wanted = len(ids) + request.sampling.max_new_tokens
    if positions is not None and wanted > positions:
        raise _too_long(name, len(ids), request.sampling.max_new_tokens, positions)


def _too_long(name: str, prompt: int, new: int, positions: int) -> RequestError:
    room = positions - prompt
    return RequestError(
        text("{name} is too long for this model", name=name),
        expected=text("at most {positions} tokens", positions=positions),
        found=text("a prompt of {prompt} and max_new_tokens={new}", prompt=prompt, new=new),
        hint=text("max_new_tokens={room} or less", room=room)
        if room > 0
        else text("shorten the prompt"),
    )
