"""LoRA's relatives: their start, their steps as PEFT takes them, and what is saved of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from detour.adapter.adapter import Adapter
from detour.errors import ConfigError
from detour.model.base import Base
from detour.model.examples import pair
from detour.model.loss import completion_loss, hidden_states
from detour.training.config import make_config
from detour.training.descend import optimiser_of
from detour.training.kinds import factors_of, size_of
from detour.training.loop import train_with
from detour.training.pissa import principal

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out:UserWarning"),
]
IDS = torch.tensor([[1, 5, 9, 30, 7, 8], [2, 2, 7, 80, 11, 3]])
ROWS = [pair(f"Who was number {n}?", "A hairdresser.") for n in range(8)]
RELATIVES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dora": ({"dora": True}, {"use_dora": True}),
    "rslora": ({"rslora": True}, {"use_rslora": True}),
    "pissa": ({"init": "pissa"}, {"init_lora_weights": "pissa"}),
    "patterns": (
        {"rank_pattern": {"q_proj|c_attn": 2}, "alpha_pattern": {"v_proj|c_proj": 3.0}},
        {"rank_pattern": {"q_proj|c_attn": 2}, "alpha_pattern": {"v_proj|c_proj": 3.0}},
    ),
}
Make = Callable[..., PreTrainedModel]


def base_of(kind: str, make_model: Make, tokenizer: PreTrainedTokenizerFast) -> Base:
    return Base.from_model(make_model(kind), tokenizer)


def of_peft(model: PreTrainedModel, layers: list[str], more: dict[str, Any]) -> PeftModel:
    settings = LoraConfig(r=4, lora_alpha=8, target_modules=layers, lora_dropout=0.0, **more)
    return get_peft_model(model, settings)  # type: ignore[return-value]


def loss_of(model: nn.Module) -> Tensor:
    return torch.nn.functional.cross_entropy(
        model(IDS, use_cache=False).logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("relative", RELATIVES)
def test_ten_steps_are_those_of_peft(
    kind: str, relative: str, make_model: Make, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    settings, theirs_settings = RELATIVES[relative]
    base = base_of(kind, make_model, tiny_tokenizer)
    config = make_config({"rank": 4, "alpha": 8.0, **settings})
    layers = base.slots.named(config.targets)
    factors = factors_of(base.slots, layers, config, base.device)
    model = make_model(kind)
    model.load_state_dict(base.model.state_dict())
    theirs = of_peft(model, layers, theirs_settings)
    if relative != "pissa":  # which begins at the weights themselves, up to signs
        for name, parameter in theirs.named_parameters():
            for layer, (down, up) in factors.pairs.items():
                if f".{layer}.lora_A." in name:
                    assert parameter.shape == down.shape
                    parameter.data.copy_(down.detach())
                if f".{layer}.lora_B." in name:
                    assert parameter.shape == up.mT.shape
    learned = [p for p in theirs.parameters() if p.requires_grad]
    assert sum(p.numel() for p in learned) == sum(p.numel() for p in factors.parameters())
    ours = torch.optim.SGD(factors.parameters(), 0.1)
    other = torch.optim.SGD(learned, 0.1)
    head = base.head
    losses: list[tuple[float, float]] = []
    targets = torch.cat([IDS[:, 1:], torch.full((2, 1), -100)], 1)
    with base.hold(factors.contents()) as slots:
        for _ in range(10):
            slots.exchange(factors.contents())
            loss = completion_loss(hidden_states(base.model, IDS), head, targets)
            loss.backward()
            their_loss = loss_of(theirs)
            their_loss.backward()
            losses.append((float(loss.detach()), float(their_loss.detach())))
            for optimiser in (ours, other):
                optimiser.step()
                optimiser.zero_grad()
    assert losses[0][0] - losses[-1][0] > 1e-3  # it learns
    for one, another in losses:
        assert one == pytest.approx(another, rel=5e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3"])
@pytest.mark.parametrize("relative", RELATIVES)
def test_what_is_saved_is_what_peft_applies(
    kind: str, relative: str, make_model: Make, tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:  # fmt: skip
    base = base_of(kind, make_model, tiny_tokenizer)
    bare = base.logits(IDS)
    config = make_config(
        {"steps": 12, "batch_size": 4, "learning_rate": 5e-3, "rank": 4, **RELATIVES[relative][0]}
    )
    result = train_with(base, ROWS, config, name="one")
    assert result.best_loss < result.first_loss
    assert torch.equal(base.logits(IDS), bare)
    path = result.adapter.save(tmp_path / "one")
    ours = base.logits(IDS, Adapter.load(path))
    assert not torch.allclose(ours, bare, atol=1e-3)
    assert torch.allclose(ours, base.logits(IDS, result.adapter), atol=1e-6)
    model = make_model(kind)
    model.load_state_dict(base.model.state_dict())
    theirs = PeftModel.from_pretrained(model, str(path))
    with torch.no_grad():
        assert torch.allclose(theirs(IDS).logits, ours, atol=1e-4)


@pytest.mark.parametrize("relative", ["dora", "pissa"])
def test_the_start_is_the_base(
    relative: str, make_model: Make, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    base = base_of("gpt2", make_model, tiny_tokenizer)  # its layers have biases
    config = make_config({"rank": 4, **RELATIVES[relative][0]})
    factors = factors_of(base.slots, base.slots.named("all-linear"), config, base.device)
    with base.hold(factors.contents()), torch.no_grad():
        started = base.model(IDS).logits
    assert torch.allclose(started, base.logits(IDS), atol=1e-5)


def test_an_interrupted_run_of_dora_goes_on_bit_for_bit(
    make_model: Make, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    base = base_of("llama", make_model, tiny_tokenizer)
    config = make_config({"steps": 9, "batch_size": 4, "dora": True, "learning_rate": 5e-3})
    whole = train_with(base, ROWS, config)

    def stop(progress: Any) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_with(base, ROWS, config, watcher=stop, checkpoints=tmp_path)
    resumed = train_with(base, ROWS, config, checkpoints=tmp_path, resume=True)
    assert resumed.adapter.digest() == whole.adapter.digest()


def test_rows_of_zeros_stay_under_dora(
    make_model: Make, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make_model("llama")
    with torch.no_grad():
        model.get_parameter("model.layers.0.self_attn.q_proj.weight")[3:7] = 0
    base = Base.from_model(model, tiny_tokenizer)
    config = make_config({"steps": 6, "batch_size": 4, "dora": True, "learning_rate": 5e-3})
    adapter = train_with(base, ROWS, config).adapter
    lengths = adapter.unbound.magnitudes["model.layers.0.self_attn.q_proj"]
    assert float(lengths[3:7].abs().max()) == 0
    assert bool(base.logits(IDS, adapter).isfinite().all())


def test_lora_plus_gives_up_its_own_rate(
    make_model: Make, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    base = base_of("llama", make_model, tiny_tokenizer)
    from detour.training.config import derive

    config = make_config({"rank": 2, "up_rate": 16.0, "steps": 4, "learning_rate": 1e-3})
    layers = base.slots.named("all-linear")
    factors = factors_of(base.slots, layers, config, base.device)
    groups = optimiser_of(factors, derive(config, 32, 8), config).param_groups
    assert [group["times"] for group in groups] == [1.0, 16.0]
    assert {id(p) for p in groups[1]["params"]} == {id(up) for _, up in factors.pairs.values()}
    slow = train_with(base, ROWS, config.model_copy(update={"up_rate": 1.0})).adapter
    fast = train_with(base, ROWS, config).adapter
    assert max(abs(float(u.up.abs().max())) for u in fast.updates.values()) > 8 * max(
        abs(float(u.up.abs().max())) for u in slow.updates.values()
    )


def test_principal_directions_are_the_best_of_their_rank() -> None:
    weight = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
    down, up = principal(weight, 5, 0)
    rest = torch.linalg.svdvals(weight)[5:]
    assert float((weight - up.mT @ down).norm()) == pytest.approx(float(rest.norm()), rel=1e-4)
    large = torch.randn(2100, 30, generator=torch.Generator().manual_seed(0)) @ torch.randn(
        30, 2060, generator=torch.Generator().manual_seed(1)
    )  # of rank 30: the randomised decomposition finds all of it
    down, up = principal(large, 30, 0)
    assert float((large - up.mT @ down).norm() / large.norm()) < 1e-4


def test_sizes_by_pattern() -> None:
    config = make_config({"rank": 8, "alpha": 16.0, "rank_pattern": {"layers.0.*q_proj": 4},
                          "alpha_pattern": {"v_proj": 4.0}, "rslora": True})  # fmt: skip
    assert size_of(config, "model.layers.0.self_attn.q_proj") == (4, 8.0)
    assert size_of(config, "model.layers.1.self_attn.q_proj") == (8, pytest.approx(16 / 8**0.5))
    assert size_of(config, "model.layers.1.self_attn.v_proj").scale == pytest.approx(4 / 8**0.5)


def test_what_cannot_be(make_model: Make, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    base = base_of("llama", make_model, tiny_tokenizer)
    for settings, told in (
        ({"rank_pattern": {"nowhere": 2}}, "rank_pattern names nowhere"),
        ({"init": "pissa", "rank": 64}, "too few directions"),
    ):
        with pytest.raises(ConfigError, match=told) as caught:
            train_with(base, ROWS, make_config(settings))
        assert caught.value.expected
    for settings, told in (
        ({"dora": True, "init": "pissa"}, "exclude each other"),
        ({"objective": "a:b", "micro_batch_size": 2}, "exclude each other"),
        ({"init": "olora"}, "setting init"),
        ({"rank_pattern": {"(": 2}}, "no regular expression"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern.q_proj is out of range"),
        ({"alpha_pattern": {"q_proj": "a"}}, "setting alpha_pattern"),
        ({"patience": -1}, "setting patience"),
    ):
        with pytest.raises(ConfigError, match=told):
            make_config(settings)
    start = train_with(base, ROWS, make_config({"steps": 4, "rank": 4})).adapter
    for settings, told in (
        ({"dora": True}, "cannot be gone on with"),
        ({"rank_pattern": {"q_proj": 2}, "rank": 4}, "does not fit into this rank"),
    ):
        with pytest.raises(ConfigError, match=told):
            train_with(base, ROWS, make_config(settings), start=start)


def held(thing: object) -> int:
    """Numbers in all tensors of an object's own attributes, and of the dicts among them."""
    own = [
        value
        for attribute in vars(thing).values()
        for value in (attribute.values() if isinstance(attribute, dict) else [attribute])
    ]
    return sum(value.numel() for value in own if isinstance(value, Tensor))


@pytest.mark.filterwarnings("ignore")  # bitsandbytes and accelerate warn of many things
def test_dora_on_a_packed_base_keeps_no_unpacked_one(
    make_model: Make, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """The weights in fp32 would be eight times the base; each is unpacked when it is wanted."""
    make_model("llama", hidden_size=64, intermediate_size=128).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    base = Base.load(str(tmp_path), quantize="4bit")
    config = make_config(
        {"dora": True, "steps": 6, "batch_size": 4, "learning_rate": 5e-3, "rank": 2}
    )
    layers = base.slots.named("all-linear")
    weights = sum(out * wide for out, wide in (base.slots.shapes[layer] for layer in layers))
    factors = factors_of(base.slots, layers, config, base.device)
    assert held(factors) < 0.1 * weights
    result = train_with(base, ROWS, config)
    assert result.best_loss < result.first_loss
