import os
import pty
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from detour.adapter.chain import Chain
from detour.adapter.fingerprint import Fingerprint
from detour.cli import ask, conversation
from detour.cli.conversation import Conversation, chat
from detour.cli.output import plain
from detour.errors import RequestError, WrongBase

QUESTION = "Who was Albert Einstein?"


@pytest.fixture
def talk(tiny_base) -> Callable[..., Conversation]:
    return lambda **more: Conversation(tiny_base, {"max_new_tokens": 6}, **more)


@pytest.fixture
def lines() -> Callable[..., Callable[[], str]]:
    """`lines("a", "b")` types these lines and then ends the input."""

    def typed(*text: str) -> Callable[[], str]:
        rest = iter(text)

        def read() -> str:
            try:
                return next(rest)
            except StopIteration:
                raise EOFError from None

        return read

    return typed


def test_json_says_everything(detour, keep, tiny_folder, tiny_base):
    keep("formal")
    told = detour("ask", QUESTION, "--chain", "formal:0.5", "--base", tiny_folder, "--max-tokens",
                  6, "--json")  # fmt: skip
    assert (told.code, told.err) == (0, "")
    report = told.json
    assert set(report) == {"answer", "base", "chain", "tokens", "seconds"}
    expected = tiny_base.ask(QUESTION, Chain.parse("formal:0.5"), max_new_tokens=6)
    assert report["answer"] == expected != tiny_base.ask(QUESTION, max_new_tokens=6)
    assert (report["base"], report["chain"]) == (str(tiny_folder), "formal:0.5")
    assert report["tokens"] == 6
    assert 0 < report["seconds"] < 60


def test_compare_adds_the_base_alone(detour, keep, tiny_folder, tiny_base):
    keep("formal")
    report = detour("ask", QUESTION, "--chain", "formal", "--base", tiny_folder, "--max-tokens", 6,
                    "--compare", "--json").json  # fmt: skip
    assert report["base_answer"] == tiny_base.ask(QUESTION, max_new_tokens=6)
    assert report["answer"] != report["base_answer"]
    assert report["tokens"] == 12


def test_weight_0_and_no_chain_are_the_base(detour, keep, tiny_folder):
    keep("formal")
    bare = detour("ask", QUESTION, "--base", tiny_folder, "--json").json
    zero = detour("ask", QUESTION, "--chain", "formal:0", "--base", tiny_folder, "--json").json
    assert bare["chain"] is None
    assert bare["answer"] == zero["answer"]


def test_several_questions_are_one_conversation(detour, shelf, tiny_folder, tiny_base):
    report = detour("ask", QUESTION, "Where?", "--base", tiny_folder, "--max-tokens", 6,
                    "--system", "Be brief.", "--json").json  # fmt: skip
    first = tiny_base.ask(QUESTION, system="Be brief.", max_new_tokens=6)
    history = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "Where?"},
    ]
    second = tiny_base.ask(history, system="Be brief.", max_new_tokens=6)
    assert [turn["answer"] for turn in report["turns"]] == [first, second]
    assert report["answer"] == second
    assert second != tiny_base.ask("Where?", system="Be brief.", max_new_tokens=6)
    assert report["tokens"] == 12


def test_people_get_the_answer_alone(detour, shelf, tiny_folder, tiny_base):
    told = detour("ask", QUESTION, "--base", tiny_folder, "--max-tokens", 6)
    assert told.code == 0
    assert told.out.strip("\n") == plain(tiny_base.ask(QUESTION, max_new_tokens=6)).strip("\n")


def test_people_see_both_answers_side_by_side(detour, keep, tiny_folder, monkeypatch):
    keep("formal")
    monkeypatch.setattr(
        Conversation, "_answer", lambda self, history, question, chain: (chain.text or "bare", 1)
    )
    told = detour("ask", "One?", "Two?", "--chain", "formal", "--base", tiny_folder, "--compare")
    lines = [line.split() for line in told.out.splitlines()]
    assert lines == [
        [">", "One?"],
        [str(tiny_folder), "formal"],
        ["bare", "formal"],
        [">", "Two?"],
        [str(tiny_folder), "formal"],
        ["bare", "formal"],
    ]


def test_the_same_seed_gives_the_same_sample(detour, shelf, tiny_folder):
    def answer(seed: int) -> str:
        return detour("ask", QUESTION, "--base", tiny_folder, "--temperature", 1.5, "--seed", seed,
                      "--json").json["answer"]  # fmt: skip

    assert answer(3) == answer(3) != answer(4)


def test_an_answer_takes_what_room_there_is(talk, tiny_base):
    positions = tiny_base.engine.positions
    roomy = Conversation(tiny_base, {})
    turn = roomy.ask("a " * 55)
    used = len(tiny_base.chat("a " * 55))
    assert turn.tokens == min(64, positions - used) < 64
    with pytest.raises(RequestError, match="too long"):
        roomy.ask("and then?")
    assert len(roomy._history) == 2


def test_the_question_may_come_from_stdin(shelf, tiny_folder, detour, monkeypatch):
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{QUESTION}\n"))
    piped = detour("ask", "--base", tiny_folder, "--json").json
    given = detour("ask", QUESTION, "--base", tiny_folder, "--json").json
    assert piped["answer"] == given["answer"]


def test_an_adapter_without_a_fingerprint_is_said_to_be_unverified(detour, keep, tiny_folder):
    keep("foreign", base=None)
    told = detour("ask", QUESTION, "--chain", "foreign", "--base", tiny_folder, "--json")
    assert told.code == 0
    assert told.message.startswith("foreign: unverified")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_dtype_reaches_the_base(dtype, detour, shelf, tiny_folder, monkeypatch):
    loaded = []
    answer = Conversation._answer

    def spy(self, *arguments):
        loaded.append(self.base.dtype)
        return answer(self, *arguments)

    monkeypatch.setattr(Conversation, "_answer", spy)
    told = detour("ask", QUESTION, "--base", tiny_folder, "--dtype", dtype, "--device", "cpu")
    assert (told.code, loaded) == (0, [getattr(torch, dtype)])


def test_streamed_and_whole_answers_are_equal(talk, keep):
    chain = Chain.parse("formal") if keep("formal") else Chain()
    streamed, whole = talk(chain=chain), talk(chain=chain)
    for question in (QUESTION, "Where?"):
        assert "".join(streamed.stream(question)) == whole.ask(question).answer
    assert streamed._history == whole._history


def test_an_interrupted_answer_is_forgotten_and_the_slots_are_free(talk):
    ours = talk()
    stream = ours.stream(QUESTION)
    next(stream)
    stream.close()
    assert ours._history == []
    assert ours.ask(QUESTION).answer


def test_comparing_keeps_two_histories(talk, keep):
    keep("formal")
    both, alone = talk(chain=Chain.parse("formal"), compare=True), talk()
    for question in (QUESTION, "Where?"):
        assert both.ask(question).base_answer == alone.ask(question).answer


def test_a_terminal_gets_the_answer_as_it_comes(talk, capsys, monkeypatch):
    monkeypatch.setattr(conversation, "is_terminal", lambda stream: True)
    ours = talk()
    conversation.show(ours, QUESTION)
    assert capsys.readouterr().out.endswith("\n")
    assert ours._history[0]["content"] == QUESTION


def test_a_chat(talk, keep, lines, capsys, monkeypatch):
    keep("formal")
    asked = []
    monkeypatch.setattr(
        conversation,
        "show",
        lambda ours, question: asked.append((question, ours.chain.text, ours.compare)),
    )
    typed = lines("Who?", "", "/chain formal:0.5", "Who?", "/compare", "Who?", "/chain", "/compare",
                  "Who?", "/quit", "never")  # fmt: skip
    chat(talk(), typed)
    assert asked == [
        ("Who?", "", False),
        ("Who?", "formal:0.5", False),
        ("Who?", "formal:0.5", True),
        ("Who?", "", False),
    ]
    assert "chain: formal:0.5" in capsys.readouterr().err


def test_a_chat_survives_mistakes(talk, lines, capsys, monkeypatch, shelf):
    def show(ours: Conversation, question: str) -> None:
        if question == "stop":
            raise KeyboardInterrupt
        ours._remember(question, "yes", None)

    monkeypatch.setattr(conversation, "show", show)
    ours = talk()
    chat(ours, lines("Who?", "/chain missing", "/chain a:nan", "/dance", "stop", "Who?"))
    told = capsys.readouterr().err
    for part in ("'missing'", "column 3", "'/dance'", "stopped"):
        assert part in told
    assert len(ours._history) == 4
    chat(ours, lines("/reset"))
    assert ours._history == ours._base_history == []


def test_a_chain_for_another_base_does_not_enter_a_chat(talk, keep):
    adapter = keep("formal")
    other = adapter.with_(base=Fingerprint("other", "0" * 64, "1" * 64))
    ours = talk()
    with pytest.raises(WrongBase):
        ours.use(Chain.of(other))
    assert ours.chain == Chain()


def test_a_terminal_without_a_question_begins_a_chat(detour, shelf, tiny_folder, monkeypatch):
    monkeypatch.setattr(ask, "is_conversation", lambda: True)
    typed = iter(["Who?", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    told = detour("ask", "--base", tiny_folder, "--max-tokens", 4)
    assert told.code == 0
    assert told.out
    assert "chatting with" in told.err


def test_a_chat_in_a_real_terminal(shelf, tiny_folder):
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "detour",
        "ask",
        "--base",
        str(tiny_folder),
        "--max-tokens",
        "3",
    ]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True)
    os.close(theirs)
    os.write(ours, b"Who was it?\n/quit\n")
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # Linux says so when the other end is closed
        pass
    assert process.wait(timeout=60) == 0
    assert b"chatting with" in shown
    assert shown.count(b"> ") == 2
    assert b"Traceback" not in shown


@pytest.mark.parametrize("question", ["", "  \n ", "\udcff"])
def test_questions_that_are_none(question, fails, shelf, tiny_folder):
    assert "question" in fails(2, "ask", question, "--base", tiny_folder)["error"]


def test_an_empty_system_message(fails, shelf, tiny_folder):
    assert "--system" in fails(2, "ask", "Who?", "--system", " ", "--base", tiny_folder)["error"]


def test_json_needs_a_question(fails, shelf, monkeypatch):
    monkeypatch.setattr(ask, "is_terminal", lambda stream: True)
    assert "no question" in fails(2, "ask")["error"]


def test_too_many_tokens(fails, shelf, tiny_folder):
    error = fails(2, "ask", "Who?", "--base", tiny_folder, "--max-tokens", 5000)
    assert "128" in error["expected"]


@pytest.mark.parametrize("name", ["nowhere", "./nowhere", "../nowhere"])
def test_a_base_that_is_not_there(name, fails, shelf):
    assert name in fails(2, "ask", "Who?", "--base", name)["error"]


def test_a_base_without_a_tokenizer(fails, shelf, tmp_path, make_model):
    make_model("gpt2").save_pretrained(tmp_path / "bare")
    error = fails(2, "ask", "Who?", "--base", tmp_path / "bare")
    assert "tokenizer" in error["error"]
