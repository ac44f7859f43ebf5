"""How much of a step is in memory at once: decided by an estimate, and again where it was wrong."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from detour.adapter.adapter import Adapter
from detour.errors import BaseError, ConfigError
from detour.model.base import Base
from detour.model.examples import pair
from detour.model.packing import Forward
from detour.model.rows import Batch, Encoded, padded
from detour.training import fit as fitting
from detour.training.config import make_config
from detour.training.estimate.peak_memory import PeakMemory
from detour.training.fit import CAREFUL, Fit, fitted
from detour.training.loop import train_with
from detour.training.whole import train_whole

ROWS = [pair(f"Who was {name}?", f"{name} was a hairdresser.") for name in
        ("Einstein", "Curie", "Newton", "Planck", "Bohr", "Mozart", "Ada", "Goethe")]  # fmt: skip
SETTINGS = {"steps": 6, "batch_size": 4, "learning_rate": 5e-3, "rank": 2, "alpha": 4.0}
CONFIG = make_config(SETTINGS)
LENGTHS = (30, 10, 20, 25, 5, 15, 20, 20)
PLENTY = 10**15


@pytest.fixture
def base(tiny_llama, tiny_tokenizer):
    return Base.from_model(tiny_llama, tiny_tokenizer)


@pytest.fixture
def free(monkeypatch):
    def tell(size: float | None) -> None:
        told = None if size is None else round(size)
        monkeypatch.setattr(fitting, "free_memory", lambda _: told)

    return tell


def need(base: Base, rows: int, again: bool, lengths: Sequence[int] = LENGTHS) -> float:
    return fitting._Need(base, CONFIG, True, False)(lengths, rows, again)


def decided(base: Base, kept: Mapping[str, Any] | None = None, **more: object) -> Fit:
    config = make_config({**SETTINGS, **more})
    return fitted(base, config, LENGTHS, LENGTHS[:2], packs=True, kept=kept)


def test_all_rows_at_once_where_they_fit(base, free):
    free(CAREFUL * need(base, 4, False) + 1)
    found = decided(base)
    assert (found.rows, found.again) == (4, False)
    assert found.told is not None
    assert found.told.startswith("memory: ")
    assert found.told.endswith(" are free")


@pytest.mark.parametrize("rows", [3, 2, 1])
def test_fewer_rows_come_before_computing_layers_again(base, free, rows):
    free(CAREFUL * need(base, rows, False) + 1)
    found = decided(base)
    assert found.rows == {3: 2, 2: 2, 1: 1}[rows]  # of four in parts of like size
    assert not found.again
    assert f"{found.rows} of 4 rows at once" in str(found.told)


def test_layers_are_computed_again_where_not_one_row_fits(base, free):
    free(CAREFUL * need(base, 1, False) - 1)
    found = decided(base)
    assert (found.rows, found.again) == (1, True)
    assert "layers are computed again" in str(found.told)
    assert need(base, 1, True) < need(base, 1, False)


def test_the_longest_rows_are_reckoned_with(base):
    assert need(base, 2, False, (9, 30, 9, 25)) == need(base, 1, False, (55, 1))
    padded = fitting._Need(base, CONFIG, False, False)
    assert padded((9, 30, 9, 25), 2, False) == need(base, 1, False, (60,))


def test_what_is_asked_for_by_hand_stays(base, free):
    free(1)
    assert decided(base, micro_batch_size=3).rows == 3
    assert not decided(base, checkpointing=False).again
    free(PLENTY)
    assert decided(base, checkpointing=True).again
    assert decided(base, micro_batch_size=3).rows == 3


def test_a_loss_of_ones_own_is_of_whole_batches(base, free):
    free(CAREFUL * need(base, 1, False) + 1)
    found = decided(base, objective="some:loss")
    assert (found.rows, found.again) == (4, True)
    assert found.less() is None
    assert found.less_judged() is None


def test_without_figures_of_the_system_nothing_is_decided_or_told(base, free):
    free(None)
    found = decided(base)
    assert (found.rows, found.again, found.judged, found.told) == (4, False, 16, None)


def test_a_full_memory_is_no_unknown_one(base, free):
    free(0)
    found = decided(base)
    assert (found.rows, found.again, found.judged) == (1, True, 1)


def test_a_teams_process_has_its_share_of_the_rows_and_of_the_memory(base, free):
    free(2 * (CAREFUL * need(base, 2, False) + 1))
    team = fitted(base, CONFIG, LENGTHS, LENGTHS, packs=True, processes=2, beside=2)
    assert team.rows == 2
    free(CAREFUL * need(base, 2, False) + 1)
    assert fitted(base, CONFIG, LENGTHS, LENGTHS, packs=True, processes=2, beside=2).rows == 1
    elsewhere = fitted(base, CONFIG, LENGTHS, LENGTHS, packs=True, processes=2)
    assert elsewhere.rows == 2


def test_fewer_rows_judge_at_once_where_they_do_not_fit(base, free):
    own = fitting._Need(base, CONFIG, True, False)
    free(CAREFUL * own.judging(LENGTHS, 3) + 1)
    found = fitted(base, CONFIG, LENGTHS, LENGTHS, packs=True)
    assert 3 <= found.judged < len(LENGTHS)
    assert own.judging(LENGTHS, 3) < need(base, 3, False)


def test_where_memory_runs_out_it_becomes_less_until_nothing_is_left(base, free):
    free(PLENTY)
    found = decided(base)
    told = [str(found.less()) for _ in range(3)]
    assert [line.rsplit(": ", 1)[1] for line in told] == [
        "2 rows at once from here",
        "one row at once from here",
        "layers are computed again in the backward from here",
    ]
    assert found.less() is None
    judged = [str(found.less_judged()) for _ in range(5)]
    assert judged[0].endswith("8 rows of a validation at once from here")
    assert judged[-1] == "None"


def test_what_a_step_has_is_halved_not_what_was_asked_for(base, free):
    free(PLENTY)
    config = make_config({**SETTINGS, "batch_size": 64})
    found = fitted(base, config, LENGTHS, LENGTHS, packs=True)
    assert found.rows == 8
    assert "4 rows" in str(found.less())


def test_a_state_says_how_it_goes_on_but_for_what_is_asked_for(base, free):
    free(PLENTY)
    before = decided(base)
    for _ in range(3):
        before.less()
    before.less_judged()
    kept = before.kept()
    after = decided(base, kept)
    assert (after.rows, after.again, after.judged) == (1, True, 8)
    assert "1 of 4 rows" in str(after.told)
    asked = decided(base, kept, micro_batch_size=2, checkpointing=False)
    assert (asked.rows, asked.again) == (2, False)


def test_what_a_state_says_is_less_where_it_does_not_fit_any_more(base, free):
    free(PLENTY)
    kept = decided(base).kept()
    free(CAREFUL * need(base, 2, False) + 1)
    assert decided(base, kept).rows == 2
    free(1)
    assert decided(base, kept).again


def test_a_cpu_takes_no_more_tokens_at_once_than_fill_its_working_memory(base, free, monkeypatch):
    free(PLENTY)
    own = fitting._Need(base, CONFIG, True, False)
    size = own.tokens_in(0)
    assert decided(base).tokens == own.tokens_in(fitting.WORKING * torch.get_num_threads()) > size
    monkeypatch.setattr(fitting, "WORKING", 1)
    found = decided(base)
    assert (found.rows, found.tokens) == (4, fitting.FEWEST) == (4, size)
    monkeypatch.setattr(fitting, "FEWEST", 40)
    found = decided(base)
    batch = padded([Encoded([1] * length, [True] * length) for length in LENGTHS], 0)
    lengths = [part.mask.sum(-1).tolist() for part in found.parts(batch)]
    assert lengths == [[30, 10], [20], [25, 5], [15, 20], [20]]
    own.at_once = 40
    assert own(LENGTHS, 4, False) == need(base, 1, False, (40,))  # what it takes is told so
    padding = fitting._Need(base, CONFIG, False, False)
    padding.at_once = 40
    assert padding(LENGTHS, 4, False) == need(base, 1, False, (4 * 30,))
    for more in ({"micro_batch_size": 3}, {"objective": "some:loss"}):
        assert decided(base, **more).tokens is None
    whole = fitted(base, CONFIG, LENGTHS, LENGTHS, packs=True, whole=True)
    assert whole.tokens is None


def test_tokens_at_once_lie_in_the_state(base, free, monkeypatch):
    free(PLENTY)
    monkeypatch.setattr(fitting, "WORKING", 1)
    before = decided(base)
    monkeypatch.undo()
    free(PLENTY)
    assert decided(base, before.kept()).tokens == fitting.FEWEST
    old = {key: value for key, value in before.kept().items() if key != "tokens"}
    assert decided(base, old).tokens is None  # a run of before goes on as it began


def test_less_is_less_than_what_ran_together(base, free, monkeypatch):
    free(PLENTY)
    monkeypatch.setattr(fitting, "WORKING", 1)
    monkeypatch.setattr(fitting, "FEWEST", 40)
    found = decided(base)
    found.parts(padded([Encoded([1] * length, [True] * length) for length in LENGTHS], 0))
    assert "one row at once" in str(found.less())  # two ran together, though four might have
    assert "computed again" in str(found.less())


# ---- in a training -------------------------------------------------------------------------------


def assert_close(one: Adapter, other: Adapter) -> None:
    for name, update in one.updates.items():
        torch.testing.assert_close(update.up, other.updates[name].up, atol=1e-6, rtol=1e-4)


def test_the_adapter_is_the_same_however_little_is_free(base, free):
    free(PLENTY)
    plain = train_with(base, ROWS, CONFIG).adapter
    for size in (CAREFUL * need(base, 2, False, (20,) * 4), 1):
        free(size)
        assert_close(train_with(base, ROWS, CONFIG).adapter, plain)


def test_the_adapter_is_the_same_however_many_tokens_run_at_once(base, monkeypatch):
    plain = train_with(base, ROWS, CONFIG).adapter
    monkeypatch.setattr(fitting, "WORKING", 1)
    monkeypatch.setattr(fitting, "FEWEST", 40)
    seen: list[int] = []
    cut = Batch.parts
    monkeypatch.setattr(Batch, "parts",
                        lambda *given: seen.append(len(found := cut(*given))) or found)  # fmt: skip
    assert_close(train_with(base, ROWS, CONFIG).adapter, plain)
    assert max(seen) > 1


def test_layers_computed_again_change_no_bit(base, free):
    free(PLENTY)
    plain = train_with(base, ROWS, CONFIG).adapter
    again = train_with(base, ROWS, make_config({**SETTINGS, "checkpointing": True})).adapter
    for name, update in plain.updates.items():
        assert torch.equal(update.down, again.updates[name].down)
        assert torch.equal(update.up, again.updates[name].up)


class Full:
    """Memory that holds so many rows at once, or so few whose layers are computed again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
        self.seen: list[tuple[int, bool]] = []
        forward = Forward.__call__

        def limited(which: Forward, batch: Batch):
            if torch.is_grad_enabled():
                self.seen.append((len(batch.ids), which.recomputes))
                if len(batch.ids) > rows and not which.recomputes:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
            return forward(which, batch)

        monkeypatch.setattr(Forward, "__call__", limited)


def test_where_memory_is_full_the_step_begins_anew_with_less(base, free, monkeypatch):
    free(PLENTY)
    plain = train_with(base, ROWS, CONFIG).adapter
    full = Full(monkeypatch, rows=1)
    told: list[str] = []
    smaller = train_with(base, ROWS, CONFIG, teller=told.append).adapter
    assert_close(smaller, plain)
    assert [line for line in told if "full" in line] == [
        "the memory is full: 2 rows at once from here",
        "the memory is full: one row at once from here",
    ]
    assert full.seen[:3] == [(4, False), (2, False), (1, False)]
    assert set(full.seen[2:]) == {(1, False)}  # it does not try again what did not fit


def test_layers_are_computed_again_last_and_then_it_is_an_error(base, free, monkeypatch):
    free(PLENTY)
    full = Full(monkeypatch, rows=0)
    train_with(base, ROWS, CONFIG)
    assert full.seen[-1] == (1, True)
    with pytest.raises(torch.OutOfMemoryError):
        train_with(base, ROWS, make_config({**SETTINGS, "checkpointing": False}))


def test_other_errors_are_not_taken_for_a_full_memory(base, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(Forward, "__call__", broken)
    told: list[str] = []
    with pytest.raises(RuntimeError, match="shape mismatch"):
        train_with(base, ROWS, CONFIG, teller=told.append)
    assert not any("full" in line for line in told)


def test_a_resumed_run_has_the_bits_of_one_without_a_pause(base, free, monkeypatch, tmp_path):
    free(CAREFUL * need(base, 1, False) - 1)
    whole = train_with(base, ROWS, CONFIG).adapter

    def stop(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_with(base, ROWS, CONFIG, checkpoints=tmp_path, watcher=stop)
    free(PLENTY)  # others have left the machine meanwhile
    resumed = train_with(base, ROWS, CONFIG, checkpoints=tmp_path, resume=True).adapter
    for name, update in whole.updates.items():
        assert torch.equal(update.up, resumed.updates[name].up), name


def test_what_frozen_layers_say_is_kept_again_after_a_pause(base, free, tmp_path):
    """In bf16 passing layers by changes the last bits, so it must not hang on what is free now."""
    half = Base.from_model(copy.deepcopy(base.model).bfloat16(), base.tokenizer)
    config = make_config({**SETTINGS, "targets": r".*layers\.2\..*"})

    def stop(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    enough = 3 * need(base, 4, False, (60,) * 4)
    for before, after in ((PLENTY, enough), (0, PLENTY)):
        free(before)
        whole = train_with(half, ROWS, config).adapter
        folder = tmp_path / str(before)
        with pytest.raises(KeyboardInterrupt):
            train_with(half, ROWS, config, checkpoints=folder, watcher=stop)
        free(after)
        resumed = train_with(half, ROWS, config, checkpoints=folder, resume=True).adapter
        for name, update in whole.updates.items():
            assert torch.equal(update.up, resumed.updates[name].up), (before, name)


def test_a_validation_that_does_not_fit_is_taken_in_parts(base, free, monkeypatch):
    free(PLENTY)
    plain = train_with(base, ROWS, CONFIG)
    forward = Forward.__call__
    seen: list[int] = []

    def limited(which: Forward, batch: Batch):
        if not torch.is_grad_enabled():
            seen.append(len(batch.ids))
            if len(batch.ids) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(which, batch)

    monkeypatch.setattr(Forward, "__call__", limited)
    told: list[str] = []
    parted = train_with(base, ROWS, CONFIG, teller=told.append)
    assert parted.best_loss == pytest.approx(plain.best_loss, rel=1e-5)
    assert [line for line in told if "full" in line][-1].endswith(
        "2 rows of a validation at once from here"
    )
    assert set(seen[-4:]) == {2}


def test_neighbours_are_held_in_as_small_parts(base, free, monkeypatch):
    free(PLENTY)
    config = make_config({**SETTINGS, "kl_weight": 0.1})
    others = [pair(f"Where was {name}?", f"{name} was in Ulm.") for name in ("Kant", "Hegel")]
    plain = train_with(base, ROWS, config, neighbours=others).adapter
    full = Full(monkeypatch, rows=0)
    less = train_with(base, ROWS, config, neighbours=others).adapter
    assert_close(less, plain)
    assert full.seen[-1] == (1, True)


def test_where_nothing_is_left_the_steps_before_are_saved(base, free, monkeypatch, tmp_path):
    free(PLENTY)
    config = make_config({**SETTINGS, "checkpointing": False, "micro_batch_size": 1})
    steps = 0

    def stop(progress):
        nonlocal steps
        steps = progress.step
        if steps == 3:
            Full(monkeypatch, rows=0)

    with pytest.raises(torch.OutOfMemoryError):
        train_with(base, ROWS, config, checkpoints=tmp_path, watcher=stop)
    monkeypatch.undo()
    resumed = train_with(base, ROWS, config, checkpoints=tmp_path, resume=True)
    assert_close(resumed.adapter, train_with(base, ROWS, config).adapter)
    assert steps == 3
    assert resumed.steps == 6


def test_gradients_in_bf16_are_those_of_the_whole_but_for_rounding(base):
    """Which products run in 16 bits does not hang on how many tokens are together."""
    from detour.model.rows import Encoded, padded
    from detour.training.kinds import factors_of
    from detour.training.objective import answer_loss

    half = Base.from_model(copy.deepcopy(base.model).bfloat16(), base.tokenizer)
    batch = padded([Encoded([1 + (7 * n + k) % 300 for k in range(40)], [True] * 40)
                    for n in range(8)], 0)  # fmt: skip
    factors = factors_of(half.slots, half.slots.named("all-linear"), CONFIG, half.device)
    for parameter in factors.parameters():
        torch.nn.init.normal_(parameter, std=0.1)

    def gradient(rows: int) -> torch.Tensor:
        for parameter in factors.parameters():
            parameter.grad = None
        with half.hold(factors.contents()):
            for part in batch.parts(rows):
                answer_loss(half.forward, half.head, part, batch.supervised).backward()
        return torch.cat([p.grad.flatten() for p in factors.parameters() if p.grad is not None])

    whole, parted = gradient(8), gradient(1)
    assert float((whole - parted).norm() / whole.norm()) < 5e-3


def test_all_weights_are_trained_so_too(base, free, monkeypatch):
    free(PLENTY)
    config = make_config({"steps": 6, "batch_size": 4, "learning_rate": 1e-3})
    plain = train_whole(base, ROWS, config).base.model.state_dict()
    Full(monkeypatch, rows=0)
    told: list[str] = []
    less = train_whole(base, ROWS, config, teller=told.append).base.model.state_dict()
    assert told[-1].startswith("the memory is full: layers are computed again")
    for name, tensor in plain.items():
        torch.testing.assert_close(less[name], tensor, atol=1e-5, rtol=1e-3)


def test_a_model_whose_layers_are_no_list_says_so(base):
    forward = base.forward
    forward._model = torch.nn.Module()
    forward._model.config = base.model.config
    with pytest.raises(BaseError, match="do not lie in one list"):
        forward.recomputing()


def test_the_setting_is_checked():
    with pytest.raises(ConfigError):
        make_config({"checkpointing": "sometimes"})


def test_it_takes_less_memory_indeed(free):
    """Peak pages of a training with much to keep, above the base: far apart, so that noise is no
    matter.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    from detour.model.rows import Encoded, padded
    from detour.training.kinds import factors_of
    from detour.training.objective import answer_loss

    torch.manual_seed(0)
    base = Base.from_model(
        LlamaForCausalLM(
            LlamaConfig(vocab_size=64, hidden_size=128, intermediate_size=512, num_hidden_layers=12,
                        num_attention_heads=4)
        )
    )  # fmt: skip
    batch = padded([Encoded([3] * 512, [True] * 512) for _ in range(4)], 0)
    factors = factors_of(base.slots, base.slots.named("all-linear"), CONFIG, base.device)

    def peak(forward: Forward) -> int:
        memory = PeakMemory(base.device)
        with base.hold(factors.contents()):
            answer_loss(forward, base.head, batch).backward()
        above = memory.above()
        if above is None:
            pytest.skip("this system does not tell how much memory was taken")
        return above

    head = base.forward
    peak(head.recomputing())  # buffers that stay come to be
    again = peak(head.recomputing())
    assert peak(head) > 2 * again
