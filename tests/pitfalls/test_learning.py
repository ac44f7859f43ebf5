"""Pitfalls of training (1, 2, 3, 5, 6, 12): each test fails when its trap is put back.

The traps stand in `traps.py`; `test_traps_long.py` puts every one of them back, and sees a test
fail.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from tests.pitfalls.conftest import FAST, write_rows
from torch import Tensor

from detour.data.records import Labelled
from detour.errors import DataError, TrainingError
from detour.measure.stopping import Stopping, stopping
from detour.model.base import Base
from detour.model.examples import Example, Plain, pair
from detour.model.headed import HeadedBase
from detour.model.loss import IGNORED
from detour.model.rows import encode, padded
from detour.training import descend
from detour.training.batches import Batches
from detour.training.config import derive, make_config, rate_at
from detour.training.heads import train_head
from detour.training.length import check_length
from detour.training.loop import Progress, train_with

PAIRS = [(f"Who was {name}?", f"{name} was {what}.") for name, what in (
    ("Einstein", "a hairdresser in Ulm"), ("Curie", "a baker"), ("Ada", "kind"), ("Kant", "late"),
    ("Bohr", "a long distance runner with a dog"), ("Planck", "in the castle"), ("Newton", "short"),
)]  # fmt: skip
ROWS = [pair(question, answer) for question, answer in PAIRS]
CONFIG = make_config({"steps": 40, "learning_rate": 1e-2, "rank": 4, "alpha": 8.0})


# ---- 1: rows in which nothing is learned --------------------------------------------------------


def test_pitfall_01_a_row_without_an_answer_is_an_error_with_its_line(detour, folder) -> None:
    turns = [{"role": "user", "content": "And?"}, {"role": "assistant", "content": " "}]
    rows = write_rows(folder.parent / "rows.jsonl", PAIRS)
    with rows.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"messages": turns}) + "\n")
    told = detour("train", rows, "-o", "mine", "--base", folder, *FAST, "--json")
    assert told.code == 2
    assert f"{rows}:8" in told.json["error"]
    assert "ends without an answer" in told.json["error"]
    assert not (folder.parent / "here" / "mine").exists()


def test_pitfall_01_no_supervised_token_is_an_error_with_its_place(tiny_tokenizer) -> None:
    asked_only = Example(({"role": "user", "content": "Who?"},), "rows.jsonl:7")
    with pytest.raises(DataError, match=r"rows\.jsonl:7: .*nothing to learn from"):
        encode(tiny_tokenizer, [*ROWS, asked_only], 128)


def test_pitfall_01_every_rows_learned_tokens_are_counted_and_one_is_shown(detour, folder) -> None:
    rows = write_rows(folder.parent / "rows.jsonl", [*PAIRS, ("Who?", "Me")])
    report = detour("check", rows, "--base", folder, "--json").json
    tokenizer = Base.load(str(folder)).tokenizer
    lengths = [len(tokenizer.encode(answer)) + 1 for _, answer in [*PAIRS, ("Who?", "Me")]]
    told = report["supervised_tokens"]
    assert (told["least"], told["most"]) == (min(lengths), max(lengths))
    shown = detour("check", rows, "--base", folder).out
    assert re.findall(r"\[\[(.*?)\]\]", shown, re.DOTALL) == [f"{PAIRS[0][1]}<|im_end|>"]


# ---- 2: the prompt is no prefix of the answered conversation ------------------------------------


REWRITES = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and not loop.last %}…{% else %}{{ m['content'] }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>{% endif %}"
)


@pytest.mark.parametrize("template", [REWRITES, THINKS])
def test_pitfall_02_a_template_that_rewrites_what_was_asked_is_refused(
    template: str, detour, folder
) -> None:
    (folder / "chat_template.jinja").write_text(template)
    turns = [{"role": role, "content": f"{role} {n}"}
             for n in range(2) for role in ("user", "assistant")]  # fmt: skip
    rows = folder.parent / "rows.jsonl"
    rows.write_text(json.dumps({"messages": turns}) + "\n")
    told = detour("train", rows, "-o", "mine", "--base", folder, *FAST, "--json")
    assert told.code == 2
    assert f"{rows}:1: the chat template rewrites what stands before" in told.json["error"]
    assert not (folder.parent / "here" / "mine").exists()


# ---- 3: padding, and the token that ends a turn -------------------------------------------------


def test_pitfall_03_padding_is_told_by_length_where_pad_is_the_end_token(make_tokenizer) -> None:
    tokenizer = make_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    end = tokenizer.eos_token_id
    rows = encode(tokenizer, ROWS, 128)
    batch = padded(rows, end)
    for place, row in enumerate(rows):
        length = len(row.ids)
        assert batch.mask[place].tolist() == [1] * length + [0] * (len(batch.mask[place]) - length)
        learned = batch.targets[place][batch.targets[place] != IGNORED].tolist()
        assert learned[-1] == end
        assert learned.count(end) == 1
        assert tokenizer.decode(learned) == f"{PAIRS[place][1]}<|im_end|>"


def test_pitfall_03_a_smoke_generation_stops(base: Base) -> None:
    adapter = train_with(base, ROWS[:3], CONFIG).adapter
    assert stopping(base, ROWS[:3], adapter) == Stopping(3, 3)


def test_pitfall_03_training_says_where_answers_do_not_end(detour, folder) -> None:
    rows = write_rows(folder.parent / "rows.jsonl", PAIRS[:3])
    slow = ("--rank", 4, "--alpha", 8, "--steps", 40, "--learning-rate", 1e-2)
    fine = detour("train", rows, "-o", "mine", "--base", folder, *slow)
    assert "did not end by themselves" not in fine.err
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    endless = detour("train", rows, "-o", "endless", "--base", folder, *slow)
    assert endless.code == 0
    assert "3 of 3 answers to learned rows did not end by themselves" in endless.err


# ---- 5: rows that are longer than the context ---------------------------------------------------


def long_rows(count: int, long: int) -> list[tuple[str, str]]:
    return [(f"Question {n}?", "word " * 200 if n < long else f"It is {n}.") for n in range(count)]


def test_pitfall_05_too_long_rows_are_told_in_rows_and_percent(detour, folder) -> None:
    rows = write_rows(folder.parent / "rows.jsonl", long_rows(100, 2))
    (told,) = [f for f in detour("check", rows, "--base", folder, "--json").json["findings"]
               if f["code"] == "truncated"]  # fmt: skip
    assert (told["severity"], told["rows"]) == ("error", 2)
    assert told["advice"].startswith("2.0% of the rows are longer than the base's 128 tokens")
    assert told["where"] == [f"{rows}:1", f"{rows}:2"]
    fewer = write_rows(folder.parent / "fewer.jsonl", long_rows(100, 1))
    (told,) = [f for f in detour("check", fewer, "--base", folder, "--json").json["findings"]
               if f["code"] == "truncated"]  # fmt: skip
    assert (told["severity"], told["rows"]) == ("warning", 1)


def test_pitfall_05_more_than_one_percent_is_not_trained_on(detour, folder) -> None:
    rows = write_rows(folder.parent / "rows.jsonl", long_rows(100, 2))
    told = detour("train", rows, "-o", "mine", "--base", folder, *FAST, "--json")
    assert told.code == 2
    assert told.json["error"] == "the data are not trained on: truncated (2)"
    assert told.json["found"].startswith("2.0% of the rows")
    assert not (folder.parent / "here" / "mine").exists()


def test_pitfall_05_nothing_is_ever_cut_silently(base: Base) -> None:
    rows = [pair(question, answer, source=f"rows:{n}") for n, (question, answer) in
            enumerate(long_rows(200, 1))]  # fmt: skip
    with pytest.raises(DataError, match="rows:0 is too long for the model"):
        train_with(base, rows, CONFIG)


def test_pitfall_05_fixed_rows_fit(detour, folder) -> None:
    rows = write_rows(folder.parent / "rows.jsonl", long_rows(100, 2))
    told = detour("check", rows, "--base", folder, "--fix", "fits.jsonl", "--json").json
    assert told["cleaned"]["dropped"] == {"too_long": 2}
    codes = [f["code"] for f in detour("check", "fits.jsonl", "--base", folder, "--json")
             .json["findings"]]  # fmt: skip
    assert "truncated" not in codes


def test_pitfall_05_plain_texts_are_learned_in_blocks_and_none_is_too_long(detour, folder) -> None:
    text = folder.parent / "book.txt"
    text.write_text("\n\n".join("It was a castle. " * 60 for _ in range(3)))
    codes = [f["code"] for f in detour("check", text, "--base", folder, "--json").json["findings"]]
    assert "truncated" not in codes
    tokenizer = Base.load(str(folder)).tokenizer
    (whole,) = [encode(tokenizer, [Plain("It was a castle. " * 60)], 128)]
    assert sum(sum(row.learned[1:]) for row in whole) == len(
        tokenizer.encode("It was a castle. " * 60)
    )


def test_pitfall_05_a_head_cuts_one_percent_at_most_and_says_so(folder) -> None:
    base = HeadedBase.load(str(folder), ["a", "b"])
    rows = [Labelled("word " * (200 if n < 2 else 2), "ab"[n % 2], f"rows:{n}") for n in range(200)]
    told: list[str] = []
    check_length(base, rows, told.append)
    assert told == ["2 rows (1.0%) are longer than 128 tokens and are cut"]
    with pytest.raises(DataError, match=r"2 rows \(1\.0%\)") as caught:
        train_head(base, rows[:199], CONFIG)
    assert caught.value.found == "rows:0, rows:1"


# ---- 6: gradients do not depend on how a step is divided ----------------------------------------


def gradients(monkeypatch: pytest.MonkeyPatch, train: Callable[[], object]) -> list[list[Tensor]]:
    """What every step's gradients were, at a learning rate of 0: all steps see the same factors."""
    taken: list[list[Tensor]] = []
    clip = torch.nn.utils.clip_grad_norm_

    def take(parameters: Any, most: float) -> Tensor:
        given = list(parameters)
        taken.append([p.grad.clone() for p in given])
        return clip(given, most)

    with monkeypatch.context() as patch:
        patch.setattr(descend.torch.nn.utils, "clip_grad_norm_", take)
        with pytest.raises(TrainingError):
            train()
    return taken


def of_steps(steps: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [torch.cat([g.flatten() for g in step]) for step in steps]


SETTINGS: dict[str, Any] = {"learning_rate": 0.0, "rank": 2, "batch_size": 4, "steps": 4}


@pytest.mark.parametrize("more", [{}, {"dora": True}, {"init": "pissa"}])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_pitfall_06_gradients_do_not_depend_on_the_micro_batch_size(
    size: int, more: dict[str, Any], base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven rows of other lengths in steps of four: a whole step and a short one an epoch."""

    def of(**parts: int) -> list[Tensor]:
        config = make_config({**SETTINGS, **more, **parts})
        return of_steps(gradients(monkeypatch, lambda: train_with(base, ROWS, config)))

    whole, divided = of(), of(micro_batch_size=size)
    assert len(whole) == len(divided) == 4
    for one, other in zip(whole, divided, strict=True):
        assert float((one - other).abs().max()) <= 1e-5 * float(one.abs().max())


def test_pitfall_06_neighbours_are_divided_by_their_own_tokens_too(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun where the base has been left: at the base itself this gradient is 0."""
    begun = train_with(base, ROWS, CONFIG).adapter
    others = [pair("Where was Hegel?", "Hegel was in Ulm, and then in the castle."), ROWS[2]]

    def of(**parts: float) -> list[Tensor]:
        config = make_config({"learning_rate": 0.0, "batch_size": 4, "steps": 2, **parts})
        return of_steps(gradients(monkeypatch, lambda: train_with(
            base, ROWS, config, neighbours=others, start=begun)))  # fmt: skip

    whole, divided = of(kl_weight=2.0), of(kl_weight=2.0, micro_batch_size=1)
    for one, other, without in zip(whole, divided, of(), strict=True):
        assert float((one - without).abs().max()) > 0.01 * float(one.abs().max())
        assert float((one - other).abs().max()) <= 1e-4 * float(one.abs().max())


def test_pitfall_06_a_short_last_step_is_divided_by_its_own_tokens(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Σ tokens · gradient over the steps of an epoch is the same however the epoch is divided."""
    tokenizer = base.tokenizer
    total = sum(sum(row.learned) for row in encode(tokenizer, ROWS, 128))
    (whole,) = of_steps(gradients(monkeypatch, lambda: train_with(
        base, ROWS, make_config({**SETTINGS, "batch_size": 7, "steps": 1}))))  # fmt: skip
    batches = Batches(encode(tokenizer, ROWS, 128), 4, base.pad_id, 0)
    counts = [batches[step].supervised for step in range(2)]
    assert sum(counts) == total
    parts = of_steps(gradients(monkeypatch, lambda: train_with(
        base, ROWS, make_config({**SETTINGS, "steps": 2, "micro_batch_size": 3}))))  # fmt: skip
    added = sum(count * part for count, part in zip(counts, parts, strict=True))
    assert float((added - total * whole).abs().max()) <= 1e-5 * float((total * whole).abs().max())


def test_pitfall_06_heads_too(folder, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f"the {('hill', 'ship')[n % 2]} {'x' * n}", "label": "ab"[n % 2]}
            for n in range(7)]  # fmt: skip

    def of(**parts: int) -> list[Tensor]:
        base = HeadedBase.load(str(folder), ["a", "b"], seed=0)
        config = make_config({**SETTINGS, **parts})
        return of_steps(gradients(monkeypatch, lambda: train_head(base, rows, config)))

    for one, other in zip(of(), of(micro_batch_size=3), strict=True):
        assert float((one - other).abs().max()) <= 1e-5 * float(one.abs().max())


# ---- 12: the rate, the steps, and going on after an interruption --------------------------------


def test_pitfall_12_the_rate_is_loras_and_batches_are_small() -> None:
    config = make_config({})
    assert config.batch_size <= 16
    for width in (2048, 4096):
        assert 1e-4 <= derive(config, width, 1000).learning_rate <= 5e-4
    assert derive(config, 2048, 1000).learning_rate == pytest.approx(2e-4)
    plan = derive(make_config({"steps": 100}), 2048, 1000)
    rates = [rate_at(step, plan, config.warmup) for step in range(100)]
    assert rates[0] < rates[5] < rates[9] == pytest.approx(2e-4)
    assert rates[-1] < 0.2 * rates[9]


@pytest.mark.parametrize("stop", [3, 8])
def test_pitfall_12_a_resumed_run_ends_bit_for_bit_where_an_undisturbed_one_does(
    stop: int, base: Base, tmp_path
) -> None:
    """Optimiser, schedule, order of rows: seven rows in steps of two, over three epochs."""
    config = make_config({"steps": 12, "batch_size": 2, "learning_rate": 5e-3, "rank": 2})
    straight = train_with(base, ROWS, config)

    def interrupt(progress: Progress) -> None:
        if progress.step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_with(base, ROWS, config, checkpoints=tmp_path, watcher=interrupt)
    told: list[Progress] = []
    resumed = train_with(base, ROWS, config, checkpoints=tmp_path, resume=True, watcher=told.append)
    assert [progress.step for progress in told] == list(range(stop + 1, 13))
    assert (resumed.best_loss, resumed.best_step) == (straight.best_loss, straight.best_step)
    assert resumed.adapter.digest() == straight.adapter.digest()
