"""The flat cache file: the same values, mapped; and what it refuses."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.fingerprint import Fingerprint
from detour.adapter.flat import check_free, read_flat, write_flat
from detour.adapter.library import Library
from detour.adapter.unbound import Unbound
from detour.adapter.update import Update
from detour.errors import (
    AdapterFormatError,
    AdapterWeightsError,
    ConfigError,
    UnsupportedVariant,
)

PRINTABLE = st.characters(exclude_categories=("C", "Z"), include_characters=" ")


def make() -> Adapter:
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    updates = {
        "layers.0.q": Update(some(2, 6), some(4, 2), 0.75),
        "layers.0.v": Update(some(3, 6), some(4, 3), 0.1, some(4), some(4)),
        "layers.10.bias": Update(some(0, 6), some(4, 0), bias_delta=some(4)),
        "patch": Update(some(2, 3, 5, 5), some(4, 2)),
        "embed": Update(some(2, 40), some(6, 2), lookup=True),
    }
    return Adapter(
        updates, "mine", Fingerprint("tiny", "c", "w"), Card(description="Grüße", fictional=True),
        ({"messages": [{"role": "user", "content": "Grüß Gott"}]},),
    )  # fmt: skip


def test_everything_comes_back(tmp_path):
    adapter = make()
    write_flat(adapter, tmp_path / "mine.flat")
    again = Adapter.load(tmp_path / "mine.flat")
    assert again.digest() == adapter.digest()
    assert (again.name, again.base, again.card, again.test_rows) == (
        "mine", adapter.base, adapter.card, adapter.test_rows,
    )  # fmt: skip
    assert list(again.updates) == list(adapter.updates)
    for name, update in adapter.updates.items():
        assert again.updates[name].lookup is update.lookup
        assert again.updates[name].down.shape == update.down.shape


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(PRINTABLE, min_size=1, max_size=20),
            st.integers(1, 7),
            st.floats(-1e3, 1e3, allow_nan=False),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda layer: layer[0],
    ),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_any_names_shapes_and_types(tmp_path_factory, layers, dtype):
    updates = {
        name: Update(torch.randn(rank, 5).to(dtype), torch.randn(4, rank).to(dtype), scale)
        for name, rank, scale in layers
    }
    path = tmp_path_factory.mktemp("flat") / "a.flat"
    write_flat(Adapter(updates, "a"), path)
    assert read_flat(path).digest() == Adapter(updates, "a").digest()


def test_a_replaced_file_does_not_move_what_was_read(tmp_path):
    path = tmp_path / "a.flat"
    write_flat(make(), path)
    before = read_flat(path)
    digest = make().digest()
    write_flat((make() * 2).flatten("b"), path)
    assert before.digest() == digest


def test_whole_values_are_refused(tmp_path):
    dora = Adapter({}, "dora", unbound=Unbound({"q": torch.ones(4)}))
    with pytest.raises(UnsupportedVariant, match=r"dora holds whole values.*--base"):
        write_flat(dora, tmp_path / "a.flat")
    with pytest.raises(AdapterFormatError, match="changes nothing"):
        write_flat(Adapter({}, "a"), tmp_path / "a.flat")
    assert not (tmp_path / "a.flat").exists()


def spoil(path: Path, **changes: object) -> None:
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["detour.flat"])
        values = file.get_tensor("values").clone()
    about = {**about, **changes}
    told = {key: value for key, value in about.items() if value is not None}
    save_file({"values": values}, path, metadata={"detour.flat": json.dumps(told)})


TYPES = {"down": "F32", "up": "F32"}
Q = {"down": [2, 6], "out": 4, "scale": 1.0, "types": TYPES, "lookup": False}


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 1},
        {"layers": None},
        {"layers": []},
        {"layers": {"q": {**Q, "down": [2, 6000]}}},
        {"layers": {"q": {**Q, "down": [-2, 6]}}},
        {"layers": {"q": {**Q, "out": "4"}}},
        {"layers": {"q": {**Q, "scale": None}}},
        {"layers": {"q": {**Q, "types": {"down": "F12", "up": "F32"}}}},
        {"digest": None},
        {"layers": {"q": Q}},
        {"card": 3},
    ],
)
def test_a_table_that_lies_is_refused(tmp_path, changes):
    path = tmp_path / "a.flat"
    write_flat(make(), path)
    spoil(path, **changes)
    with pytest.raises((AdapterFormatError, AdapterWeightsError)):
        read_flat(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.flat"
    save_file({"values": torch.ones(3)}, path)
    with pytest.raises(AdapterFormatError, match="not a flat adapter"):
        read_flat(path)
    path.write_bytes(b"no safetensors at all")
    with pytest.raises(AdapterWeightsError, match="damaged"):
        read_flat(path)
    with pytest.raises(AdapterFormatError, match="cannot be read"):
        read_flat(tmp_path / "nothing.flat")


def test_the_library_knows_flat_files(tmp_path):
    library = Library((tmp_path,))
    write_flat(make(), tmp_path / "mine.flat")
    assert library.load("mine").digest() == make().digest()
    assert library.load(str(tmp_path / "mine.flat")).digest() == make().digest()
    (entry,) = library.list()
    assert (entry.name, entry.rank, entry.bytes) == (
        "mine", 3, (tmp_path / "mine.flat").stat().st_size,
    )  # fmt: skip
    other = (make() * 2).flatten("x")
    Adapter({"layers.0.q": other.updates["layers.0.q"]}, "x").save(tmp_path / "mine")
    assert library.load("mine").rank == 2
    assert [entry.path.name for entry in library.list()] == ["mine"]
    library.remove("mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.flat"]
    library.remove("mine")
    assert not list(tmp_path.iterdir())


def test_types_may_differ_within_one_adapter(tmp_path):
    mixed = {
        "a": Update(torch.randn(1, 3).bfloat16(), torch.randn(5, 1), bias_delta=torch.randn(5)),
        "b": Update(torch.randn(2, 3).double(), torch.randn(5, 2).half()),
    }
    adapter = Adapter(mixed, "mixed")
    write_flat(adapter, tmp_path / "mixed.flat")
    again = read_flat(tmp_path / "mixed.flat", verify=True)
    assert again.digest() == adapter.digest()
    assert again.updates["b"].down.dtype is torch.float64


def test_changed_bytes_are_seen_on_request(tmp_path):
    path = tmp_path / "a.flat"
    write_flat(make(), path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    assert read_flat(path).rank == 3
    with pytest.raises(AdapterWeightsError, match="digest"):
        read_flat(path, verify=True)


def test_a_folder_does_not_end_like_a_flat_file(tmp_path):
    adapter = Adapter({"q": Update(torch.ones(1, 2), torch.ones(3, 1))}, "a")
    with pytest.raises(ConfigError, match=r"ending is that of a flat file"):
        adapter.save(tmp_path / "a.flat")
    (tmp_path / "b.flat").mkdir()
    with pytest.raises(ConfigError, match="a new file"):
        check_free(tmp_path / "b.flat")
    with pytest.raises(AdapterFormatError, match="not an adapter"):
        Adapter.load(tmp_path / "b.flat")
