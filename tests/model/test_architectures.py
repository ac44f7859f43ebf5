"""Every variant of LoRA on every architecture: PEFT and we say the same, both ways.

The table in docs/architectures.md is what these tests found; `DETOUR_WRITE_TABLES=1` writes it.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tests.architectures import ARCHITECTURES, Architecture
from torch import Tensor, nn

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.model.binding import bound
from detour.slots.chained import contents_for_chain, contents_for_rows
from detour.slots.install import install

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # PEFT warns of what is meant here
]
DOCS = Path(__file__).parents[2] / "docs" / "architectures.md"
CLOSE = 1e-5  # logits in fp32, relative to the largest one where that is above 1


def embedding_of(model: nn.Module) -> str:
    found = model.get_input_embeddings()
    return next(name for name, module in model.named_modules() if module is found)


def head_of(model: nn.Module) -> str:
    found = model.get_output_embeddings()
    return next((name for name, module in model.named_modules() if module is found), "")


def last(name: str) -> str:
    return name.rpartition(".")[2]


def some_layer(one: Architecture) -> dict[str, object]:
    names = [n for n, _ in one.model().named_modules() if n.endswith("." + one.targets[0])]
    return {
        "rank_pattern": {"^" + names[0].replace(".", r"\."): 5, one.targets[-1]: 2},
        "alpha_pattern": {one.targets[-1]: 9},
    }


Options = Callable[[Architecture], dict[str, object] | None]
"""What LoraConfig gets besides; None where the architecture has no such part."""

VARIANTS: dict[str, Options] = {
    "LoRA": lambda _: {},
    "rsLoRA": lambda _: {"use_rslora": True},
    "patterns": some_layer,
    "some layers": lambda _: {"layers_to_transform": [1]},
    "excluded": lambda one: {"exclude_modules": [one.targets[-1]]},
    "bias all": lambda _: {"bias": "all"},
    "bias lora_only": lambda _: {"bias": "lora_only"},
    "lora_bias": lambda _: {"lora_bias": True},
    "DoRA": lambda _: {"use_dora": True},
    "embedding": lambda one: {"target_modules": [one.targets[0], last(embedding_of(one.model()))]},
    "DoRA embedding": lambda one: {
        "target_modules": [one.targets[0], last(embedding_of(one.model()))],
        "use_dora": True,
    },
    "saved head": lambda one: (
        {"modules_to_save": [last(head_of(one.model()))]} if head_of(one.model()) else None
    ),
    "saved embedding": lambda one: {"modules_to_save": [last(embedding_of(one.model()))]},
    "token rows": lambda one: {
        "trainable_token_indices": {last(embedding_of(one.model())): [3, 7, 20]}
    },
    "experts": lambda one: {"target_parameters": list(one.experts)} if one.experts else None,
    "convolution": lambda one: (
        {"target_modules": [one.targets[0], one.convolution]} if one.convolution else None
    ),
    "DoRA convolution": lambda one: (
        {
            "target_modules": [one.targets[0], one.convolution],
            "use_dora": True,
        }
        if one.convolution
        else None
    ),
}


def made_by_peft(one: Architecture, options: dict[str, object], folder: Path) -> Tensor:
    """An adapter of random values in `folder`, and what PEFT says with it once it is loaded."""
    config = {
        "r": 3,
        "lora_alpha": 5,
        "target_modules": list(one.targets),
        **one.options,
        **options,
    }
    model = get_peft_model(one.model(), LoraConfig(**config))
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn(parameter.shape, generator=generator) / 8
    model.save_pretrained(folder)
    return one.outputs(PeftModel.from_pretrained(one.model(), folder).eval())


def distance(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1.0))


def check(one: Architecture, options: dict[str, object], folder: Path) -> None:
    wanted = made_by_peft(one, options, folder / "theirs")
    model = one.model()
    before = one.outputs(model)
    slots = install(model)
    adapter = bound(Adapter.load(folder / "theirs"), model, slots)
    with slots.hold(contents_for_chain(Chain.of(adapter))):
        ours = one.outputs(model)
    assert distance(ours, wanted) <= CLOSE
    assert distance(before, wanted) > 100 * CLOSE, "the adapter does nothing"
    assert torch.equal(one.outputs(model), before), "something was left in the slots"
    if not options.get("target_parameters") and not has_bare_parameters(adapter, slots.kinds):
        rows = [Chain.of(adapter), None]
        with slots.hold(contents_for_rows(rows)), slots.rows(torch.arange(2), 6):
            mixed = one.outputs(model)
        assert distance(mixed[0], wanted[0]) <= CLOSE
        # experts gather the tokens of all rows, so that the other row's change their rounding
        assert distance(mixed[1], before[1]) <= (CLOSE if one.experts else 0.0)
    Adapter.load(folder / "theirs").save(folder / "ours")
    again = one.outputs(PeftModel.from_pretrained(one.model(), folder / "ours").eval())
    assert distance(again, wanted) <= CLOSE


def has_bare_parameters(adapter: Adapter, kinds: object) -> bool:
    return any(name not in kinds for name in adapter.updates)


def row_of(one: Architecture, tmp_path: Path) -> str:
    cells: list[str] = []
    for number, (name, options) in enumerate(VARIANTS.items()):
        given = options(one)
        if given is None or f"{one.name}/{name}" in UNSOUND:
            cells.append("–" if given is None else "no reference")
            continue
        try:
            check(one, given, tmp_path / str(number))
        except Exception as fault:
            fault.add_note(f"{one.name}, {name}")
            raise
        cells.append("yes")
    return "| " + " | ".join([one.name, *cells]) + " |"


UNSOUND = {
    "BERT/token rows": "PEFT 0.21 leaves the bias of a tied head out of its own forward",
    "RoBERTa/token rows": "the same",
}
"""Where PEFT itself says something else with the adapter than its formula; with the reason."""


HEAD = "| architecture | " + " | ".join(VARIANTS) + " |"


def with_row(page: str, row: str) -> str:
    """The page with this row in its table, in the order of the architectures."""
    lines = page.splitlines()
    begin = lines.index(HEAD) + 2
    end = next((n for n in range(begin, len(lines)) if not lines[n].startswith("|")), len(lines))
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in [*lines[begin:end], row]}
    ordered = [rows[name] for name in ARCHITECTURES if name in rows]
    return "\n".join([*lines[:begin], *ordered, *lines[end:]]) + "\n"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_variant_says_what_peft_says(name: str, tmp_path: Path) -> None:
    row = row_of(ARCHITECTURES[name], tmp_path)
    told = DOCS.read_text(encoding="utf-8")
    if os.environ.get("DETOUR_WRITE_TABLES"):
        DOCS.write_text(with_row(told, row), encoding="utf-8")
    assert row in DOCS.read_text(encoding="utf-8").splitlines(), "run with DETOUR_WRITE_TABLES=1"


def test_the_table_holds_nothing_else() -> None:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    assert lines.count(HEAD) == 1
    named = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")]
    assert named == ["architecture", "---", *ARCHITECTURES]
