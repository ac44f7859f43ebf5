"""Adapters as values."""

import copy
import pickle

import pytest
import torch

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.fingerprint import Fingerprint
from detour.adapter.update import Update


def make(value: float = 1.0, scale: float = 1.0) -> Adapter:
    first = Update(torch.full((2, 3), value), torch.ones(4, 2), scale)
    return Adapter({"b": first, "a": Update(torch.ones(3, 3), torch.ones(4, 3))}, "one")


def test_size_and_norm():
    adapter = make()
    assert adapter.rank == 3
    assert adapter.parameters == 2 * 3 + 4 * 2 + 3 * 3 + 4 * 3
    dense = torch.stack([update.delta() for update in adapter.updates.values()])
    assert adapter.norm() == pytest.approx(float(dense.norm()))
    assert Adapter({}, "none").rank == 0
    assert repr(adapter) == "Adapter('one', rank 3, 2 layers)"


def test_updates_cannot_be_changed():
    layers = dict(make().updates)
    adapter = Adapter(layers, "one")
    layers.clear()
    assert len(adapter.updates) == 2
    with pytest.raises(TypeError):
        adapter.updates["a"] = adapter.updates["b"]  # type: ignore[index]


def test_digest_sees_every_value_and_nothing_else():
    adapter = make()
    assert len(adapter.digest()) == 64
    turned = Adapter(dict(reversed(adapter.updates.items())), "two", card=Card(licence="mit"))
    assert turned.digest() == adapter.digest()
    different = [make(value=1.0001), make(scale=1.5), Adapter({"b": adapter.updates["b"]}, "one")]
    half = Adapter({"a": Update(torch.ones(3, 3).half(), torch.ones(4, 3).half())}, "one")
    whole = Adapter({"a": Update(torch.ones(3, 3), torch.ones(4, 3))}, "one")
    rows = Adapter({"a": Update(torch.ones(3, 3), torch.ones(4, 3), 1.0, torch.ones(4))}, "one")
    bias = Adapter(
        {"a": Update(torch.ones(3, 3), torch.ones(4, 3), bias_delta=torch.ones(4))}, "one"
    )
    digests = {item.digest() for item in [adapter, *different, half, whole, rows, bias]}
    assert len(digests) == 8


def test_with_returns_a_new_one():
    adapter, base = make(), Fingerprint("tiny", "c", "w")
    other = adapter.with_(name="two", base=base, card=Card(fictional=True), test_rows=({"a": 1},))
    assert (other.name, other.base, other.card.fictional) == ("two", base, True)
    assert (adapter.name, adapter.base, adapter.test_rows) == ("one", None, ())
    assert other.with_(name="three").test_rows == ({"a": 1},)


def test_travels_between_processes():
    adapter = make().with_(base=Fingerprint("tiny", "c", "w"))
    for twin in (pickle.loads(pickle.dumps(adapter)), copy.deepcopy(adapter)):
        assert (twin.name, twin.base, twin.digest()) == (
            adapter.name,
            adapter.base,
            adapter.digest(),
        )
