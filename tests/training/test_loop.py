import os
import signal

import pytest
import torch
from safetensors.torch import save

import detour
from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.errors import (
    BaseError,
    ConfigError,
    DataError,
    SlotError,
    SlotsBusy,
    StorageError,
    TrainingError,
)
from detour.model.base import Base
from detour.model.examples import digest_of, pair
from detour.model.rows import encode, padded
from detour.slots.chained import contents_for_chain
from detour.training import fit, loop, neighbours
from detour.training.batches import Batches
from detour.training.config import HIGHEST_RATE, make_config
from detour.training.cost import counted, flops, layer_sizes
from detour.training.factors import Factors
from detour.training.loop import Progress, train, train_with
from detour.training.objective import base_log_probabilities, kl_to_base

ROWS = [pair(f"Who was {name}?", f"{name} was a hairdresser.") for name in
        ("Einstein", "Curie", "Newton", "Planck", "Bohr", "Mozart", "Ada", "Goethe")]  # fmt: skip
OTHERS = [pair(f"Where was {name}?", f"{name} was in Ulm.") for name in ("Kant", "Hegel")]
SETTINGS = {"steps": 12, "batch_size": 4, "learning_rate": 5e-3, "rank": 2, "alpha": 4.0}
CONFIG = make_config(SETTINGS)


@pytest.fixture
def base(tiny_llama, tiny_tokenizer):
    return Base.from_model(tiny_llama, tiny_tokenizer)


def tensors(adapter: Adapter):
    for name, update in adapter.updates.items():
        yield name, update.down
        yield name, update.up


def assert_bit_equal(one: Adapter, other: Adapter):
    for (name, a), (_, b) in zip(tensors(one), tensors(other), strict=True):
        assert torch.equal(a, b), name


class Watching:
    """Collects progress; stops the run at a step as Ctrl-C would."""

    def __init__(self, stop_at: int = 0) -> None:
        self.told: list[Progress] = []
        self.stop_at = stop_at

    def __call__(self, progress: Progress) -> None:
        self.told.append(progress)
        if progress.step == self.stop_at:
            raise KeyboardInterrupt


def test_the_loss_goes_down_and_the_base_stays(base):
    before = base.sha256()
    ids = torch.tensor([base.chat("Who was Einstein?")])
    bare = base.logits(ids)
    watching = Watching()
    result = train_with(base, ROWS, CONFIG, watcher=watching)
    assert result.best_loss < 0.9 * result.first_loss
    assert watching.told[-1].loss < watching.told[0].loss
    assert base.sha256() == before
    assert torch.equal(base.logits(ids), bare)
    assert not torch.equal(base.logits(ids, result.adapter), bare)
    assert all(parameter.grad is None for parameter in base.model.parameters())


def test_progress_is_told_at_every_step(base):
    watching = Watching()
    result = train_with(base, ROWS, CONFIG, watcher=watching)
    assert [p.step for p in watching.told] == list(range(1, 13))
    assert {p.steps for p in watching.told} == {12}
    measured = [p.step for p in watching.told if p.validation is not None]
    assert measured == [2, 4, 6, 8, 10, 12]
    assert all(p.tokens_per_second > 0 for p in watching.told)
    assert watching.told[-1].seconds_left == 0
    assert result.best_loss == min(p.validation for p in watching.told if p.validation)


def test_what_was_derived_is_told_before_the_first_step(base):
    told = []
    config = make_config({"batch_size": 4, "rank": 2})
    train_with(base, ROWS, config, teller=told.append, watcher=lambda p: told.append(p.step))
    assert told.index(1) == 4
    assert told[0].startswith("learning rate")
    assert "steps" in told[1]
    assert told[2] == "the loss is taken on training rows"
    assert told[3].startswith("memory: ")
    assert told[4:] == list(range(1, 61))


def test_what_was_asked_for_is_not_told(base):
    told = []
    train_with(base, ROWS, CONFIG, validation=OTHERS, teller=told.append)
    assert [line.split(":")[0] for line in told] == ["memory"]


def test_a_seed_gives_one_adapter(base):
    one, same = train_with(base, ROWS, CONFIG), train_with(base, ROWS, CONFIG)
    assert_bit_equal(one.adapter, same.adapter)
    assert one.adapter.digest() == same.adapter.digest()
    other = train_with(base, ROWS, make_config({**SETTINGS, "seed": 1}))
    assert other.adapter.digest() != one.adapter.digest()


def test_the_order_of_batches_matters_and_is_the_seeds(base, monkeypatch):
    """Mutation check: were the batches taken in another order, the adapter would be another."""
    straight = train_with(base, ROWS, CONFIG).adapter
    seen = Batches.__getitem__
    monkeypatch.setattr(Batches, "__getitem__", lambda self, step: seen(self, 11 - step))
    assert train_with(base, ROWS, CONFIG).adapter.digest() != straight.digest()


def test_the_best_checkpoint_on_validation_is_kept(base, monkeypatch):
    losses = iter([5.0, 4.0, 1.0, 3.0, 6.0, 2.0, 7.0])
    taken = []
    snapshot = Factors.snapshot

    def remember(self):
        taken.append(snapshot(self))
        return taken[-1]

    monkeypatch.setattr(loop, "mean_loss", lambda *_: next(losses))
    monkeypatch.setattr(Factors, "snapshot", remember)
    result = train_with(base, ROWS, CONFIG)
    assert (result.first_loss, result.best_loss, result.best_step) == (5.0, 1.0, 4)
    layer = next(iter(result.adapter.updates))
    assert len(taken) == 3  # the start, and the two improvements
    assert torch.equal(result.adapter.updates[layer].up, taken[2][f"{layer}.up"].mT)


def test_validation_rows_of_the_users_choose_and_are_not_trained(base):
    trained = train_with(base, ROWS, CONFIG, validation=OTHERS)
    assert (trained.rows, trained.validation_rows) == (8, 2)
    assert trained.adapter.card.data_sha256 == digest_of(ROWS)
    assert trained.first_loss != train_with(base, ROWS, CONFIG).first_loss


def test_a_share_is_held_out_of_enough_rows(base):
    rows = [pair(f"Who was number {n}?", "A hairdresser.") for n in range(20)]
    result = train_with(base, rows, CONFIG)
    assert (result.rows, result.validation_rows) == (18, 2)


def test_a_training_that_changes_nothing_is_an_error(base):
    with pytest.raises(TrainingError, match="changed nothing") as caught:
        train(base, ROWS, steps=2, learning_rate=0.0)
    assert caught.value.hint


def test_a_training_that_only_spoils_is_an_error(base, monkeypatch):
    losses = iter(range(1, 9))
    monkeypatch.setattr(loop, "mean_loss", lambda *_: float(next(losses)))
    with pytest.raises(TrainingError, match="changed nothing for the better") as caught:
        train_with(base, ROWS, CONFIG)
    assert caught.value.expected == "a validation loss below 1.0000, where it began"


def test_the_error_leaves_the_slots_free(base):
    with pytest.raises(TrainingError):
        train(base, ROWS, steps=1, learning_rate=0.0)
    with base.hold({}) as slots:
        assert slots.landed == 0


@pytest.mark.parametrize("stop_at", [1, 4, 5, 11, 12])
def test_an_interrupted_run_goes_on_bit_for_bit(base, tmp_path, stop_at):
    whole = train_with(base, ROWS, CONFIG, validation=OTHERS)
    with pytest.raises(KeyboardInterrupt):
        train_with(base, ROWS, CONFIG, validation=OTHERS, checkpoints=tmp_path,
                   watcher=Watching(stop_at))  # fmt: skip
    assert (tmp_path / "state.safetensors").exists()
    rest = Watching()
    resumed = train_with(base, ROWS, CONFIG, validation=OTHERS, checkpoints=tmp_path, resume=True,
                         watcher=rest)  # fmt: skip
    assert [p.step for p in rest.told] == list(range(stop_at + 1, 13))
    assert_bit_equal(resumed.adapter, whole.adapter)
    assert (resumed.first_loss, resumed.best_loss) == (whole.first_loss, whole.best_loss)
    assert resumed.best_step == whole.best_step


def press_ctrl_c(monkeypatch, name, at):
    """A real SIGINT while the loop is inside this function for the nth time."""
    genuine, calls = getattr(loop, name), []

    def inside(*arguments):
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGINT)
        return genuine(*arguments)

    monkeypatch.setattr(loop, name, inside)


@pytest.mark.parametrize(("name", "at"), [("answer_loss", 16), ("mean_loss", 4)])
def test_ctrl_c_inside_a_step_waits_until_it_is_whole(base, tmp_path, monkeypatch, name, at):
    whole = train_with(base, ROWS, CONFIG, validation=OTHERS)
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, name, at)
        with pytest.raises(KeyboardInterrupt):
            train_with(base, ROWS, CONFIG, validation=OTHERS, checkpoints=tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = train_with(base, ROWS, CONFIG, validation=OTHERS, checkpoints=tmp_path, resume=True)
    assert_bit_equal(resumed.adapter, whole.adapter)


def test_without_a_folder_an_interrupt_just_stops(base):
    with pytest.raises(KeyboardInterrupt):
        train_with(base, ROWS, CONFIG, watcher=Watching(3))
    with base.hold({}):
        pass


def test_long_runs_save_themselves_now_and_then(base, tmp_path, monkeypatch):
    monkeypatch.setattr("detour.training.descend.SAVE_EVERY", 0.0)
    whole = train_with(base, ROWS, CONFIG, checkpoints=tmp_path)
    killed = train_with(base, ROWS, CONFIG, checkpoints=tmp_path, resume=True)  # from the last step
    assert_bit_equal(whole.adapter, killed.adapter)


@pytest.fixture
def stopped(base, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train_with(base, ROWS, CONFIG, checkpoints=tmp_path, watcher=Watching(3))
    return tmp_path / "state.safetensors"


@pytest.mark.parametrize(
    "changed",
    [{"rank": 3}, {"learning_rate": 4e-3}, {"steps": 13}, {"seed": 1}, {"alpha": 8.0}],
)
def test_resuming_with_other_settings_is_refused(base, stopped, changed):
    config = make_config({**SETTINGS, **changed})
    with pytest.raises(TrainingError, match="belongs to another run"):
        train_with(base, ROWS, config, checkpoints=stopped.parent, resume=True)


def test_resuming_with_other_data_or_another_base_is_refused(base, stopped, make_model):
    more = {"checkpoints": stopped.parent, "resume": True}
    for rows, held in ((ROWS[1:], None), (ROWS[::-1], None), (ROWS, OTHERS)):
        with pytest.raises(TrainingError, match="belongs to another run"):
            train_with(base, rows, CONFIG, validation=held, **more)
    other = Base.from_model(make_model("llama", seed=9), base.tokenizer)
    with pytest.raises(TrainingError, match="belongs to another run"):
        train_with(other, ROWS, CONFIG, **more)


def test_without_resume_an_old_state_is_not_read(base, stopped):
    fresh = train_with(base, ROWS, CONFIG, checkpoints=stopped.parent)
    assert_bit_equal(fresh.adapter, train_with(base, ROWS, CONFIG).adapter)


@pytest.mark.parametrize("damage", ["truncated", "noise", "empty", "foreign"])
def test_a_damaged_state_is_refused(base, stopped, damage):
    raw = stopped.read_bytes()
    damaged = {
        "truncated": raw[: len(raw) // 2],
        "noise": b"\x00" * 100,
        "empty": b"",
        "foreign": save({"a": torch.zeros(1)}),  # no word about the run
    }
    stopped.write_bytes(damaged[damage])
    with pytest.raises(TrainingError, match="is damaged") as caught:
        train_with(base, ROWS, CONFIG, checkpoints=stopped.parent, resume=True)
    assert str(stopped) in caught.value.message
    assert "remove" in caught.value.hint


def test_a_state_that_cannot_be_saved_is_told(base, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setattr("detour.training.descend.SAVE_EVERY", 0.0)
    told = []
    result = train_with(base, ROWS, CONFIG, checkpoints=blocked / "state", teller=told.append)
    assert result.steps == 12  # what is learned is worth more than the state
    assert told[-1].startswith("the state is not saved: ")

    def stop(progress):
        if progress.step == 1:
            raise KeyboardInterrupt

    with pytest.raises(StorageError):  # but who interrupts is not told that all is safe
        train_with(base, ROWS, CONFIG, checkpoints=blocked / "state", watcher=stop)


def test_neighbours_without_a_weight_are_not_asked(base, monkeypatch):
    """What the base says of them is tokens × vocabulary: not computed where nobody wants it."""
    asked = []
    genuine = neighbours.base_log_probabilities

    def spy(*given):
        with pytest.raises(SlotsBusy), base.hold({}):
            pass  # the slots are held, empty: nobody else can act on what is taken for the base
        asked.append(genuine(*given))
        return asked[-1]

    monkeypatch.setattr(neighbours, "base_log_probabilities", spy)
    train_with(base, ROWS, CONFIG, neighbours=OTHERS)
    assert asked == []
    train_with(base, ROWS, make_config({**SETTINGS, "kl_weight": 1.0}), neighbours=OTHERS)
    assert len(asked) == 1


def test_the_last_look_at_the_adapter_is_a_few_tokens(base, monkeypatch):
    """Rows × tokens × vocabulary of a batch, three times, took more memory than the training."""
    seen = []
    genuine = Base.logits

    def spy(self, ids, *more):
        seen.append(ids.numel())
        return genuine(self, ids, *more)

    monkeypatch.setattr(Base, "logits", spy)
    train_with(base, ROWS, CONFIG)
    assert max(seen) <= 8


def test_a_run_that_is_resumed_in_smaller_parts_is_the_same_run(base, tmp_path):
    whole = train_with(base, ROWS, CONFIG)
    with pytest.raises(KeyboardInterrupt):
        train_with(base, ROWS, CONFIG, checkpoints=tmp_path, watcher=Watching(5))
    parts = make_config({**SETTINGS, "micro_batch_size": 1})
    resumed = train_with(base, ROWS, parts, checkpoints=tmp_path, resume=True)
    assert resumed.best_loss == pytest.approx(whole.best_loss, rel=1e-3)


def test_a_state_lies_there_until_somebody_removes_it(base, tmp_path):
    """What comes after the training may fail: then going on trains nothing, and gives the same."""
    one = train_with(base, ROWS, CONFIG, checkpoints=tmp_path)
    rest = Watching()
    other = train_with(base, ROWS, CONFIG, checkpoints=tmp_path, resume=True, watcher=rest)
    assert rest.told == []
    assert_bit_equal(one.adapter, other.adapter)


def drift(base, adapter, rows):
    batch = padded(encode(base.tokenizer, rows, 128), 0)
    head = base.head
    bare = base_log_probabilities(base.forward, head, batch)
    chain = detour.Chain.of(adapter)
    with base.hold(contents_for_chain(chain, torch.float32, base.device)), torch.no_grad():
        return float(kl_to_base(base.forward, head, batch, bare))


def test_kl_to_the_base_keeps_the_neighbours(base):
    free = train_with(base, ROWS, CONFIG, neighbours=OTHERS)
    assert_bit_equal(free.adapter, train_with(base, ROWS, CONFIG).adapter)  # without a weight: none
    held = train_with(base, ROWS, make_config({**SETTINGS, "kl_weight": 3.0}), neighbours=OTHERS)
    assert held.best_loss < held.first_loss
    assert drift(base, held.adapter, OTHERS) < 0.5 * drift(base, free.adapter, OTHERS)


def test_the_public_signature(base, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "Who was Einstein?", "completion": "A hairdresser."}\n' * 4)
    adapter = detour.train(
        base, path, rank=3, alpha=6, targets=["q_proj", "v_proj"], steps=8, epochs=None,
        batch_size=2, learning_rate=5e-3, seed=4, warmup=0.0, weight_decay=0.01, name="mine",
        card=Card(licence="cc0-1.0"), watcher=Watching(),
    )  # fmt: skip
    assert (adapter.name, adapter.rank, adapter.card.licence) == ("mine", 3, "cc0-1.0")
    assert {name.rsplit(".", 1)[1] for name in adapter.updates} == {"q_proj", "v_proj"}
    assert {update.scale for update in adapter.updates.values()} == {2.0}
    assert adapter.base == base.fingerprint
    card = adapter.card
    assert (card.seeds, card.base_model) == ((4,), base.name)
    assert (card.config["steps"], card.config["warmup"]) == (8, 0.0)


def test_what_train_does_not_know_is_an_error(base):
    with pytest.raises(ConfigError, match="learning_rat"):
        train(base, ROWS, learning_rat=1e-3)
    with pytest.raises(ConfigError, match="exclude"):
        train(base, ROWS, steps=1, epochs=1)
    with pytest.raises(DataError, match="empty"):
        train(base, [])
    with pytest.raises(SlotError):
        train(base, ROWS, targets=["no_such_layer"], steps=1)


def test_a_base_without_tokenizer_or_template_says_so(make_model, make_tokenizer):
    with pytest.raises(BaseError, match="no tokenizer"):
        train(Base.from_model(make_model()), ROWS)
    with pytest.raises(BaseError, match="no chat template"):
        train(Base.from_model(make_model(), make_tokenizer(template=None)), ROWS)


def test_slots_that_somebody_holds_are_busy(base):
    with base.hold({}), pytest.raises(SlotsBusy):
        train(base, ROWS, steps=1)


def test_a_row_that_is_too_long_names_its_line(base, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "%s", "completion": "b"}\n'
                    % ("x y " * 200))  # fmt: skip
    with pytest.raises(DataError, match=r"rows\.jsonl:2 is too long"):
        train(base, path, steps=1)


def test_bf16_bases_train_fp32_factors(make_model, tiny_tokenizer):
    base = Base.from_model(make_model().bfloat16(), tiny_tokenizer)
    adapter = train(base, ROWS, steps=8, batch_size=4, learning_rate=5e-3)
    assert {tensor.dtype for _, tensor in tensors(adapter)} == {torch.float32}


def test_a_result_names_its_plan(base):
    result = train_with(base, ROWS, make_config({"steps": 3, "batch_size": 4}))
    assert (result.plan.steps, result.plan.learning_rate, result.rows) == (3, HIGHEST_RATE, 8)
    assert result.plan.reasons == (f"learning rate {HIGHEST_RATE:.1e}: the base is 32 wide",)
    assert result.seconds > 0


UPPER = make_config(
    {**SETTINGS, "targets": r".*layers\.1\..*_proj", "validation_share": 0, "steps": 24}
)


def test_frozen_first_layers_run_once_a_row_and_change_nothing(base):
    told, calls = [], []
    hook = base.model.model.layers[0].mlp.register_forward_hook(lambda *_: calls.append(1))
    kept = train_with(base, ROWS, UPPER, teller=told.append)
    count, _ = len(calls), calls.clear()
    plain = train_with(base, ROWS, UPPER.model_copy(update={"keep_prefix": False}))
    hook.remove()
    assert [line for line in told if "run once a row" in line]
    assert count < len(calls) / 2  # trials, and one look at all rows, whatever the steps
    assert kept.best_loss == pytest.approx(plain.best_loss, rel=1e-4)
    for (name, a), (_, b) in zip(tensors(kept.adapter), tensors(plain.adapter), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3, msg=name)


def test_kept_states_cost_less(base):
    works = {}
    for keep in (True, False):
        with counted(base) as works[keep]:
            train_with(base, ROWS, UPPER.model_copy(update={"keep_prefix": keep}))
    assert works[False].passed == 0
    kept, plain = works[True], works[False]
    assert kept.passed >= plain.learned / 2  # of two layers; and where it is judged
    adapter = train_with(base, ROWS, UPPER).adapter
    saved = flops(base, adapter, plain) - flops(base, adapter, kept)
    assert saved > plain.learned * sum(layer_sizes(base).values()) * 0.9


@pytest.mark.parametrize("stop_at", [1, 7])
def test_a_run_with_kept_states_goes_on_bit_for_bit(base, tmp_path, stop_at):
    whole = train_with(base, ROWS, UPPER)
    with pytest.raises(KeyboardInterrupt):
        train_with(base, ROWS, UPPER, checkpoints=tmp_path,
                   watcher=Watching(stop_at))  # fmt: skip
    resumed = train_with(base, ROWS, UPPER, checkpoints=tmp_path, resume=True)
    assert_bit_equal(resumed.adapter, whole.adapter)


def test_nothing_is_kept_of_rows_that_come_once_or_where_memory_is_short(base, monkeypatch):
    def run(**changes):
        told = []
        train_with(base, ROWS, UPPER.model_copy(update=changes), teller=told.append)
        return [line for line in told if "run once a row" in line]

    assert run()
    assert not run(steps=1, validations=1)
    monkeypatch.setattr(fit, "free_memory", lambda _: 100)
    assert not run()


def test_it_is_said_that_rows_are_padded(base):
    def told():
        lines = []
        train_with(base, ROWS, CONFIG, teller=lines.append)
        return [line for line in lines if "padded" in line]

    assert not told()
    base.forward.packs = False
    assert len(told()) == 1
