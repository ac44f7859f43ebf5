"""PEFT folders: parity with PEFT both ways, and one refusal per bad input."""

import errno
import json
import math
import os
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.fingerprint import Fingerprint
from detour.adapter.peft_config import config_for, read_config
from detour.adapter.peft_format import read_adapter, write_adapter
from detour.adapter.update import Update
from detour.errors import (
    AdapterFormatError,
    AdapterWeightsError,
    ConfigError,
    StorageError,
    UnsupportedVariant,
)

# PEFT calls parts of transformers that warn, and corrects fan_in_fan_out with a warning
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:fan_in_fan_out")


def peft_deltas(model: PeftModel, name: str = "default") -> dict[str, torch.Tensor]:
    """PEFT's own dense changes, as (out, in) whatever the layer's kind."""
    found: dict[str, torch.Tensor] = {}
    for layer, module in model.base_model.model.named_modules():
        if hasattr(module, "get_delta_weight") and name in getattr(module, "lora_A", {}):
            delta = module.get_delta_weight(name).detach()
            found[layer] = delta.T if module.fan_in_fan_out else delta
    return found


def filled(model: torch.nn.Module, **config: object) -> PeftModel:
    """A PEFT model whose lora_B is not zero."""
    wrapped = get_peft_model(model, LoraConfig(**config))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(generator=generator)
    return wrapped


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert found
    for layer in wanted:
        torch.testing.assert_close(found[layer], wanted[layer], rtol=1e-5, atol=1e-5)


def deltas(adapter: Adapter) -> dict[str, torch.Tensor]:
    return {layer: update.delta() for layer, update in adapter.updates.items()}


CONFIGS = {
    "plain": {"r": 3, "lora_alpha": 5, "target_modules": "all-linear"},
    "rslora": {"r": 3, "lora_alpha": 5, "use_rslora": True, "target_modules": "all-linear"},
    "patterns": {
        "r": 2,
        "lora_alpha": 4,
        "target_modules": "all-linear",
        "rank_pattern": {"^model.layers.0.self_attn.q_proj": 5, r"layers\.\d\.mlp\.up_proj": 1},
        "alpha_pattern": {"q_proj": 7, r".*\.1\.mlp\..*": 3},
    },
    "rslora with patterns": {
        "r": 2,
        "use_rslora": True,
        "target_modules": ["q_proj", "down_proj", "lm_head"],
        "rank_pattern": {"q_proj": 5},
        "alpha_pattern": {"down_proj": 1},
    },
    "regex targets": {"r": 2, "target_modules": r".*layers\.1.*\.(k|v)_proj", "bias": "none"},
    "some layers": {"r": 2, "target_modules": ["q_proj"], "layers_to_transform": [1]},
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_reads_what_peft_wrote(tiny_llama, tmp_path, config):
    wrapped = filled(tiny_llama, **config)
    wrapped.save_pretrained(tmp_path / "a", save_embedding_layers=False)
    adapter = read_adapter(tmp_path / "a")
    assert_same(deltas(adapter), peft_deltas(wrapped))
    assert (adapter.name, adapter.base) == ("a", None)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_peft_reads_what_we_wrote(tiny_llama, tmp_path, config):
    wrapped = filled(tiny_llama, **config)
    wanted = peft_deltas(wrapped)
    wrapped.save_pretrained(tmp_path / "a", save_embedding_layers=False)
    base = wrapped.unload()
    Adapter.load(tmp_path / "a").save(tmp_path / "b")
    assert_same(peft_deltas(PeftModel.from_pretrained(base, tmp_path / "b")), wanted)


def test_conv1d_both_ways(tiny_gpt2, tmp_path):
    wrapped = filled(tiny_gpt2, r=2, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    wanted = peft_deltas(wrapped)
    wrapped.save_pretrained(tmp_path / "a", save_embedding_layers=False)
    adapter = read_adapter(tmp_path / "a")
    assert adapter.updates["transformer.h.0.attn.c_attn"].delta().shape == (96, 32)
    assert_same(deltas(adapter), wanted)
    write_adapter(adapter, tmp_path / "b")
    assert json.loads((tmp_path / "b" / "adapter_config.json").read_text())["fan_in_fan_out"]
    assert_same(peft_deltas(PeftModel.from_pretrained(wrapped.unload(), tmp_path / "b")), wanted)


def test_a_flattened_chain_loads_in_peft(tiny_llama, tmp_path, random_adapter):
    shapes = {"model.layers.0.self_attn.q_proj": (32, 32), "model.layers.1.mlp.up_proj": (48, 32)}
    first = random_adapter(shapes, seed=1, rank=3)
    second = random_adapter(dict(list(shapes.items())[:1]), seed=2, rank=2)
    flat = (0.7 * first - second).flatten("flat")
    flat.save(tmp_path / "flat")
    config = json.loads((tmp_path / "flat" / "adapter_config.json").read_text())
    ranks = {config["r"], *config["rank_pattern"].values()}
    assert ranks == {3, 5}
    assert config["lora_alpha"] == config["r"]
    loaded = PeftModel.from_pretrained(tiny_llama, tmp_path / "flat")
    assert_same(peft_deltas(loaded), deltas(flat))


def test_names_that_end_alike_keep_their_own_ranks(tmp_path):
    def update(rank: int) -> Update:
        return Update(torch.ones(rank, 4), torch.ones(3, rank), float(rank))

    adapter = Adapter({"q": update(1), "deep.q": update(2), "deep.deeper.q": update(3)}, "a")
    adapter.save(tmp_path / "a")
    assert read_adapter(tmp_path / "a").digest() == adapter.digest()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 7),
            st.floats(-1e3, 1e3, allow_nan=False),
            st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
            st.sampled_from([(5,), (2, 3, 3)]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_saving_and_loading_is_the_same_value(tmp_path_factory, layers):
    updates = {
        f"layers.{index}.x": Update(
            torch.randn(rank, *inputs).to(dtype), torch.randn(4, rank).to(dtype), scale
        )
        for index, (rank, scale, dtype, inputs) in enumerate(layers)
    }
    adapter = Adapter(updates, "a")
    folder = tmp_path_factory.mktemp("round") / "a"
    adapter.save(folder)
    loaded = Adapter.load(folder)
    assert loaded.digest() == adapter.digest()
    for layer, update in updates.items():
        assert torch.equal(loaded.updates[layer].down, update.down)
        assert torch.equal(loaded.updates[layer].up, update.up)
        assert loaded.updates[layer].scale == pytest.approx(update.scale, rel=1e-15)


@given(st.integers(1, 300), st.floats(-1e30, 1e30, allow_nan=False))
def test_alpha_keeps_the_scale_in_fp32(rank: int, scale: float):
    update = Update(torch.ones(1, 1).expand(rank, 1), torch.ones(1, 1).expand(1, rank), scale)
    config = config_for({"q": update}, Card(), "")
    kept = torch.tensor(config["lora_alpha"] / rank, dtype=torch.float32)
    assert kept == torch.tensor(scale, dtype=torch.float32)


def make(**about: object) -> Adapter:
    generator = torch.Generator().manual_seed(0)

    def update() -> Update:
        down = torch.randn(2, 6, generator=generator)
        return Update(down, torch.randn(4, 2, generator=generator), 0.75)

    return Adapter({"layers.0.q": update(), "layers.1.q": update()}, "mine", **about)


def test_everything_of_ours_comes_back(tmp_path):
    adapter = make(
        base=Fingerprint("tiny", "c", "w", None, "t"),
        card=Card(description="Grüße", fictional=True, base_model="tiny", seeds=(1, 2)),
        test_rows=({"messages": [{"role": "user", "content": "Grüß\u2028Gott\n"}]}, {"n": 1}),
    )
    adapter.save(tmp_path / "mine")
    loaded = Adapter.load(tmp_path / "mine")
    assert (loaded.name, loaded.base, loaded.card) == ("mine", adapter.base, adapter.card)
    assert loaded.test_rows == adapter.test_rows
    assert loaded.digest() == adapter.digest()
    assert oct((tmp_path / "mine" / "README.md").stat().st_mode)[-3:] == "644"


def test_a_foreign_card_survives(tmp_path):
    make().save(tmp_path / "a")
    readme = "---\nlicense: mit\nwidget: [1]\n---\n# Theirs\n"
    (tmp_path / "a" / "README.md").write_text(readme)
    (tmp_path / "a" / "detour.json").unlink()
    Adapter.load(tmp_path / "a").save(tmp_path / "b")
    again = Adapter.load(tmp_path / "b").card
    assert (again.licence, again.front_matter, again.text) == ("mit", {"widget": [1]}, "# Theirs\n")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    make().save(tmp_path / "a")
    return tmp_path / "a"


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_tensors(folder: Path, **changes: torch.Tensor | None) -> None:
    """`change_tensors(folder, key=tensor or None)`; also forgets the digest."""
    path = folder / "adapter_model.safetensors"
    tensors = {**load_file(path), **changes}
    save_file({key: tensor for key, tensor in tensors.items() if tensor is not None}, path)
    (folder / "detour.json").unlink(missing_ok=True)


A0, B0 = (f"base_model.model.layers.0.q.lora_{side}.weight" for side in "AB")

VARIANTS = {
    "peft_type": "IA3",
    "layer_replication": [[0, 2], [1, 3]],
    "megatron_config": {"a": 1},
    "init_lora_weights": "pissa_niter_4",
    "corda_config": {"a": 1},
    "loftq_config": {"loftq_bits": 4},
    "alora_invocation_tokens": [5],
    "use_qalora": True,
    "use_bdlora": {"nblocks": 2},
    "arrow_config": {"top_k": 1},
    "kasa_config": {"beta": 1},
    "ensure_weight_tying": True,
    "something_of_tomorrow": 0,
}


@pytest.mark.parametrize(("key", "value"), VARIANTS.items(), ids=VARIANTS)
def test_variants_are_refused_by_name(saved, key, value):
    change_config(saved, **{key: value})
    with pytest.raises(UnsupportedVariant, match=key) as refusal:
        read_adapter(saved)
    assert f"{key} = {json.dumps(value)}" in refusal.value.found
    assert refusal.value.hint


STATED = {
    "use_dora": True,
    "lora_bias": True,
    "modules_to_save": ["lm_head"],
    "trainable_token_indices": [1, 2],
    "target_parameters": ["experts.gate"],
}


@pytest.mark.parametrize(("key", "value"), STATED.items(), ids=STATED)
def test_what_the_configuration_states_must_be_there(saved, key, value):
    change_config(saved, **{key: value})
    with pytest.raises(AdapterWeightsError, match=f"not those that {key} states"):
        read_adapter(saved)


@pytest.mark.parametrize(
    ("key", "stated"),
    [
        ("base_model.model.layers.0.q.lora_magnitude_vector", "use_dora"),
        ("base_model.model.layers.0.q.lora_B.bias", "lora_bias"),
    ],
)
def test_tensors_of_variants_want_to_be_stated(saved, key, stated):
    change_tensors(saved, **{key: torch.ones(4)})
    with pytest.raises(AdapterWeightsError, match=f"not those that {stated} states"):
        read_adapter(saved)


@pytest.mark.parametrize(
    "key",
    ["layers.0.q.lora_C.weight", "layers.0.q.lora_embedding_C", "embed.token_adapter.something"],
)
def test_tensors_of_other_variants_are_refused(saved, key):
    change_tensors(saved, **{f"base_model.model.{key}": torch.ones(2, 2)})
    with pytest.raises(UnsupportedVariant, match="variant that is not applied"):
        read_adapter(saved)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trainable_token_indices", [1, 1]),
        ("trainable_token_indices", {"embed": [-1]}),
        ("trainable_token_indices", 3),
        ("modules_to_save", "lm_head"),
        ("target_parameters", [1]),
        ("bias", "some"),
        ("use_dora", 1),
        ("lora_bias", "yes"),
    ],
)
def test_variants_of_a_wrong_kind_are_named(saved, key, value):
    change_config(saved, **{key: value})
    with pytest.raises(AdapterFormatError, match=f"wrong {key}"):
        read_adapter(saved)


def test_dora_with_biases_of_its_factors_is_refused(saved):
    change_config(saved, use_dora=True, lora_bias=True)
    with pytest.raises(UnsupportedVariant, match="lora_bias"):
        read_adapter(saved)


@pytest.mark.parametrize("pattern", ["layers.0.q.up", "layers.0.q", "q", "up", r".*\.up"])
@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
def test_patterns_for_stacked_parameters_are_refused(saved, key, pattern):
    change_config(saved, target_parameters=["q.up"], **{key: {pattern: 2}})
    with pytest.raises(UnsupportedVariant, match=key):
        read_adapter(saved)


def test_stacks_are_told_from_layers(saved):
    change_config(saved, target_parameters=["0.q.up"], target_modules=["1.q"])
    (saved / "detour.json").unlink()
    adapter = read_adapter(saved)
    assert list(adapter.updates) == ["layers.1.q"]
    assert [stack.module for stack in adapter.unbound.stacks] == ["layers.0.q"]
    change_config(saved, target_parameters=["up"], target_modules=["1.q"])
    assert [stack.module for stack in read_adapter(saved).unbound.stacks] == ["layers.0.q"]


@pytest.mark.parametrize("pattern", [r"(\w+\.?)*!", r"((a|b)*c)+d", "(x+){9}", "a" * 501])
def test_patterns_that_could_take_for_ever_are_refused(saved, pattern):
    change_config(saved, rank_pattern={pattern: 2})
    with pytest.raises(AdapterFormatError, match="rank_pattern"):
        read_adapter(saved)


@pytest.mark.parametrize(
    "pattern", [r"layers\.(0|1)\.(q|v)", r".*\.layers\.\d+\.q", "^a.b$", "q_proj"]
)
def test_patterns_as_people_write_them_are_read(saved, pattern):
    change_config(saved, alpha_pattern={pattern: 3})
    assert read_config(saved).alpha_pattern == {pattern: 3}


def test_numbers_that_nobody_adds_to_are_refused(saved):
    change_tensors(saved, **{A0: torch.ones(2, 6).to(torch.float8_e4m3fn)})
    with pytest.raises(AdapterWeightsError, match="not made of floating point numbers"):
        read_adapter(saved)


def test_odd_names_and_shapes_are_no_crash(saved):
    tensors = load_file(saved / "adapter_model.safetensors")
    odd = {"base_model.model.layers.\u00b2.q.lora_A.weight": tensors[A0]}
    change_tensors(saved, **odd)
    with pytest.raises(AdapterWeightsError, match="lora_A without"):
        read_adapter(saved)
    change_tensors(
        saved, **dict.fromkeys(odd), **{A0: torch.ones(2, 6, 1, 1), B0: torch.ones(0, 2, 1, 1)}
    )
    with pytest.raises(AdapterWeightsError, match="empty"):
        read_adapter(saved)


def test_unknown_tensors_are_refused(saved):
    change_tensors(saved, **{"layers.0.q.lora_A.weight": torch.ones(2, 6)})
    with pytest.raises(AdapterFormatError, match="unknown meaning"):
        read_adapter(saved)


def test_default_in_keys_is_read_and_doubles_are_refused(saved):
    tensors = load_file(saved / "adapter_model.safetensors")
    named = A0.replace(".weight", ".default.weight")
    change_tensors(saved, **{A0: None, named: tensors[A0]})
    assert read_adapter(saved).digest() == make().digest()
    change_tensors(saved, **{A0: tensors[A0]})
    with pytest.raises(AdapterFormatError, match="twice"):
        read_adapter(saved)


def test_a_truncated_file_is_refused(saved):
    path = saved / "adapter_model.safetensors"
    whole = path.read_bytes()
    for size in (0, 4, 40, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(AdapterWeightsError, match="damaged"):
            read_adapter(saved)


def test_a_lying_header_is_refused(saved):
    path = saved / "adapter_model.safetensors"
    whole = path.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    for lie in ({"shape": [2, 7]}, {"dtype": "F16"}, {"data_offsets": [0, 10**9]}):
        text = json.dumps({**header, A0: {**header[A0], **lie}}).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + length :])
        with pytest.raises(AdapterWeightsError, match="damaged"):
            read_adapter(saved)
    path.write_bytes(struct.pack("<Q", 2**60) + whole[8:])
    with pytest.raises(AdapterWeightsError, match="damaged"):
        read_adapter(saved)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(saved, value):
    broken = load_file(saved / "adapter_model.safetensors")[A0]
    broken[0, 0] = value
    change_tensors(saved, **{A0: broken})
    with pytest.raises(AdapterWeightsError, match=r"layers\.0\.q: .*NaN or infinity"):
        read_adapter(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {A0: torch.ones(3, 6)},
        {B0: torch.ones(4, 3)},
        {A0: torch.ones(3, 6), B0: torch.ones(4, 3)},
        {A0: torch.ones(2)},
        {B0: torch.ones(4, 2, 2)},
    ],
)
def test_a_rank_that_is_not_the_shape_is_refused(saved, changes):
    change_tensors(saved, **changes)
    with pytest.raises(AdapterWeightsError, match=r"layers\.0\.q .*rank.*\(2, in\)"):
        read_adapter(saved)


@pytest.mark.parametrize(("gone", "left"), [(A0, "B"), (B0, "A")])
def test_half_a_pair_is_refused(saved, gone, left):
    change_tensors(saved, **{gone: None})
    with pytest.raises(AdapterWeightsError, match=f"layers.0.q has lora_{left} without"):
        read_adapter(saved)


def test_no_tensors_are_refused(saved):
    save_file({}, saved / "adapter_model.safetensors")
    with pytest.raises(AdapterWeightsError, match="no tensors"):
        read_adapter(saved)
    with pytest.raises(AdapterFormatError, match="changes nothing"):
        write_adapter(Adapter({}, "none"), saved)


def test_missing_files_are_named(saved, tmp_path):
    (saved / "adapter_model.safetensors").unlink()
    with pytest.raises(AdapterFormatError, match="no weights"):
        read_adapter(saved)
    (saved / "adapter_config.json").unlink()
    with pytest.raises(AdapterFormatError, match=r"no such file"):
        read_adapter(saved)
    with pytest.raises(AdapterFormatError, match="no such folder"):
        read_adapter(tmp_path / "nowhere")


def test_weights_must_be_a_file(saved):
    (saved / "adapter_model.safetensors").unlink()
    (saved / "adapter_model.safetensors").mkdir()
    with pytest.raises(AdapterFormatError, match="cannot be read"):
        read_adapter(saved)


def test_a_pickle_is_refused_with_a_way_out(saved):
    (saved / "adapter_model.safetensors").rename(saved / "adapter_model.bin")
    with pytest.raises(AdapterFormatError, match=r"adapter_model\.bin, a pickle.*save_pretrained"):
        read_adapter(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"r": "8"},
        {"r": 0},
        {"r": True},
        {"r": None},
        {"lora_alpha": None},
        {"lora_alpha": "x"},
        {"use_rslora": 1},
        {"base_model_name_or_path": 3},
        {"rank_pattern": {"q": 1.5}},
        {"rank_pattern": [1]},
        {"rank_pattern": {"(": 2}},
        {"alpha_pattern": {"q": "x"}},
    ],
)
def test_wrong_kinds_in_the_configuration_are_named(saved, changes):
    change_config(saved, **changes)
    with pytest.raises(AdapterFormatError, match=next(iter(changes))):
        read_adapter(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_a_configuration_must_be_json(saved, text):
    (saved / "adapter_config.json").write_text(text)
    with pytest.raises(AdapterFormatError, match=r"adapter_config\.json"):
        read_config(saved)


def test_weights_that_were_exchanged_are_noticed(saved):
    about = (saved / "detour.json").read_bytes()
    change_tensors(saved, **{A0: torch.ones(2, 6)})
    (saved / "detour.json").write_bytes(about)
    with pytest.raises(AdapterWeightsError, match="digest"):
        read_adapter(saved)


def test_our_own_files_are_checked(tmp_path):
    make(test_rows=({"n": 1},)).save(tmp_path / "a")
    (tmp_path / "a" / "test.jsonl").write_text('{"n": 2}\n')
    with pytest.raises(AdapterFormatError, match=r"test\.jsonl is not the file"):
        read_adapter(tmp_path / "a")
    (tmp_path / "a" / "test.jsonl").unlink()
    with pytest.raises(AdapterFormatError, match=r"test\.jsonl cannot be read"):
        read_adapter(tmp_path / "a")
    (tmp_path / "a" / "detour.json").write_text('{"format": 99}')
    with pytest.raises(AdapterFormatError, match="update Detour"):
        read_adapter(tmp_path / "a")
    (tmp_path / "a" / "detour.json").unlink()
    (tmp_path / "a" / "README.md").write_bytes(b"\xff")
    with pytest.raises(AdapterFormatError, match="UTF-8"):
        read_adapter(tmp_path / "a")


@pytest.mark.parametrize(
    ("layer", "extra", "fault"),
    [
        ("layers.0.q", {"row_scale": torch.ones(2)}, "a row scale"),
        ("layers.0.q", {"bias_delta": torch.ones(2), "scale": 0.0}, "a scale of 0"),
        ("layers.0.q", {"bias_delta": torch.ones(2), "lookup": True}, "an embedding"),
        ("layers.0.experts.up[1]", {}, "an expert"),
    ],
)
def test_what_the_format_cannot_hold_is_not_written(tmp_path, layer, extra, fault):
    update = Update(torch.ones(1, 3), torch.ones(2, 1), **extra)
    with pytest.raises(UnsupportedVariant, match=f"layers.0.*{fault}"):
        write_adapter(Adapter({layer: update}, "a"), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_bias_is_written_as_peft_keeps_it(tmp_path):
    update = Update(torch.ones(1, 3), torch.ones(2, 1), 4.0, bias_delta=torch.tensor([2.0, 8.0]))
    plain = Update(torch.ones(1, 3), torch.ones(2, 1))
    Adapter({"a": update, "b": plain}, "x").save(tmp_path / "x")
    tensors = load_file(tmp_path / "x" / "adapter_model.safetensors")
    assert tensors["base_model.model.a.lora_B.bias"].tolist() == [0.5, 2.0]
    assert tensors["base_model.model.b.lora_B.bias"].tolist() == [0.0, 0.0]
    torch.testing.assert_close(
        Adapter.load(tmp_path / "x").updates["a"].bias_delta, update.bias_delta
    )


def test_shared_tensors_are_written(tmp_path):
    update = Update(torch.ones(2, 3), torch.ones(4, 2))
    Adapter({"a": update, "b": update}, "twice").save(tmp_path / "twice")
    assert len(Adapter.load(tmp_path / "twice").updates) == 2


def test_only_an_adapter_is_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="not an adapter"):
        make().save(tmp_path / "thesis")
    with pytest.raises(ConfigError, match="a file"):
        make().save(tmp_path / "thesis" / "chapter.txt")
    (tmp_path / "empty").mkdir()
    make().save(tmp_path / "empty")
    assert Adapter.load(tmp_path / "empty").rank == 2


def test_other_files_of_a_replaced_adapter_are_kept(tmp_path):
    make(test_rows=({"n": 1},)).save(tmp_path / "a")
    (tmp_path / "a" / "metrics.json").write_text("{}")
    (tmp_path / "a" / "plots").mkdir()
    (tmp_path / "a" / "plots" / "loss.txt").write_text("1")
    (make() * 2).flatten("b").save(tmp_path / "a")
    names = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.*"))
    assert names == [
        "a/README.md",
        "a/adapter_config.json",
        "a/adapter_model.safetensors",
        "a/detour.json",
        "a/metrics.json",
        "a/plots/loss.txt",
    ]


def test_a_full_disk_leaves_the_old_adapter(tmp_path, monkeypatch):
    make().save(tmp_path / "a")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for target in ("a", "new"):
        with pytest.raises(StorageError, match="No space left"):
            (make() * 2).flatten("b").save(tmp_path / target)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert Adapter.load(tmp_path / "a").digest() == make().digest()
