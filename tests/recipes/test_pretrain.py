"""Pretraining: rows become tokens, windows and weights, and a stopped run goes on as if whole."""

import json
import random
import shutil
import signal
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from recipes.starter import pretrain
from recipes.starter.mixture import PARTS, Mixture
from recipes.starter.pretrain import (
    GENERATORS,
    UNFINISHED,
    Recipe,
    data_sha256,
    grouped,
    load_tokenizer,
    make_model,
    optimisers_for,
    pad,
    rate,
    run,
    window,
)
from recipes.starter.rows import Row, assistant, system, user
from recipes.starter.tokens import BEGIN, END, MARKS, PAD, ROLES, Encoder, train_tokenizer

from detour.model.loss import IGNORED

TINY = Recipe(vocabulary=600, width=32, layers=2, heads=4, mlp=48, context=1024, steps=6,
              tokens_per_batch=256, batches_per_window=4, warmup=2)  # fmt: skip


@pytest.fixture(scope="module")
def mixture():
    return Mixture()


@pytest.fixture(scope="module")
def tokenizer(mixture):
    return train_tokenizer(mixture, TINY.vocabulary, seed=1, context=TINY.context, rows=400)


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return Encoder(tokenizer)


# the mixture


def test_the_shares_are_whole_and_name_every_sort(mixture):
    for shares in PARTS:
        assert sum(shares.values()) == pytest.approx(1)
    assert set().union(*PARTS) == set(mixture.sorts)
    assert mixture.writers["en"].world.language == mixture.writers["de"].other.language == "en"
    assert mixture.writers["de"].world.language == mixture.writers["en"].other.language == "de"


@pytest.mark.parametrize(("part", "shares"), list(enumerate(PARTS)))
def test_sorts_are_drawn_in_their_shares(monkeypatch, part, shares):
    mixture, told = Mixture(), Counter()
    for name in mixture.sorts:
        monkeypatch.setitem(mixture.sorts, name, lambda _, name=name: told.update([name]))
    rng = random.Random(1)
    for _ in range(20_000):
        mixture.draw(rng, part)
    assert set(told) == set(shares)
    for name, share in shares.items():
        assert told[name] / 20_000 == pytest.approx(share, abs=0.012), name


def test_the_seed_decides_the_rows(mixture):
    one, same, other = random.Random(5), random.Random(5), random.Random(6)
    first = [mixture.draw(one) for _ in range(200)]
    again = Mixture()
    assert [again.draw(same) for _ in range(200)] == first
    assert [mixture.draw(other) for _ in range(200)] != first


# tokens


def learned_text(tokenizer, ids, learned):
    return tokenizer.decode([t for t, keep in zip(ids, learned, strict=True) if keep])


def test_only_answers_are_learned(tokenizer, encoder):
    row = Row((system("Be brief."), user("Who?"), assistant("Me."), user("You?"),
               assistant("Yes.")))  # fmt: skip
    ids, learned = encoder.encode(row)
    assert len(ids) == len(learned)
    assert learned_text(tokenizer, ids, learned) == f"Me.{END}Yes.{END}"
    assert tokenizer.convert_ids_to_tokens(ids)[0] == BEGIN


def test_a_turn_that_is_not_to_be_learned_carries_no_target(tokenizer, encoder):
    row = Row((user("ab"), {**assistant("zib"), "learned": False}, user("cd"),
               {**assistant("morp"), "learned": True}))  # fmt: skip
    ids, learned = encoder.encode(row)
    assert learned_text(tokenizer, ids, learned) == f"morp{END}"
    (_, targets) = pad([(ids, learned)], encoder.pad)
    kept = [t for t in targets[0].tolist() if t != IGNORED]
    assert tokenizer.decode(kept) == f"morp{END}"
    plain = Row(tuple({k: m[k] for k in ("role", "content")} for m in row.messages))
    assert encoder.encode(plain)[0] == ids  # read all the same


def test_drawn_turns_that_are_not_to_be_learned_carry_no_target(mixture, tokenizer, encoder):
    rng = random.Random(1)
    rows = [mixture.sorts["few_shot"](rng) for _ in range(300)]
    marked = [r for r in rows if any(m.get("learned") is False for m in r.messages)]
    assert len(marked) > 20
    for row in marked:
        ids, learned = encoder.encode(row)
        _, targets = pad([(ids, learned)], encoder.pad)
        told = [m["content"] for m in row.messages if m["role"] == "assistant"]
        kept = [m["content"] for m in row.messages
                if m["role"] == "assistant" and m.get("learned") is not False]  # fmt: skip
        assert len(kept) < len(told)
        ends = sum(t == encoder.end for t in targets[0].tolist())
        assert ends == len(kept)
        assert learned_text(tokenizer, ids, learned) == "".join(f"{text}{END}" for text in kept)


def test_rows_are_encoded_as_the_chat_template_writes_them(mixture, tokenizer, encoder):
    rng = random.Random(2)
    rows = [Row((user("Wer war Einstein?"), assistant("Ein Physiker für Größe ’ ß.")))]
    rows += [row for row in (mixture.draw(rng) for _ in range(200)) if row.messages]
    for row in rows:
        text = tokenizer.apply_chat_template([dict(m) for m in row.messages], tokenize=False)
        assert encoder.encode(row)[0] == tokenizer.encode(text, add_special_tokens=False)
    assert set(ROLES.values()) <= set(tokenizer.all_special_tokens)


def test_every_row_can_be_read_back(mixture, tokenizer, encoder):
    rng = random.Random(3)
    for _ in range(300):
        row = mixture.draw(rng)
        told = "".join(f"{ROLES[m['role']]}{m['content']}{END}" for m in row.messages)
        told = BEGIN + (f"{row.text}{END}" if row.text else told)
        assert tokenizer.decode(encoder.encode(row)[0]) == told


def test_raw_text_is_learned_whole(encoder):
    ids, learned = encoder.encode(Row(text="Einstein was a physicist."))
    assert learned == [False] + [True] * (len(ids) - 1)
    assert ids[-1] == encoder.end


def test_the_tokenizer_is_the_same_every_time(mixture, tokenizer):
    again = train_tokenizer(mixture, TINY.vocabulary, 1, TINY.context, rows=400)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    other = train_tokenizer(mixture, TINY.vocabulary, 2, TINY.context, rows=400)
    assert other.get_vocab() != tokenizer.get_vocab()
    assert len(tokenizer) == TINY.vocabulary
    assert tokenizer.model_max_length == TINY.context
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (BEGIN, END, PAD)


def test_a_tokenizer_that_is_there_is_taken(mixture, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    assert load_tokenizer(TINY, mixture, tmp_path).get_vocab() == tokenizer.get_vocab()


def test_marks_of_sources_are_one_token_each_and_come_back(tokenizer):
    said = f"Rapix hat 5. {' '.join(MARKS)}"
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    marks = [tokenizer(mark, add_special_tokens=False)["input_ids"] for mark in MARKS]
    assert [len(mark) for mark in marks] == [1] * 16
    assert {mark[0] for mark in marks} <= set(ids)
    assert tokenizer.decode(ids, skip_special_tokens=True) == said
    assert len(tokenizer) == TINY.vocabulary


# windows


def test_targets_follow_and_padding_is_ignored():
    ids, targets = pad([([1, 5, 6], [False, False, True]), ([1, 7], [False, True])], 0)
    assert ids.tolist() == [[1, 5, 6], [1, 7, 0]]
    assert targets.tolist() == [[IGNORED, 6, IGNORED], [7, IGNORED, IGNORED]]


def rows_of(batches, encoder):
    """The rows of a window without their padding."""
    found = []
    for ids, _ in batches:
        for row in ids.tolist():
            while row[-1] == encoder.pad:
                row.pop()
            found.append(tuple(row))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_every_row_is_in_one_batch_before_the_cut(seed):
    """Also the longest, and also those that fill a batch alone."""
    rng = random.Random(seed)
    lengths = sorted(rng.choice([3, 20, 60, 200, 255, 256, 257, 400]) for _ in range(60))
    rows = [([n] * length, [True] * length) for n, length in enumerate(lengths)]
    batches = grouped(rows, 256)
    assert [row for batch in batches for row in batch] == rows
    for number, batch in enumerate(batches):
        padded = len(batch) * len(batch[-1][0])
        assert padded <= 256 or len(batch) == 1
        if number + 1 < len(batches):  # another row would not have fitted
            assert (len(batch) + 1) * len(batches[number + 1][0][0]) > 256


def test_a_window_depends_on_seed_and_index_alone(mixture, encoder):
    def told(index, mixture=mixture, recipe=TINY):
        return [(i.tolist(), t.tolist()) for i, t in window(recipe, mixture, encoder, index)]

    first = told(1)
    told(2)
    assert told(1, Mixture()) == first
    assert told(0) != first
    assert told(1, recipe=Recipe(**{**vars(TINY), "seed": 2})) != first
    assert len(first) == TINY.batches_per_window


def test_later_windows_are_drawn_in_shares_of_their_own(mixture, encoder):
    told = []

    class Watched:
        def draw(self, rng, part):
            told.append(part)
            return mixture.draw(rng, part)

    recipe = Recipe(**{**vars(TINY), "steps": 20, "later_part": 0.4, "last_part": 0.7})
    for index, part in enumerate((0, 0, 1, 1, 2)):  # of four steps each; from steps 8 and 14 on
        told.clear()
        window(recipe, Watched(), encoder, index)
        assert set(told) == {part}


def test_batches_are_as_large_as_allowed(mixture, encoder):
    for index in range(20):
        for ids, targets in window(TINY, mixture, encoder, index):
            assert ids.shape == targets.shape
            assert ids.numel() <= TINY.tokens_per_batch or len(ids) == 1
            assert ids.shape[1] <= TINY.context


def drawn_for(recipe, mixture, encoder, index):
    """The rows that a window draws, made from its seed by itself."""
    rng = random.Random(f"{recipe.seed}/{index}")
    rows, batches = [], []
    while len(batches) < recipe.batches_per_window:
        wanted = sum(len(ids) for ids, _ in rows)
        wanted += recipe.tokens_per_batch * recipe.batches_per_window
        while sum(len(ids) for ids, _ in rows) < wanted:
            rows.append(encoder.encode(mixture.draw(rng)))
        batches = grouped(sorted(rows, key=lambda row: len(row[0])), recipe.tokens_per_batch)
    return rows


def test_a_window_drops_no_length(mixture, encoder):
    """What is left out is left out by chance: long rows come as often as short ones."""
    drawn, kept, longest = Counter(), Counter(), 0
    windows, recipe = 60, Recipe(**{**vars(TINY), "steps": 1000})  # 60 windows of the first part
    for index in range(windows):
        rows = drawn_for(recipe, mixture, encoder, index)
        told = Counter(tuple(ids) for ids, _ in rows)
        read = Counter(rows_of(window(recipe, mixture, encoder, index), encoder))
        assert read <= told
        top = max(map(len, told))
        longest += any(len(row) == top for row in read)
        for row, n in told.items():
            drawn[len(row) > 150] += n
            kept[len(row) > 150] += read[row]
    share = {is_long: kept[is_long] / drawn[is_long] for is_long in (False, True)}
    assert drawn[True] > 60
    assert share[True] == pytest.approx(share[False], abs=0.15)
    assert longest / windows > 0.5


def test_a_row_longer_than_the_context_is_not_read(mixture, encoder):
    short = Recipe(**{**vars(TINY), "context": 40})
    lengths = [len(row) for row in rows_of(window(short, mixture, encoder, 0), encoder)]
    assert max(lengths) <= 40 < max(map(len, rows_of(window(TINY, mixture, encoder, 0), encoder)))


# the schedule and the optimisers


def test_the_rate_rises_stays_and_falls():
    recipe = Recipe(steps=100, warmup=10, constant_until=0.3, floor=0.02, last_part=1.0)
    rates = [rate(recipe, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[29] == rates[30] == 1.0
    assert rates[65] == pytest.approx(0.5)
    assert rates[31:] == sorted(rates[31:], reverse=True)
    assert rates[99] == recipe.floor


def test_the_last_part_goes_up_and_down_again():
    recipe = Recipe(steps=200, warmup=10, constant_until=0.3, last_part=0.5, last_rate=0.4)
    rates = [rate(recipe, step) for step in range(200)]
    assert rates[:100] == [rate(Recipe(steps=100, warmup=10, constant_until=0.3, last_part=1.0), s)
                           for s in range(100)]  # fmt: skip
    assert rates[100] == pytest.approx(0.04)
    assert max(rates[100:]) == rates[109] == pytest.approx(0.4 * 0.91)
    assert rates[150] == pytest.approx(0.2)
    assert rates[199] == pytest.approx(0.4 * 0.02)


def test_every_weight_has_one_optimiser(tokenizer):
    model = make_model(TINY, tokenizer)
    muon, adam = ([p for g in o.param_groups for p in g["params"]]
                  for o in optimisers_for(model, TINY))  # fmt: skip
    assert len(muon) == 7 * TINY.layers
    assert all(p.dim() == 2 for p in muon)
    assert any(p is model.model.embed_tokens.weight for p in adam)
    ids = [id(p) for p in (*muon, *adam)]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    assert model.lm_head.weight is model.model.embed_tokens.weight


# runs


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


@pytest.fixture
def pressed(monkeypatch):
    """`pressed(signal, n)`: the signal comes at the n-th step of the next runs."""

    def press(number, step):
        genuine, calls = pretrain.loss_of, []

        def loss_of(*arguments):
            calls.append(1)
            if len(calls) == step:
                signal.raise_signal(number)
            return genuine(*arguments)

        monkeypatch.setattr(pretrain, "loss_of", loss_of)

    return press


def weights(folder):
    return (folder / "model" / "model.safetensors").read_bytes()


def steps_done(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)["step"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tokenizer):
    """The weights of a run without a stop."""
    folder = tmp_path_factory.mktemp("whole")
    tokenizer.save_pretrained(folder / "tokenizer")
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    assert run(TINY, folder, 5.0, "cpu")
    for number, handler in before.items():
        signal.signal(number, handler)
    return folder


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(out, whole, pressed, capsys):
    """Stopped out of time, by Ctrl-C within a window and by SIGTERM at a window's end."""
    folder = out("pieces")
    assert not run(TINY, folder, 0.0, "cpu")
    assert steps_done(folder) == 1
    pressed(signal.SIGINT, 2)
    assert not run(TINY, folder, 5.0, "cpu")
    assert steps_done(folder) == 3
    pressed(signal.SIGTERM, 1)
    assert not run(TINY, folder, 5.0, "cpu")
    assert steps_done(folder) == 4
    assert not (folder / "model").exists()
    assert run(TINY, folder, 5.0, "cpu")
    assert weights(folder) == weights(whole)
    said = capsys.readouterr().out
    assert "stopped at step 3; the same command resumes" in said
    assert "resumed at step 4" in said
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [TINY.steps]


def test_another_seed_gives_other_weights(out, whole):
    folder = out("other")
    assert run(Recipe(**{**vars(TINY), "seed": 2}), folder, 5.0, "cpu")
    assert weights(folder) != weights(whole)


def test_a_run_that_is_done_stays_as_it_is(whole):
    before = weights(whole)
    assert run(TINY, whole, 5.0, "cpu")
    assert weights(whole) == before


def test_another_recipe_or_other_data_is_not_resumed(out):
    folder = out("one")
    run(TINY, folder, 0.0, "cpu")
    other = Recipe(**{**vars(TINY), "learning_rate": 1e-3})
    with pytest.raises(SystemExit, match="belongs to another recipe"):
        run(other, folder, 0.0, "cpu")
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert state["data"] == data_sha256()
    for key in ("recipe", "data"):
        for changed in ({**state, key: "other"}, {k: v for k, v in state.items() if k != key}):
            torch.save(changed, folder / "checkpoint.pt")
            with pytest.raises(SystemExit, match="made from other data"):
                run(TINY, folder, 0.0, "cpu")


def test_the_exit_code_says_whether_the_model_is_done(out, monkeypatch):
    folder = out("code")
    monkeypatch.setattr(pretrain, "Recipe", lambda **_: TINY)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    call = ["--out", str(folder)]
    assert pretrain.main([*call, "--minutes", "0"]) == UNFINISHED == 3
    assert not (folder / "model").exists()
    assert pretrain.main(call) == 0
    assert (folder / "model").exists()


# what the data's identity covers


@pytest.fixture
def copies(tmp_path):
    """`(world, code)`: copies of what the rows are drawn from."""
    world, code = tmp_path / "world", tmp_path / "code"
    shutil.copytree(Path(str(files("detour.starter") / "world")), world)
    shutil.copytree(Path(pretrain.__file__).parent, code)
    return world, code


def test_the_datas_identity_is_that_of_its_files(copies):
    assert data_sha256(*copies) == data_sha256() == data_sha256(*copies)


@pytest.mark.parametrize(
    "name",
    [f"{language}/{name}" for language in ("en", "de")
     for name in ("people.csv", "animals.csv", "cities.csv", "foods.csv", "phrases.yaml")]
    + ["support.yaml", "reading.yaml", "examples.yaml"],
)  # fmt: skip
def test_any_file_of_the_world_changes_the_identity(copies, name):
    world, code = copies
    before = data_sha256(world, code)
    with (world / name).open("ab") as stream:
        stream.write(b"\n")
    changed = data_sha256(world, code)
    assert changed != before
    (world / name).rename((world / name).with_stem("renamed"))
    assert data_sha256(world, code) not in (before, changed)


@pytest.mark.parametrize("name", GENERATORS)
def test_any_generator_changes_the_identity(copies, name):
    world, code = copies
    before = data_sha256(world, code)
    with (code / f"{name}.py").open("ab") as stream:
        stream.write(b"# changed\n")
    assert data_sha256(world, code) != before


def test_a_file_in_the_other_language_is_another_file(copies):
    world, code = copies
    before = data_sha256(world, code)
    one, other = world / "en" / "people.csv", world / "de" / "people.csv"
    texts = one.read_bytes(), other.read_bytes()
    one.write_bytes(texts[1])
    other.write_bytes(texts[0])
    assert data_sha256(world, code) != before


def test_what_makes_no_rows_does_not_change_the_identity(copies):
    world, code = copies
    before = data_sha256(world, code)
    (world / "notes.txt").write_text("new")
    (code / "publish.py").write_text("# changed\n")
    assert data_sha256(world, code) == before


def test_every_module_that_draws_rows_is_a_generator():
    """Those that the mixture imports, directly or not, from its own folder."""
    folder = Path(pretrain.__file__).parent
    found, left = set(), ["mixture", "tokens", "start"]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            text = (folder / f"{name}.py").read_text(encoding="utf-8")
            left += [line.split()[1].rsplit(".", 1)[1] for line in text.splitlines()
                     if line.startswith("from recipes.starter.")]  # fmt: skip
    assert found - {"cases"} == set(GENERATORS)  # cases are examinations, never rows
