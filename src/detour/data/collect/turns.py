"""Who said what in one row of a log, in the shapes that logs have.

    {"messages": [{"role": ..., "content": ...}, ...]}      also as ShareGPT names them
    {"prompt": ..., "response": ...}                        and other names for the two
    {"inputs": {"question": ...}, "outputs": {"answer": ...}}
    {"prompt": [messages], "completion": [messages]}

Knows names and shapes; does not know what is good.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from detour.data.formats import ALIASES
from detour.data.meaning import SHAREGPT_ROLES, Columns

CONVERSATIONS: Final = ("messages", "conversations", "conversation", "turns")
QUESTIONS: Final = (
    "instruction", *ALIASES["prompt"], "inputs", "user", "user_input", "user_message", "request",
    "human", "nachricht",
)  # fmt: skip
ANSWERS: Final = (
    *ALIASES["completion"], "outputs", "assistant", "assistant_message", "bot", "bot_response",
    "model_output", "reply", "generation", "prediction", "ai",
)  # fmt: skip
WITHIN: Final = ("content", "text", "value", "message")
SPEAKERS: Final = {**SHAREGPT_ROLES, "ai": "assistant", "model": "assistant", "customer": "user",
                   "developer": "system"}  # fmt: skip


@dataclass
class Turn:
    """One message, and what was said about it."""

    role: str
    content: str
    values: Mapping[str, Any] = field(default_factory=lambda: {})
    mark: str | float | None = None
    correction: str = ""


def turns_of(values: Mapping[str, Any], columns: Columns) -> list[Turn]:
    """The turns of a row; none where no shape is known or a turn holds no text."""
    named = [columns["messages"]] if "messages" in columns else CONVERSATIONS
    held = next((values[name] for name in named if isinstance(values.get(name), list)), None)
    answered = _side(values, columns.get("completion"), ANSWERS, "assistant")
    if held is not None:
        turns = _messages(cast("list[object]", held))
        return [*turns, *answered] if turns and turns[-1].role != "assistant" else turns
    asked = _side(values, columns.get("prompt"), QUESTIONS, "user")
    if not asked:
        chosen = values.get("chosen")  # a whole conversation, in some logs of preferences
        return _messages(cast("list[object]", chosen)) if isinstance(chosen, list) else []
    before = _before(values, columns)
    return [] if before is None else [*before, *_with_input(asked, values), *answered]


def _before(values: Mapping[str, Any], columns: Columns) -> list[Turn] | None:
    """The system turn and the conversation so far; None where that is in no shape we know."""
    system, history = values.get(columns.get("system", "system")), values.get("history")
    first = [Turn("system", system)] if isinstance(system, str) and system.strip() else []
    if not history:
        return first
    turns = _messages(cast("list[object]", history)) if isinstance(history, list) else []
    return [*first, *turns] if turns else None


def _with_input(asked: list[Turn], values: Mapping[str, Any]) -> list[Turn]:
    """As alpaca has it: an instruction, and what it is about."""
    more = values.get("input")
    if isinstance(values.get("instruction"), str) and isinstance(more, str) and more.strip():
        asked[0].content += f"\n\n{more}"
    return asked


def _side(
    values: Mapping[str, Any], named: str | None, names: Sequence[str], role: str
) -> list[Turn]:
    """One question or one answer; or the messages that stand in its place."""
    folded = {str(name).strip().casefold(): value for name, value in values.items()}
    for name in [named.strip().casefold()] if named else names:
        value = folded.get(name)
        if isinstance(value, list):
            return _messages(cast("list[object]", value))
        if isinstance(value, Mapping):
            inner = cast("Mapping[str, Any]", value)
            return turns_of(inner, {}) or _side(inner, None, (*names, *WITHIN), role)
        if isinstance(value, str) and value.strip():
            return [Turn(role, value)]
    return []


def _messages(held: Sequence[object]) -> list[Turn]:
    found = list(_read(held))
    return found if len(found) == len(held) else []


def _read(held: Sequence[object]) -> Iterator[Turn]:
    for one in held:
        if isinstance(one, Mapping):
            told = cast("Mapping[str, Any]", one)
            role = SPEAKERS.get(str(told.get("role", told.get("from"))).casefold())
            content = content_of(told.get("content", told.get("value")))
            if role and content.strip():
                yield Turn(role, content, told)


def content_of(value: object) -> str:
    """A message's text, also where it comes in parts; nothing where a part is no text."""
    if isinstance(value, list):
        parts = [content_of(part) for part in cast("list[object]", value)]
        return "\n".join(parts) if all(parts) else ""
    if isinstance(value, Mapping):
        value = cast("Mapping[str, Any]", value).get("text")
    return value if isinstance(value, str) else ""


def answer_of(value: object) -> str:
    """An answer as text, in whatever it comes: a text, an object, messages."""
    if isinstance(value, str):
        return value if value.strip() else ""
    if isinstance(value, Mapping):
        told = cast("Mapping[str, Any]", value)
        names = (*ANSWERS, *WITHIN)
        return next((text for name in names if (text := answer_of(told.get(name)))), "")
    if isinstance(value, list):
        turns = _messages(cast("list[object]", value))
        return turns[-1].content if turns and turns[-1].role == "assistant" else ""
    return ""
