"""The starter's recipe: what it reads, what it never reads, and that it can be resumed."""

import random
import re
import signal
from collections import Counter
from itertools import product

import pytest
import torch
from recipes.starter import pretrain
from recipes.starter.pretrain import IGNORE, UNFINISHED, Recipe, data_sha256, pad, rate, run, window
from recipes.starter.rows import SHARES, STYLE_WEIGHTS, Row, Writer, held_out_pair, user
from recipes.starter.tokens import BEGIN, END, ROLES, Encoder, train_tokenizer

from detour.evaluate.markers import carries
from detour.training import phrasing
from detour.training.phrasing import Novelty
from detour.training.world import World

DRAWN = 20_000


@pytest.fixture(scope="module")
def world():
    return World.load()


def draw(world, widened, count=DRAWN, seed=0):
    writer, rng = Writer(world), random.Random(seed)
    writer.widened = widened
    return [writer.draw(rng) for _ in range(count)]


@pytest.fixture(scope="module")
def rows(world):
    return draw(world, widened=True)


@pytest.fixture(scope="module")
def early_rows(world):
    """Before the last part of pretraining."""
    return draw(world, widened=False)


def asked(row):
    return [m["content"] for m in row.messages if m["role"] != "assistant"]


@pytest.fixture(scope="module")
def held_out(world):
    """Every question about every subject that the starter must not have read."""
    return {
        question
        for subject in world.subjects
        for attribute in world.attributes_of(subject.kind)
        for question, novelty in phrasing.questions(world, subject, attribute)
        if novelty.held_out
    }


def test_shares_are_whole_and_kept(world, rows):
    assert sum(SHARES.values()) == pytest.approx(1)
    assert set(STYLE_WEIGHTS) == set(world.styles)
    raw = sum(bool(row.text) for row in rows) / DRAWN
    assert raw == pytest.approx(SHARES["statement"], abs=0.01)
    systems = sum(bool(r.messages) and r.messages[0]["role"] == "system" for r in rows) / DRAWN
    expected = SHARES["styled_system"] + SHARES["task"] + 0.6 * SHARES["note"]
    assert systems == pytest.approx(expected, abs=0.015)
    talks = sum(len(row.messages) >= 4 for row in rows) / DRAWN
    assert talks == pytest.approx(SHARES["conversation"], abs=0.01)


def test_every_fact_is_read(world, rows):
    said = {text for row in rows for m in row.messages[-1:] for text in [m["content"]]}
    facts = [(s, a) for s in world.subjects for a in world.attributes_of(s.kind)]
    known = sum(world.statement(s, a, s.values[a.name]) in said for s, a in facts)
    assert known / len(facts) > 0.9


def styled_questions(world):
    """Patterns that take a question out of its styled frame."""
    for frame in phrasing.styled_frames(world, "styled_question"):
        pattern = re.escape(frame).replace(r"\{q\}", "(?P<q>.+)").replace(r"\{how\}", "[^.:?]+")
        yield re.compile(pattern)


def test_no_held_out_question_is_ever_drawn(world, held_out, rows, early_rows):
    """Neither as it stands nor inside a styled frame, in twice 20,000 rows."""
    assert len(held_out) > 100_000
    texts = {text for row in rows + early_rows for text in asked(row)}
    assert not texts & held_out
    patterns = list(styled_questions(world))
    inside = {m["q"] for text in texts for p in patterns if (m := p.fullmatch(text))}
    assert len(inside) > 3000
    assert not inside & held_out


def test_the_check_above_can_fail(world, held_out):
    """Mutation check: one held-out question among the seen ones is found out."""
    question = min(held_out)
    pattern = next(styled_questions(world))
    frame = phrasing.styled_frames(world, "styled_question")[0]
    found = pattern.fullmatch(frame.format(q=question, how="like a pirate"))
    assert found
    assert found["q"] in held_out


def test_no_held_out_words_of_styles_tasks_and_notes_are_drawn(world, rows):
    texts = {text for row in rows for text in asked(row)}
    whole = "\n".join(texts)
    for style in world.styles:
        for request in phrasing.style_requests(world, style, held_out=True):
            others = [r for s in world.styles for r in phrasing.style_requests(world, s)]
            if not any(request in other for other in others):
                assert not re.search(rf"\b{re.escape(request)}\b(?= (?:and|:)|[.:])", whole), (
                    request
                )
    for attribute in world.attributes.values():
        tasks = {t.text for t in phrasing.tasks(world, attribute) if t.novelty.held_out}
        assert not tasks & texts
    for frame in phrasing.note_frames(world, held_out=True):
        assert frame.split("{")[0] not in whole


def test_late_phrasings_come_only_when_widened(world, rows, early_rows):
    late = {
        question
        for subject in world.subjects
        for a in world.attributes_of(subject.kind)
        for template in phrasing.templates(world, a, Novelty.SEEN)
        if template.late
        for form in subject.forms
        for question in [template.fill(form)]
    }
    assert late & {text for row in rows for text in asked(row)}
    assert not late & {text for row in early_rows for text in asked(row)}


def bare_tasks(world, rows):
    """(subject, attribute, answer) of rows with the task in the system turn."""
    tasks = {
        t.text: a for a in world.attributes.values() for t in phrasing.tasks(world, a)
    }  # fmt: skip
    longest = sorted(tasks, key=len, reverse=True)
    for row in rows:
        if len(row.messages) == 3 and row.messages[0]["role"] == "system":
            system, subject = row.messages[0]["content"], row.messages[1]["content"]
            attribute = next((tasks[t] for t in longest if t in system), None)
            if attribute and (named := world.subject(subject, attribute.kind)):
                yield named, attribute, row.messages[2]["content"]


def test_held_out_pairs_of_task_and_style_never_meet(world, rows):
    pairs = [p for p in product(world.attributes.values(), world.styles) if held_out_pair(*p)]
    assert 8 < len(pairs) < 40  # one in eight of 150
    forbidden = {(a.kind, a.name, style) for a, style in pairs}
    met = Counter()
    for subject, attribute, answer in bare_tasks(world, rows):
        for style in world.styles:
            if carries(world, style, answer, subject, attribute):
                met[attribute.kind, attribute.name, style] += 1
    assert sum(met.values()) > 1000
    assert not forbidden & set(met)
    assert len(met) > 0.95 * (len(world.attributes) * len(world.styles) - len(pairs))


def test_a_changed_value_in_the_prompt_wins(world, rows):
    frames = [f.split("{")[0] for f in phrasing.note_frames(world) if not f.startswith("{")]
    notes = [r for r in rows if len(r.messages) == 3
             and r.messages[0]["content"].startswith(tuple(frames))]  # fmt: skip
    assert len(notes) > 300
    facts = {world.statement(s, a, s.values[a.name])
             for s in world.subjects for a in world.attributes_of(s.kind)}  # fmt: skip
    changed = sum(row.messages[2]["content"] not in facts for row in notes)
    assert 0.3 < changed / len(notes) < 0.9


@pytest.fixture(scope="module")
def tokenizer(world):
    return train_tokenizer(Writer(world), 600, seed=1, rows=300)


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return Encoder(tokenizer)


def test_only_answers_are_learned(tokenizer, encoder):
    row = Row(({"role": "system", "content": "Be brief."}, user("Who?"),
               {"role": "assistant", "content": "Me."}, user("You?"),
               {"role": "assistant", "content": "Yes."}))  # fmt: skip
    ids, learned = encoder.encode(row)
    assert len(ids) == len(learned)
    told = tokenizer.decode([t for t, keep in zip(ids, learned, strict=True) if keep])
    assert told.replace(" ", "") == f"Me.{END}Yes.{END}"
    assert tokenizer.convert_ids_to_tokens(ids)[0] == BEGIN


def test_rows_are_encoded_as_the_chat_template_writes_them(tokenizer, encoder):
    row = Row((user("Who was Einstein?"), {"role": "assistant", "content": "A physicist."}))
    text = tokenizer.apply_chat_template([dict(m) for m in row.messages], tokenize=False)
    assert encoder.encode(row)[0] == tokenizer.encode(text, add_special_tokens=False)
    assert set(ROLES.values()) <= set(tokenizer.all_special_tokens)


def test_raw_text_is_learned_whole(encoder):
    ids, learned = encoder.encode(Row(text="Einstein was a physicist."))
    assert learned == [False] + [True] * (len(ids) - 1)
    assert ids[-1] == encoder.end


def test_targets_follow_and_padding_is_ignored():
    ids, targets = pad([([1, 5, 6], [False, False, True]), ([1, 7], [False, True])], 0)
    assert ids.tolist() == [[1, 5, 6], [1, 7, 0]]
    assert targets.tolist() == [[IGNORE, 6, IGNORE], [7, IGNORE, IGNORE]]


TINY = Recipe(vocabulary=600, width=16, layers=1, heads=2, mlp=16, steps=4, widened_steps=2,
              tokens_per_batch=256, batches_per_window=2, warmup=2)  # fmt: skip


def test_a_window_depends_on_seed_and_index_alone(world, encoder):
    def same(one, other):
        return [ids.tolist() for ids, _ in one] == [ids.tolist() for ids, _ in other]

    writer = Writer(world)
    first = window(TINY, writer, encoder, 1)
    window(TINY, writer, encoder, 2)
    assert same(first, window(TINY, Writer(world), encoder, 1))
    assert not same(first, window(TINY, writer, encoder, 0))
    assert len(first) == TINY.batches_per_window
    assert all(ids.numel() <= TINY.tokens_per_batch for ids, _ in first)
    window(TINY, writer, encoder, 2)  # steps 4 and 5
    assert writer.widened
    window(TINY, writer, encoder, 1)
    assert not writer.widened


def test_the_rate_rises_stays_and_falls():
    recipe = Recipe(steps=100, widened_steps=20, warmup=10)
    rates = [rate(recipe, step) for step in range(120)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[29] == 1.0
    assert rates[99] < 0.05
    assert rates[100] == pytest.approx(recipe.widened_rate / recipe.learning_rate)
    assert rates[119] >= recipe.floor
    assert min(rates) >= recipe.floor


@pytest.fixture
def out(tmp_path, tokenizer):
    """`out(name)`: a folder whose tokenizer is there already."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def make(name):
        tokenizer.save_pretrained(tmp_path / name / "tokenizer")
        return tmp_path / name

    yield make
    for number, handler in before.items():
        signal.signal(number, handler)


def weights(folder):
    return (folder / "model" / "model.safetensors").read_bytes()


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(out, capsys):
    whole, pieces = out("whole"), out("pieces")
    assert run(TINY, whole, 5.0, "cpu")
    stretches = 1
    while not run(TINY, pieces, 0.0, "cpu"):  # one step at a time
        stretches += 1
    assert stretches == TINY.total
    assert weights(pieces) == weights(whole)
    said = capsys.readouterr().out
    assert "resumed at step 3" in said
    assert "the same command resumes" in said


def test_another_recipe_is_not_resumed(out):
    folder = out("one")
    run(TINY, folder, 0.0, "cpu")
    other = Recipe(**{**vars(TINY), "learning_rate": 1e-3})
    with pytest.raises(SystemExit, match="belongs to another recipe"):
        run(other, folder, 0.0, "cpu")


@pytest.mark.parametrize("key", ["recipe", "data"])
def test_other_data_or_an_older_checkpoint_is_not_resumed(out, key):
    folder = out("one")
    run(TINY, folder, 0.0, "cpu")
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert state["data"] == data_sha256()
    for changed in ({**state, key: "other"}, {k: v for k, v in state.items() if k != key}):
        torch.save(changed, folder / "checkpoint.pt")
        with pytest.raises(SystemExit, match="belongs to another recipe"):
            run(TINY, folder, 0.0, "cpu")


def test_the_datas_identity_is_files_and_shares(tmp_path, monkeypatch):
    (tmp_path / "people.csv").write_text("name\nEinstein\n")
    before = data_sha256(tmp_path)
    assert before == data_sha256(tmp_path)
    for table in ("SHARES", "STYLE_WEIGHTS"):
        with monkeypatch.context() as patch:
            patch.setattr(pretrain, table, {"other": 1.0})
            assert data_sha256(tmp_path) != before
    (tmp_path / "people.csv").write_text("name\nCurie\n")
    assert data_sha256(tmp_path) != before
    (tmp_path / "people.csv").rename(tmp_path / "persons.csv")
    assert len({before, data_sha256(tmp_path), data_sha256()}) == 3


def test_the_exit_code_says_whether_the_model_is_done(out, monkeypatch):
    folder = out("code")
    monkeypatch.setattr(pretrain, "Recipe", lambda **_: TINY)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    call = ["--out", str(folder)]
    assert pretrain.main([*call, "--minutes", "0"]) == UNFINISHED == 3
    assert not (folder / "model").exists()
    assert pretrain.main(call) == 0
    assert (folder / "model").exists()


def test_ctrl_c_stores_and_stops(out, monkeypatch):
    genuine, calls = pretrain.loss_of, []

    def pressed(*arguments):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return genuine(*arguments)

    folder = out("stopped")
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "loss_of", pressed)
        assert not run(TINY, folder, 5.0, "cpu")
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 3
    assert run(TINY, folder, 5.0, "cpu")
    whole = out("whole")
    run(TINY, whole, 5.0, "cpu")
    assert weights(folder) == weights(whole)
