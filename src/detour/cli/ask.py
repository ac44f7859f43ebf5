"""`detour ask`: questions to a base with a chain; without a question, a chat.

Several questions are the turns of one conversation. Knows options and output; the conversation
itself is `conversation`'s business.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from detour.cli.ask_head import check_options, has_head, sole_head, tell
from detour.cli.options import (
    chain_option,
    check_text,
    json_option,
    load_base,
    model_options,
    parse_chain,
    sampling_options,
    system_option,
)
from detour.cli.output import is_conversation, is_terminal, print_json, say
from detour.errors import RequestError
from detour.language.catalogue import text

if TYPE_CHECKING:
    from detour.cli.conversation import Conversation, Turn
    from detour.decoding.request import SamplingOptions


@click.command("ask")
@click.argument("questions", metavar="[QUESTION]...", nargs=-1)
@chain_option
@click.option("--compare", is_flag=True, help="Show the base's own answer beside it.")
@system_option
@model_options
@sampling_options
@json_option
def command(
    questions: tuple[str, ...],
    chain_text: str | None,
    compare: bool,
    system: str | None,
    base_name: str,
    device: str | None,
    dtype: str | None,
    quantize: str | None,
    max_tokens: int | None,
    temperature: float,
    seed: int,
    as_json: bool,
) -> None:
    """Ask a model, with or without a chain of adapters.

    Several QUESTIONs are the turns of one conversation. Without one, a chat begins in a terminal;
    elsewhere the question is read from stdin. With an adapter that was trained on classes or
    numbers each QUESTION is a text of its own, and gets its class or number.
    """
    asked = _questions(questions, as_json)
    if system is not None:
        check_text(system, "--system")
    chain = parse_chain(chain_text)
    if has_head(chain):
        check_options(compare=compare, system=system is not None, quantize=quantize is not None)
        if not asked:
            raise RequestError(text("there is no text"), expected='detour ask "…" --chain …')
        from detour.model.headed import HeadedBase

        headed = HeadedBase.for_adapter(sole_head(chain), base_name, dtype=dtype, device=device)
        tell(headed, asked, chain, as_json)
        return
    base = load_base(base_name, device, dtype, quantize)
    from detour.cli.conversation import Conversation, chat, show, tell_doubts
    from detour.model.acting import check_acts

    sampling = _sampling(max_tokens, temperature, seed)
    conversation = Conversation(base, sampling, base.bind(chain), system, compare)
    check_acts(base, chain)
    tell_doubts(base, chain)
    if as_json:
        print_json(_answers(conversation, asked))
    elif not asked:
        chat(conversation, _read_line)
    else:
        for question in asked:
            if len(asked) > 1:
                say(f"> {question}")
            show(conversation, question)


def _questions(given: tuple[str, ...], as_json: bool) -> list[str]:
    """The questions; an empty list asks for a chat."""
    if given:
        return [check_text(question, text("the question")) for question in given]
    if is_conversation() and not as_json:
        return []
    if is_terminal(sys.stdin):
        raise RequestError(
            text("there is no question"),
            expected='detour ask "…"',
            hint=text("a chat needs a terminal"),
        )
    return [check_text(sys.stdin.read().strip(), text("the question on stdin"))]


def _sampling(max_tokens: int | None, temperature: float, seed: int) -> SamplingOptions:
    options: SamplingOptions = {"temperature": temperature, "seed": seed}
    if max_tokens is not None:
        options["max_new_tokens"] = max_tokens
    return options


def _read_line() -> str:
    import_module("readline")  # gives input() arrow keys and a history
    return input("> ")


def _answers(conversation: Conversation, questions: list[str]) -> dict[str, Any]:
    turns = [conversation.ask(question) for question in questions]
    report: dict[str, Any] = {
        **_answer(turns[-1]),
        "base": conversation.base.name,
        "chain": conversation.chain.text or None,
        "tokens": sum(turn.tokens for turn in turns),
        "seconds": sum(turn.seconds for turn in turns),
    }
    if len(turns) > 1:
        report["turns"] = [{"question": turn.question, **_answer(turn)} for turn in turns]
    return report


def _answer(turn: Turn) -> dict[str, str]:
    compared = {} if turn.base_answer is None else {"base_answer": turn.base_answer}
    return {"answer": turn.answer, **compared}
