"""Messages to token ids by the tokenizer's own chat template, and which of them are supervised.

The template owns every special token; nothing is added around it. What a template yields is
verified, not assumed: the prompt's ids must be a true prefix of the answered conversation's ids.

Knows tokenizers. Does not know models, adapters, files or losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from detour.errors import BaseError, DataError, NoSupervision
from detour.language.catalogue import text
from detour.model.examples import composed

Message: TypeAlias = Mapping[str, Any]
"""`{"role": "system" | "user" | "assistant" | ..., "content": text}`; templates may know more.

An answer with `"weight": 0` is read and not learned."""


def check_messages(messages: Sequence[Message]) -> None:
    """Refuse what no template can render.

    Raises:
        DataError: no message, or one without a role or a text.
    """
    if not messages:
        raise DataError(text("a conversation has no messages"), expected=text("at least one"))
    for place, message in enumerate(messages, start=1):
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                raise DataError(
                    text("message {place} has no {key}", place=place, key=key),
                    expected='{"role": text, "content": text}',
                    found=repr(dict(message))[:120],
                )


def render_text(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], add_generation_prompt: bool
) -> str:
    """The conversation as the template writes it, special tokens spelled out.

    Texts are taken in Unicode's composed form, learned and asked alike.

    Raises:
        BaseError: the tokenizer has no chat template.
        DataError: the template refuses these messages.
    """
    check_messages(messages)
    if not tokenizer.chat_template:
        raise BaseError(
            text("this base's tokenizer has no chat template"),
            expected=text(
                "chat_template.jinja beside the tokenizer, or chat_template in its config"
            ),
            hint=text("use an instruction-tuned model"),
        )
    try:
        rendered = tokenizer.apply_chat_template(
            [{**message, "content": composed(message["content"])} for message in messages],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
    except TemplateError as cause:
        raise DataError(
            text("the chat template refuses these messages"),
            expected=text("roles in the order the template knows"),
            found=text(
                "{cause} (roles: {names})",
                cause=cause,
                names=", ".join(message["role"] for message in messages),
            ),
        ) from cause
    return str(rendered)


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], add_generation_prompt: bool
) -> list[int]:
    """The ids of a conversation; with `add_generation_prompt` it ends where the answer begins.

    Raises:
        BaseError: the tokenizer has no chat template.
        DataError: the template refuses these messages.
    """
    rendered = render_text(tokenizer, messages, add_generation_prompt)
    # The template has written the special tokens itself, so none may be added a second time.
    return list(tokenizer.encode(rendered, add_special_tokens=False))


def supervised(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]
) -> tuple[list[int], list[bool]]:
    """The ids of a whole conversation and, for each, whether the loss counts it.

    Counted are the assistant's turns but those of weight 0, each with the token that ends it and
    nothing after that.
    Places are found by length and checked as prefixes, never by comparing with a pad id.

    Raises:
        BaseError: the tokenizer has no chat template.
        DataError: no assistant turn, or the template rewrites earlier text when a turn is added.
    """
    ids = render(tokenizer, messages, add_generation_prompt=False)
    mask = [False] * len(ids)
    for turn, message in enumerate(messages):
        if message["role"] == "assistant" and message.get("weight") != 0:
            start, end = _turn(tokenizer, messages, turn, ids)
            mask[start:end] = [True] * (end - start)
    if not any(mask):
        raise NoSupervision(
            text("a conversation has nothing to learn from"),
            expected=text("an assistant message"),
            found=", ".join(message["role"] for message in messages),
        )
    return ids, mask


def _turn(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], turn: int, ids: list[int]
) -> tuple[int, int]:
    """Where the assistant's message number `turn` begins and where its end token has passed."""
    if turn == 0:
        raise DataError(
            text("a conversation begins with the assistant"),
            expected=text("a user or system message first"),
        )
    prompt = render(tokenizer, messages[:turn], add_generation_prompt=True)
    answered = render(tokenizer, messages[: turn + 1], add_generation_prompt=False)
    _check_prefix(tokenizer, prompt, ids, turn)
    _check_prefix(tokenizer, answered, ids, turn)
    end = tokenizer.eos_token_id
    for place in range(len(answered) - 1, len(prompt) - 1, -1):
        if ids[place] == end:
            return len(prompt), place + 1
    return len(prompt), len(answered)


def _check_prefix(
    tokenizer: PreTrainedTokenizerBase, prefix: list[int], ids: list[int], turn: int
) -> None:
    if ids[: len(prefix)] == prefix:
        return
    pairs = zip(prefix, ids, strict=False)
    place = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(prefix), len(ids)))
    raise DataError(
        text("the chat template rewrites what stands before message {number}", number=turn + 1),
        expected=text(
            "the prompt's ids as a true prefix; they differ from token {place} on: {prompt!r}",
            place=place,
            prompt=tokenizer.decode(prefix[place : place + 8]),
        ),
        found=repr(tokenizer.decode(ids[place : place + 8])),
        hint=text("a template that leaves earlier turns and the generation prompt as they were"),
    )
