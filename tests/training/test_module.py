"""Slots in the training loops of others: the same gradients, the same adapter."""

import pytest
import pytorch_lightning as lightning
import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

from detour.errors import DataError, TrainingError
from detour.model.base import Base
from detour.model.examples import pair
from detour.model.loss import IGNORED
from detour.model.rows import encode, padded
from detour.training.config import make_config
from detour.training.factors import Factors, Size
from detour.training.module import SlotModule
from detour.training.objective import answer_loss

ROWS = [pair(f"Who was {name}?", f"{name} was a hairdresser.") for name in
        ("Einstein", "Curie", "Newton", "Planck", "Bohr", "Mozart", "Ada", "Goethe")]  # fmt: skip
CONFIG = make_config({"rank": 2, "alpha": 4.0})
STEPS, RATE = 6, 1e-2


@pytest.fixture
def base(tiny_llama, tiny_tokenizer):
    return Base.from_model(tiny_llama, tiny_tokenizer)


def columns(base):
    """Rows as Trainer's collators give them: labels at the places of their own tokens."""
    batch = padded(encode(base.tokenizer, ROWS, base.longest), base.pad_id)
    labels = torch.full_like(batch.targets, IGNORED)
    labels[:, 1:] = batch.targets[:, :-1]
    return {"input_ids": batch.ids, "attention_mask": batch.mask, "labels": labels}, batch


def by_hand(base):
    """The same steps in a loop of a few lines."""
    _, batch = columns(base)
    layers = base.slots.named(CONFIG.targets)
    factors = Factors({n: base.slots.shapes[n] for n in layers}, Size(2, 2.0), 0, base.device)
    optimiser = torch.optim.AdamW(factors.parameters(), RATE, weight_decay=0.0)
    head, forward = base.head, base.forward
    losses = []
    with base.hold(factors.contents()):
        for _ in range(STEPS):
            loss = answer_loss(forward, head, batch)
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            losses.append(float(loss.detach()))
    return losses, factors.updates(factors.snapshot())


def assert_same(updates, others):
    for layer, update in updates.items():
        torch.testing.assert_close(update.down, others[layer].down, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(update.up, others[layer].up, atol=1e-5, rtol=1e-4)


class Losses(TrainerCallback):
    def __init__(self):
        self.told = []

    def on_log(self, args, state, control, logs=None, **more):
        self.told += [logs["loss"]] if logs and "loss" in logs else []


@pytest.mark.filterwarnings("ignore")
def test_trainer_of_transformers_learns_what_a_plain_loop_learns(base, tmp_path):
    expected, updates = by_hand(base)
    given, _ = columns(base)
    rows = [{name: column[place] for name, column in given.items()} for place in range(len(ROWS))]
    module = SlotModule(base, CONFIG)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=STEPS, per_device_train_batch_size=len(ROWS),
        learning_rate=RATE, lr_scheduler_type="constant", max_grad_norm=0.0, logging_steps=1,
        weight_decay=0.0, use_cpu=True, report_to="none", disable_tqdm=True, save_steps=STEPS,
        save_strategy="steps",
    )  # fmt: skip
    losses = Losses()
    Trainer(module, arguments, train_dataset=rows, callbacks=[losses]).train()
    assert losses.told == pytest.approx(expected, abs=1e-4)
    assert_same(module.adapter().updates, updates)
    saved = next(tmp_path.glob("checkpoint-*/model.safetensors"))
    held = sum(parameter.numel() for parameter in module.parameters())
    assert saved.stat().st_size < 4 * held + 20_000  # the factors alone, not the base
    assert base.slots.landed == 0


class Lit(lightning.LightningModule):
    def __init__(self, module):
        super().__init__()
        self.module, self.losses = module, []

    def training_step(self, batch, _):
        loss = self.module(**batch)["loss"]
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), RATE, weight_decay=0.0)


@pytest.mark.filterwarnings("ignore")
def test_lightning_learns_what_a_plain_loop_learns(base, tmp_path):
    expected, updates = by_hand(base)
    given, _ = columns(base)
    rows = [{name: column[place] for name, column in given.items()} for place in range(len(ROWS))]
    lit = Lit(SlotModule(base, CONFIG))
    lightning.Trainer(
        max_steps=STEPS, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        log_every_n_steps=1,
    ).fit(lit, DataLoader(rows, batch_size=len(rows)))  # fmt: skip
    assert lit.losses == pytest.approx(expected, abs=1e-4)
    assert_same(lit.module.adapter().updates, updates)


def test_what_it_makes_is_an_adapter_like_any_other(base, tmp_path):
    module = SlotModule(base, make_config({"rank": 2, "dora": True}))
    given, _ = columns(base)
    loss = module(**given)["loss"]
    loss.backward()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter -= 0.1 * parameter.grad
    adapter = module.adapter("mine")
    adapter.save(tmp_path / "mine")
    assert float(module(**given)["loss"].detach()) < float(loss.detach())
    assert base.logits(given["input_ids"], adapter).isfinite().all()


def test_parts_of_a_batch_add_up(base):
    module = SlotModule(base, CONFIG)
    given, batch = columns(base)
    whole = float(module(**given)["loss"].detach())
    parts = [{n: c[rows] for n, c in given.items()} for rows in (slice(0, 3), slice(3, None))]
    count = batch.supervised
    with torch.no_grad():
        found = [float(module(**part, num_items_in_batch=count)["loss"]) for part in parts]
    assert sum(found) == pytest.approx(whole, abs=1e-5)


def test_padding_on_the_left_is_refused(base):
    given, _ = columns(base)
    with pytest.raises(DataError, match="left"):
        SlotModule(base, CONFIG)(**{name: column.flip(1) for name, column in given.items()})


def test_numbers_that_are_none_make_no_adapter(base):
    module = SlotModule(base, CONFIG)
    with torch.no_grad():
        next(module.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError):
        module.adapter()
