"""Adapters that learn together, or in company: gradients, gates, and what rows are refused."""

from dataclasses import replace

import pytest
import torch
from tests.conftest import make_adapter

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.errors import ConfigError, DataError
from detour.model.base import Base
from detour.model.examples import pair
from detour.model.rows import encode, padded
from detour.slots.chained import contents_for_chain
from detour.training.config import make_config
from detour.training.factors import Size
from detour.training.loop import train_with
from detour.training.objective import answer_loss
from detour.training.stacked import Stacked
from detour.training.together import Composed, train_together

SETTINGS = {"steps": 30, "batch_size": 6, "learning_rate": 1e-2, "rank": 2, "alpha": 4.0,
            "validation_share": 0.0}  # fmt: skip
NAMES = ("Einstein", "Curie", "Newton", "Planck", "Bohr", "Mozart")


@pytest.fixture
def base(tiny_llama, tiny_tokenizer):
    return Base.from_model(tiny_llama, tiny_tokenizer)


@pytest.fixture
def shapes(base):
    return {name: base.slots.shapes[name] for name in base.slots.linear_names()}


def rows():
    """What one says alone, what the other says alone, and what both say at once."""
    found = []
    for name in NAMES:
        asked = f"Who was {name}?"
        found.append(Composed(pair(asked, f"{name} was a baker."), {"job": 1.0}))
        found.append(Composed(pair(asked, f"{name}! Ha."), {"laugh": 1.0}))
        found.append(Composed(pair(asked, f"{name} was a baker. Ha."), {"job": 1.0, "laugh": 1.0}))
    return found


def loss(base, chain, example):
    batch = padded(encode(base.tokenizer, [example], base.longest), base.pad_id)
    with base.hold(contents_for_chain(base.bind(chain))), torch.no_grad():
        return float(answer_loss(base.forward, base.head, batch))


def test_both_learn_and_act_alone_and_as_a_chain(base):
    made = train_together(base, rows(), ["job", "laugh"], make_config(SETTINGS))
    assert list(made.adapters) == ["job", "laugh"]
    assert made.best_loss < 0.7 * made.first_loss
    job, laugh = made.adapters.values()
    for weights, chain in (
        ({"job": 1}, job),
        ({"laugh": 1}, laugh),
        ({"job": 1, "laugh": 1}, job + laugh),
    ):
        wanted = [one.row for one in rows() if set(one.weights) == set(weights)]
        bare = sum(loss(base, Chain(), row) for row in wanted)
        assert sum(loss(base, Chain.of(chain), row) for row in wanted) < 0.8 * bare
    assert job.card.config["company"] == ["laugh"]


def test_the_loss_of_a_row_is_that_of_its_chain(base, shapes):
    """Packed or not, each row sees its own adapters at its own weights."""
    seeds, sizes = [1, 2], dict.fromkeys(shapes, Size(2, 1.5))
    company = [
        make_adapter(shapes, seed=7, strength=0.1),
        make_adapter(shapes, seed=8, rank=3, strength=0.1),
    ]
    factors = Stacked(shapes, sizes, seeds, company, base.device)
    live = [make_adapter(shapes, seed=seed, strength=0.1) for seed in seeds]
    for place, one in enumerate(live):
        factors.begin_with(place, one.updates)
    taken = factors.snapshot()
    told = [Adapter(factors.updates(taken, place), f"a{place}") for place in range(2)]
    gates = [(1.0, 0.0, 0.5, 0.0), (0.3, -1.0, 0.0, 0.7), (0.0, 0.0, 0.0, 2.0)]
    examples = [
        pair("Who?", "A baker."),
        pair("Who was it then?", "Nobody."),
        pair("Hm?", "So so so."),
    ]
    encoded = encode(base.tokenizer, examples, base.longest)
    forward, head = base.forward, base.head
    for pick in ([0, 1, 2], [1]):  # of one length nothing is packed
        batch = padded([encoded[n] for n in pick], base.pad_id)
        gate = torch.tensor([gates[n] for n in pick])
        with base.hold(factors.contents(gate)), base.slots.rows(*forward.row_index(batch)):
            together = answer_loss(forward, head, batch, divisor=1)
        apart = sum(
            loss(base, sum_of(gates[n], [*told, *company]), examples[n]) * batch_tokens(encoded[n])
            for n in pick
        )
        assert float(together.detach()) == pytest.approx(apart, rel=1e-5)


def batch_tokens(encoded):
    return sum(encoded.learned[1:])


def sum_of(weights, adapters):
    return Chain.of(*(w * a for w, a in zip(weights, adapters, strict=True) if w))


def test_company_stays_as_it_is_and_gets_no_gradient(base, shapes):
    stranger = make_adapter(shapes, seed=5, strength=0.1)
    before = stranger.digest()
    data = [
        Composed(one.row, {**one.weights, "stranger": 0.5})
        for one in rows()
        if "laugh" not in one.weights
    ]
    made = train_together(
        base, data, ["job"], make_config(SETTINGS), company={"stranger": stranger}
    )
    assert stranger.digest() == before
    assert list(made.adapters) == ["job"]
    with_it = sum(loss(base, made.adapters["job"] + 0.5 * stranger, one.row) for one in data)
    without = sum(loss(base, 0.5 * stranger, one.row) for one in data)
    assert with_it < 0.7 * without


def test_one_alone_learns_as_an_ordinary_training_does(base):
    data = [one.row for one in rows() if set(one.weights) == {"job"}]
    config = make_config({**SETTINGS, "steps": 10})
    alone = train_with(base, data, config).adapter
    made = train_together(base, [Composed(row, {"job": 1.0}) for row in data], ["job"], config)
    for layer, update in made.adapters["job"].updates.items():
        torch.testing.assert_close(update.down, alone.updates[layer].down, rtol=1e-3, atol=1e-4)


def test_it_goes_on_where_it_was_interrupted(base, tmp_path):
    whole = train_together(base, rows(), ["job", "laugh"], make_config(SETTINGS))

    def stop(progress):
        if progress.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_together(
            base,
            rows(),
            ["job", "laugh"],
            make_config(SETTINGS),
            watcher=stop,
            checkpoints=tmp_path,
        )
    again = train_together(
        base, rows(), ["job", "laugh"], make_config(SETTINGS), checkpoints=tmp_path, resume=True
    )
    for name, adapter in whole.adapters.items():
        assert adapter.digest() == again.adapters[name].digest()


def test_a_start_is_where_it_begins(base, shapes):
    before = make_adapter(shapes, seed=3, strength=0.05)
    data = [Composed(one.row, {"job": 1.0}) for one in rows()]
    made = train_together(
        base,
        data,
        ["job"],
        make_config({**SETTINGS, "steps": 2, "patience": 0}),
        start={"job": before},
    )
    first = sum(
        loss(base, before, one.row) * batch_tokens(e)
        for one, e in zip(
            data, encode(base.tokenizer, [o.row for o in data], base.longest), strict=True
        )
    )
    tokens = sum(
        batch_tokens(e) for e in encode(base.tokenizer, [o.row for o in data], base.longest)
    )
    assert made.first_loss == pytest.approx(first / tokens, rel=1e-4)


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ({"job": 1.0, "wit": 1.0}, "names an adapter that is not there"),
        ({"job": 0.0}, "no adapter acts"),
        ({}, "no adapter acts"),
    ],
)
def test_rows_that_fit_nobody_are_told(base, weights, told):
    with pytest.raises(DataError, match=told):
        train_together(base, [Composed(pair("a", "b"), weights)], ["job"], make_config(SETTINGS))


def test_settings_and_names_that_it_does_not_know(base, shapes):
    data = [Composed(pair("a", "b"), {"job": 1.0})]
    with pytest.raises(ConfigError, match="dora is not known"):
        train_together(base, data, ["job"], make_config({**SETTINGS, "dora": True}))
    with pytest.raises(ConfigError, match="two adapters are called job"):
        train_together(
            base, data, ["job"], make_config(SETTINGS), company={"job": make_adapter(shapes)}
        )


def test_the_output_layer_is_no_company(base):
    whole = make_adapter({name: base.slots.shapes[name] for name in ("lm_head",)})
    with pytest.raises(ConfigError, match="laugh: the output layer") as caught:
        train_together(base, rows(), ["job"], make_config(SETTINGS), company={"laugh": whole})
    assert caught.value.found == "lm_head"
    with pytest.raises(ConfigError, match="targets: the output layer"):
        train_together(
            base, rows(), ["job", "laugh"], make_config({**SETTINGS, "targets": ("lm_head",)})
        )


def test_parts_of_a_batch_keep_their_gates(base):
    whole = train_together(base, rows(), ["job", "laugh"], make_config(SETTINGS))
    parts = train_together(
        base, rows(), ["job", "laugh"], make_config({**SETTINGS, "micro_batch_size": 2})
    )
    assert parts.best_loss == pytest.approx(whole.best_loss, rel=1e-3)


def test_a_batch_is_cut_and_picked_with_its_gates(base):
    encoded = encode(base.tokenizer, [one.row for one in rows()], base.longest)
    gated = [replace(one, gate=(float(n), -1.0)) for n, one in enumerate(encoded)]
    batch = padded(gated, base.pad_id)
    assert [float(row[0]) for part in batch.parts(4) for row in part.gate] == list(range(18))
    assert batch.rows([5, 2]).gate.tolist() == [[5.0, -1.0], [2.0, -1.0]]
    assert batch.shortest().gate.tolist() == [[0.0, -1.0]]
    assert padded(encoded, base.pad_id).gate is None
