"""Full fine-tuning: the steps are transformers' own, the base stays, the folder is a model's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from detour.errors import ConfigError, TrainingError
from detour.model.base import Base
from detour.model.examples import pair
from detour.training.config import make_config
from detour.training.whole import train_whole

IDS = torch.tensor([[1, 5, 9, 30, 7, 8], [2, 2, 7, 80, 11, 3]])
ROWS = [pair(f"Who was number {n}?", "A hairdresser.") for n in range(8)]
CONFIG = make_config({"steps": 9, "batch_size": 4, "learning_rate": 1e-3})
Make = Callable[..., PreTrainedModel]


@pytest.fixture(params=["llama", "gpt2"])
def base(
    request: pytest.FixtureRequest, make_model: Make, tiny_tokenizer: PreTrainedTokenizerFast
) -> Base:
    return Base.from_model(make_model(request.param), tiny_tokenizer)


def test_all_weights_learn_and_the_base_stays(base: Base, tmp_path: Path) -> None:
    before = {name: p.detach().clone() for name, p in base.model.named_parameters()}
    bare = base.logits(IDS)
    result = train_whole(base, ROWS, CONFIG)
    assert result.best_loss < result.first_loss - 0.5
    assert (result.rows, result.steps) == (8, 9)
    assert torch.equal(base.logits(IDS), bare)
    assert all(torch.equal(p, before[name]) for name, p in base.model.named_parameters())
    changed = [not torch.equal(p, before[n]) for n, p in result.base.model.named_parameters()]
    assert all(changed)
    path = result.save(tmp_path / "model", {"run.yaml": b"a: 1\n"})
    theirs = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        logits = theirs(IDS).logits
    assert torch.allclose(logits, result.base.logits(IDS), atol=1e-5)
    assert torch.allclose(Base.load(str(path)).logits(IDS), logits, atol=1e-5)
    assert (path / "run.yaml").read_bytes() == b"a: 1\n"


def test_parts_of_a_step_change_nothing(base: Base) -> None:
    whole = train_whole(base, ROWS, CONFIG)
    parts = train_whole(base, ROWS, CONFIG.model_copy(update={"micro_batch_size": 1}))
    assert parts.best_loss == pytest.approx(whole.best_loss, abs=1e-4)


def test_an_interrupted_run_goes_on_bit_for_bit(base: Base, tmp_path: Path) -> None:
    whole = train_whole(base, ROWS, CONFIG)

    def stop(progress: Any) -> None:
        if progress.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_whole(base, ROWS, CONFIG, watcher=stop, checkpoints=tmp_path)
    resumed = train_whole(base, ROWS, CONFIG, checkpoints=tmp_path, resume=True)
    assert torch.equal(resumed.base.logits(IDS), whole.base.logits(IDS))
    with pytest.raises(TrainingError):
        train_whole(base, ROWS[:6], CONFIG, checkpoints=tmp_path, resume=True)


def test_the_rate_is_a_tenth_of_an_adapters(base: Base) -> None:
    told: list[str] = []
    result = train_whole(base, ROWS, make_config({"steps": 2}), teller=told.append)
    assert result.plan.learning_rate == pytest.approx(1.5e-4)
    assert any("a tenth of an adapter's" in line for line in told)


def test_what_cannot_be(base: Base) -> None:
    for settings in ({"rank": 4}, {"dora": True}, {"targets": "q_proj"}):
        with pytest.raises(ConfigError, match="mean nothing") as caught:
            train_whole(base, ROWS, make_config(settings))
        assert caught.value.hint
    train_whole(base, ROWS, make_config({"rank": 8, "steps": 2}))  # what it is by default
    base.model.bfloat16()
    with pytest.raises(ConfigError, match="float32"):
        train_whole(base, ROWS, CONFIG)
    base.model.float()
    with pytest.raises(TrainingError, match="nothing for the better"):
        train_whole(base, ROWS, make_config({"steps": 1, "learning_rate": 0.0}))
