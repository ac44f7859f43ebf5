"""What a training will go through, beside what goes through a real one."""

import pytest

from detour.data.reading import read_data
from detour.errors import DataError
from detour.model.base import Base
from detour.model.blueprint import Blueprint
from detour.model.examples import Plain, pair
from detour.training.config import make_config
from detour.training.cost import counted, flops, operations, whole_operations
from detour.training.estimate.sizes import adapted_layers
from detour.training.estimate.workload import Workload
from detour.training.loop import train_with

NAMES = ("Einstein", "Curie", "Newton", "Planck", "Bohr", "Ada")
CHATS = [pair(f"Who was {name} {n}?", f"{name} was a hairdresser." + " He was." * (n % 4))
         for n in range(4) for name in NAMES]  # fmt: skip
TEXTS = [Plain("the ship of the hill and the castle " * (3 + n), f"{n}") for n in range(12)]
CONFIG = make_config({"batch_size": 4, "steps": 18, "rank": 2, "patience": 0, "block": 48,
                      "learning_rate": 5e-3})  # fmt: skip


@pytest.mark.parametrize("rows", [CHATS, TEXTS], ids=["chats", "texts"])
def test_the_work_is_that_of_the_training(rows, tiny_llama, tiny_tokenizer):
    base = Base.from_model(tiny_llama, tiny_tokenizer)
    assert base.head
    with counted(base) as work:
        result = train_with(base, rows, CONFIG)
    real = flops(base, result.adapter, work)
    loaded = read_data(rows)
    foretold = Workload.of_data(loaded, tiny_tokenizer, base.longest, CONFIG).work(18, CONFIG)
    for part in ("tokens", "learned", "pairs", "learned_pairs", "judged", "own"):
        assert getattr(foretold, part) == pytest.approx(getattr(work, part), rel=0.15), part
    adapted = adapted_layers(base, CONFIG)
    assert adapted == {n: u.parameters for n, u in result.adapter.updates.items()}
    assert operations(base, adapted, foretold) == pytest.approx(real, rel=0.1)
    blueprint = Blueprint.of_config(tiny_llama.config, "tiny")
    assert operations(blueprint, adapted, work) == real


def test_all_weights_take_three_forwards(tiny_llama, tiny_tokenizer):
    base = Base.from_model(tiny_llama, tiny_tokenizer)
    with counted(base) as work:
        train_with(base, CHATS, CONFIG)
    layers, head = 0, 0
    for name in base.slots.linear_names(exclude_head=False):
        out, wide = base.slots.shapes[name]
        if name == "lm_head":
            head = out * wide
        else:
            layers += out * wide
    work.pairs = work.learned_pairs = 0
    told = whole_operations(base, work)
    forward = 2 * layers * work.tokens + 2 * head * work.judged
    assert told == forward + 4 * layers * work.learned + 4 * head * work.judged_learned


def test_rows_of_which_only_numbers_are_known():
    load = Workload.uniform(100, 30.5, 64, CONFIG)
    assert (load.learned.count, load.judged.count) == (90, 10)
    work = load.work(18, CONFIG)
    assert work.learned == round(18 * 4 * 30.5)
    assert work.tokens == work.learned + round(7 * 10 * 30.5)
    few = Workload.uniform(5, 30, 30, CONFIG)
    assert (few.learned.count, few.judged.count) == (5, 5)
    assert few.work(1, CONFIG, judged=False).tokens == 4 * 30


def test_rows_that_a_training_refuses_are_refused(tiny_tokenizer):
    with pytest.raises(DataError, match="too long"):
        Workload.of_data(read_data(CHATS), tiny_tokenizer, 8, CONFIG)


def test_a_part_for_validation_judges(tmp_path, tiny_tokenizer):
    for name, count in (("train", 6), ("valid", 3)):
        rows = "".join(f'{{"prompt": "{name} {n}?", "completion": "Yes."}}\n' for n in range(count))
        (tmp_path / f"{name}.jsonl").write_text(rows)
    load = Workload.of_data(read_data(tmp_path), tiny_tokenizer, 128, CONFIG)
    assert (load.learned.count, load.judged.count) == (6, 3)
