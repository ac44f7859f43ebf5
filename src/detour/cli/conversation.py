"""A conversation with a base and a chain, beside the base alone on request; and the chat loop.

With `compare` the base has a history of its own, made of its own answers. Knows bases and chains;
does not know how lines are read or which options a command has.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from detour.adapter.chain import Chain
from detour.cli.options import check_text, parse_chain
from detour.cli.output import is_terminal, note, one_line, print_table, say
from detour.errors import DetourError, RequestError
from detour.language.catalogue import Catalogue, text, wanted_language

if TYPE_CHECKING:
    from detour.decoding.request import SamplingOptions
    from detour.model.base import Base
    from detour.model.chat import Message

USUAL_TOKENS = 64  # of an answer, where nothing is asked for
COMMANDS = "/chain SPEC, /chain (none), /compare, /reset, /quit"


@dataclass(frozen=True)
class Turn:
    """A question and what came back; `seconds` without loading."""

    question: str
    answer: str
    base_answer: str | None
    tokens: int
    seconds: float


@dataclass
class Conversation:
    """Turns with one base.

    Attributes:
        base: the model.
        sampling: how to sample; without `max_new_tokens` an answer takes what room there is.
        chain: what acts; without terms the base answers.
        system: the system message, if any.
        compare: ask the base alone too.
    """

    base: Base
    sampling: SamplingOptions
    chain: Chain = field(default_factory=Chain)
    system: str | None = None
    compare: bool = False
    _history: list[Message] = field(default_factory=list["Message"])
    _base_history: list[Message] = field(default_factory=list["Message"])

    def ask(self, question: str) -> Turn:
        """One turn. Raises what `Base.ask` raises; then the history is as before."""
        check_text(question, text("the question"))
        began = time.perf_counter()
        answer, tokens = self._answer(self._history, question, self.chain)
        bare = None
        if self.compare:
            bare, more = self._answer(self._base_history, question, Chain())
            tokens += more
        seconds = time.perf_counter() - began
        self._remember(question, answer, bare)
        return Turn(question, answer, bare, tokens, seconds)

    def stream(self, question: str) -> Generator[str]:
        """One turn in pieces, without comparing; it is remembered once it is complete."""
        check_text(question, text("the question"))
        messages = [*self._history, _message("user", question)]
        pieces: list[str] = []
        options = self._options(messages)
        stream = self.base.stream(messages, self._acting(self.chain), self.system, **options)
        with closing(cast("Generator[str]", stream)) as ours:  # closed early, it frees the slots
            for piece in ours:
                pieces.append(piece)
                yield piece
        self._remember(question, "".join(pieces), None)

    def use(self, chain: Chain) -> None:
        """Let another chain act from now on. Raises WrongBase, SlotError."""
        self.chain = self.base.bind(chain)

    def reset(self) -> None:
        """Forget all turns."""
        self._history.clear()
        self._base_history.clear()

    def _answer(self, history: list[Message], question: str, chain: Chain) -> tuple[str, int]:
        messages = [*history, _message("user", question)]
        options = self._options(messages)
        (result,) = self.base.generate([messages], self._acting(chain), self.system, **options)
        return self.base.decode(result.ids), len(result.ids)

    def _acting(self, chain: Chain) -> Chain | None:
        return chain if chain.terms else None

    def _options(self, messages: list[Message]) -> SamplingOptions:
        if "max_new_tokens" in self.sampling:
            return self.sampling
        prompt, positions = self.base.chat(messages, self.system), self.base.engine.positions
        room = USUAL_TOKENS if positions is None else positions - len(prompt)
        if room < 1:
            raise RequestError(
                text("the conversation has grown too long for this model"),
                expected=text("fewer than {positions} tokens", positions=positions),
                found=str(len(prompt)),
                hint=text("/reset in a chat, or fewer and shorter questions"),
            )
        return {**self.sampling, "max_new_tokens": min(USUAL_TOKENS, room)}

    def _remember(self, question: str, answer: str, bare: str | None) -> None:
        told = [_message("user", question), _message("assistant", answer)]
        self._history += told
        self._base_history += told if bare is None else [told[0], _message("assistant", bare)]


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def show(conversation: Conversation, question: str) -> None:
    """Ask and print: side by side when comparing, as it comes in a terminal, else at once."""
    if conversation.compare:
        turn = conversation.ask(question)
        columns = (conversation.base.name, conversation.chain.text or "no chain")
        print_table(columns, [(turn.base_answer or "", turn.answer)])
    elif is_terminal(sys.stdout):
        with closing(conversation.stream(question)) as pieces:
            for piece in pieces:
                say(piece, end="")
                sys.stdout.flush()
        say()
    else:
        say(conversation.ask(question).answer)


def tell_doubts(base: Base, chain: Chain) -> None:
    """Say what speaks against the chain's adapters without forbidding them."""
    t = Catalogue.load(wanted_language())
    for doubt in base.doubts(chain):
        note(t.say(doubt))


def chat(conversation: Conversation, read: Callable[[], str]) -> None:
    """Read lines until /quit or the end of input; mistakes are told and the chat goes on."""
    t = Catalogue.load(wanted_language())  # the chat is English, its errors as elsewhere
    note(f"chatting with {conversation.base.name}; {COMMANDS}")
    while True:
        try:
            line = read().strip()
        except EOFError:
            return
        if line in ("/quit", "/exit"):
            return
        try:
            _react(conversation, line)
        except DetourError as error:
            note(one_line(error.told(t)))
        except KeyboardInterrupt:
            note("\nstopped; this turn is forgotten")


def _react(conversation: Conversation, line: str) -> None:
    command, _, argument = line.partition(" ")
    from detour.model.acting import check_acts

    if not line.startswith("/"):
        if line:
            show(conversation, line)
    elif command == "/chain":
        chain = parse_chain(argument.strip() or None)
        check_acts(conversation.base, chain)
        conversation.use(chain)
        tell_doubts(conversation.base, conversation.chain)
        note(f"chain: {conversation.chain.text or 'none'}")
    elif line == "/compare":
        conversation.compare = not conversation.compare
        note("side by side with the base" if conversation.compare else "no comparison")
    elif line == "/reset":
        conversation.reset()
        note("a new conversation")
    else:
        raise RequestError(
            text("there is no chat command {name!r}", name=command), expected=COMMANDS
        )
