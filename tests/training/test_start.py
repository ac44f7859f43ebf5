import pytest
import torch

from detour.adapter.adapter import Adapter
from detour.adapter.update import Update
from detour.errors import ConfigError, SlotError, TrainingError, WrongBase
from detour.model.base import Base
from detour.model.examples import pair
from detour.training.config import make_config
from detour.training.loop import train, train_with
from detour.training.outcome import losses

ROWS = [pair(f"Who was {name}?", f"{name} was a hairdresser.") for name in
        ("Einstein", "Curie", "Newton", "Planck", "Bohr", "Mozart", "Ada", "Goethe")]  # fmt: skip
SETTINGS = {"steps": 12, "batch_size": 4, "learning_rate": 5e-3}


@pytest.fixture
def base(tiny_llama, tiny_tokenizer):
    return Base.from_model(tiny_llama, tiny_tokenizer)


@pytest.fixture
def begun(base):
    settings = {**SETTINGS, "rank": 2, "alpha": 6.0, "targets": ("q_proj", "v_proj")}
    return train_with(base, ROWS, make_config(settings))


@pytest.fixture
def start(begun):
    return begun.adapter


def first_loss(base, start, **settings):
    config = make_config({**SETTINGS, **settings})
    return train_with(base, ROWS, config, start=start).first_loss


def test_the_bases_own_loss_is_told_beside_that_of_the_start(base, begun, start):
    found = train_with(base, ROWS, make_config(SETTINGS), start=start)
    assert found.base_loss == pytest.approx(begun.first_loss, rel=1e-6)
    assert losses(found)["loss"] == {
        "base": round(begun.first_loss, 6),
        "start": round(found.first_loss, 6),
        "adapter": round(found.best_loss, 6),
    }
    above = train_with(base, ROWS, make_config({**SETTINGS, "rank": 2}), beneath=start)
    assert above.base_loss == found.base_loss
    assert above.first_loss == pytest.approx(begun.best_loss, rel=1e-6)
    assert begun.base_loss is None
    assert losses(begun)["loss"].keys() == {"base", "adapter"}


def test_it_begins_exactly_where_the_start_is_and_takes_its_shape(base, begun, start):
    config = make_config(SETTINGS)
    found = train_with(base, ROWS, config, start=start)
    assert found.first_loss == pytest.approx(begun.best_loss, rel=1e-6)
    assert begun.best_loss < 0.95 * begun.first_loss
    assert found.best_loss < found.first_loss
    assert found.adapter.updates.keys() == start.updates.keys()
    for update in found.adapter.updates.values():
        assert (update.rank, update.scale) == (2, 3.0)
    again = train_with(base, ROWS, config, start=start)
    assert again.adapter.digest() == found.adapter.digest()
    told = found.adapter.card.config
    assert told["start"] == {"name": "adapter", "sha256": start.digest()}
    assert (told["rank"], told["alpha"]) == (2, 6.0)


@pytest.mark.parametrize(
    "settings",
    [
        {"rank": 5},
        {"alpha": 1.0},
        {"rank": 3, "alpha": 12.0, "targets": "all-linear"},
        {"targets": ("q_proj", "v_proj", "o_proj")},
    ],
)
def test_another_scale_more_rank_and_more_layers_change_nothing_at_the_start(base, start, settings):
    assert first_loss(base, start, **settings) == pytest.approx(first_loss(base, start), rel=1e-5)


def test_more_rank_and_more_layers_are_there_to_learn_with(base, start):
    found = train(
        base, ROWS, start=start, rank=5, targets=["q_proj", "v_proj", "o_proj"], **SETTINGS
    )
    assert {update.rank for update in found.updates.values()} == {5}
    assert any("o_proj" in layer for layer in found.updates)
    added = next(update for layer, update in found.updates.items() if "o_proj" in layer)
    assert added.norm() > 0


def test_in_python_a_setting_at_its_default_is_the_starts_own(base, start):
    found = train(base, ROWS, start=start, **SETTINGS)
    assert (found.rank, len(found.updates)) == (2, len(start.updates))


def test_a_lower_rank_and_fewer_layers_would_lose_something(base, start):
    with pytest.raises(ConfigError, match="does not fit into this rank") as refused:
        train(base, ROWS, start=start, rank=1, **SETTINGS)
    assert "at least 2" in str(refused.value)
    with pytest.raises(ConfigError, match="targets leave out"):
        train(base, ROWS, start=start, targets=["q_proj"], **SETTINGS)


def test_another_bases_adapter_is_refused(base, start, make_model, tiny_tokenizer):
    other = Base.from_model(make_model(seed=9), tiny_tokenizer)
    with pytest.raises(WrongBase):
        train(other, ROWS, start=start, **SETTINGS)


def test_changes_that_are_not_low_rank_are_refused(base, start):
    layer, update = next(iter(start.updates.items()))
    rows = torch.full((update.out_features,), 0.1)
    scaled = Update(update.down, update.up, update.scale, row_scale=rows)
    odd = Adapter({**start.updates, layer: scaled}, "odd", start.base)
    with pytest.raises(ConfigError, match="cannot be gone on with") as refused:
        train(base, ROWS, start=odd, **SETTINGS)
    assert layer in str(refused.value)


def test_a_start_that_is_not_made_better_is_an_error(base, start, monkeypatch):
    monkeypatch.setattr("detour.training.loop.mean_loss", lambda *_: 1.5)
    with pytest.raises(TrainingError, match="nothing for the better") as refused:
        train(base, ROWS, start=start, **SETTINGS)
    assert "1.5000, where it began" in str(refused.value)


def test_resuming_with_another_start_is_refused(base, start, tmp_path):
    def stop(progress):
        if progress.step == 5:
            raise KeyboardInterrupt

    options = {**SETTINGS, "checkpoints": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        train(base, ROWS, start=start, watcher=stop, **options)
    other = train(base, ROWS, rank=2, alpha=6.0, targets=["q_proj", "v_proj"], seed=3, **SETTINGS)
    with pytest.raises(TrainingError):
        train(base, ROWS, start=other, resume=True, **options)
    whole = train(base, ROWS, start=start, resume=True, **options)
    straight = train(base, ROWS, start=start, **SETTINGS)
    assert whole.digest() == straight.digest()


def test_layers_that_other_versions_nest_otherwise_are_found(base, start):
    renamed = {layer.replace("layers", "blocks"): u for layer, u in start.updates.items()}
    found = train(base, ROWS, start=Adapter(renamed, "odd", start.base), **SETTINGS)
    assert found.updates.keys() == start.updates.keys()


def test_an_adapter_without_layers_is_refused(base, start):
    table = Update(torch.randn(2, 7), torch.randn(5, 2), 1.0, lookup=True)
    with pytest.raises(SlotError):
        train(base, ROWS, start=Adapter({"model.embed_tokens": table}, "e", start.base), **SETTINGS)
