"""How much of a step is in memory at once: decided by an estimate, and again where it was wrong."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from detour.adapter.adapter import Adapter
from detour.errors import BaseError, ConfigError
from detour.model.base import Base
from detour.model.examples import pair
from detour.model.packing import Forward
from detour.model.rows import Batch
from detour.training import fit as fitting
from detour.training.config import make_config
from detour.training.estimate.peak_memory import PeakMemory
from detour.training.fit import CAREFUL, Fit, fit
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
    def tell(size: float) -> None:
        monkeypatch.setattr(fitting, "free_memory", lambda _: round(size))

    return tell


def need(base: Base, rows: int, again: bool, lengths: Sequence[int] = LENGTHS) -> float:
    sizes = fitting.sizes_of(fitting.Blueprint(base.name, base.model, base.slots), CONFIG)
    return fitting._Need(base, sizes, lengths, True, False)(rows, again)


def decided(base: Base, **more: object) -> Fit:
    return fit(base, make_config({**SETTINGS, **more}), LENGTHS, packs=True)


def test_all_rows_at_once_where_they_fit(base, free):
    free(CAREFUL * need(base, 4, False) + 1)
    found = decided(base)
    assert (found.rows, found.again) == (None, False)
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
    sizes = fitting.sizes_of(fitting.Blueprint(base.name, base.model, base.slots), CONFIG)
    padded = fitting._Need(base, sizes, (9, 30, 9, 25), False, False)
    assert padded(2, False) == need(base, 1, False, (60,))


def test_what_is_asked_for_by_hand_stays(base, free):
    free(1)
    assert decided(base, micro_batch_size=3).rows == 2  # two parts of a batch of four
    assert not decided(base, checkpointing=False).again
    free(PLENTY)
    assert decided(base, checkpointing=True).again
    assert decided(base, micro_batch_size=3).rows == 2


def test_a_loss_of_ones_own_is_of_whole_batches(base, free):
    free(CAREFUL * need(base, 1, False) + 1)
    found = decided(base, objective="some:loss")
    assert (found.rows, found.again) == (None, True)
    assert found.less() is None


def test_without_figures_of_the_system_nothing_is_decided_or_told(base, free):
    free(0)
    found = decided(base)
    assert (found.rows, found.again, found.told) == (None, False, None)


def test_a_teams_process_has_its_share_of_the_rows(base, free):
    free(CAREFUL * need(base, 2, False) + 1)
    found = fit(base, CONFIG, LENGTHS, packs=True, processes=2)
    assert found.rows is None


def test_where_memory_runs_out_it_becomes_less_until_nothing_is_left(base, free):
    free(PLENTY)
    found = decided(base)
    told = [str(found.less()) for _ in range(3)]
    assert [line.rsplit(": ", 1)[1] for line in told] == [
        "2 rows at once from here",
        "1 rows at once from here",
        "layers are computed again in the backward from here",
    ]
    assert found.less() is None


def test_a_state_says_how_it_goes_on_but_for_what_is_asked_for(base, free):
    free(PLENTY)
    before = decided(base)
    for _ in range(3):
        before.less()
    after = decided(base)
    after.go_on(before.kept())
    assert (after.rows, after.again) == (1, True)
    asked = decided(base, micro_batch_size=2, checkpointing=False)
    asked.go_on(before.kept())
    assert (asked.rows, asked.again) == (2, False)


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
        "the memory is full: 1 rows at once from here",
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
