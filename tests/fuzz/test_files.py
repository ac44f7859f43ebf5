"""Random bytes in adapters' files: an error of ours or an adapter, never a crash, hang or flood.

Twenty seconds in every test run; ten minutes in `make test-long`.
"""

import json
import random
import resource
import struct
import time
from pathlib import Path

import pytest
import torch

from detour.adapter.adapter import Adapter
from detour.adapter.flat import write_flat
from detour.adapter.update import Update
from detour.errors import AdapterError

SHORT, LONG = 20.0, 600.0  # seconds
MEMORY = 200 * 2**10  # KiB above what the process held before
SLOWEST = 5.0  # seconds for one file of a few KiB


def made(folder: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    updates = {
        f"layers.{n}.q": Update(
            torch.randn(2, 6, generator=generator), torch.randn(4, 2, generator=generator)
        )
        for n in range(2)
    }
    adapter = Adapter(updates, "a", test_rows=({"n": 1},))
    adapter.save(folder / "a")
    write_flat(adapter, folder / "a.flat")
    return folder


VALUES = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 1e308, -0.0, "", "x", "lora_A", [], [1], {}),
    *({"a": 1}, "../../etc/passwd", "\0", "(((((", "a" * 10_000, [[[]]], "NaN", ["q"] * 50),
)
KEYS = (
    "r", "lora_alpha", "peft_type", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora",
    "bias", "lora_bias", "modules_to_save", "trainable_token_indices", "target_parameters",
    "target_modules", "fan_in_fan_out", "base_model_name_or_path", "init_lora_weights",
    "layers_to_transform", "format", "digest", "base", "test_rows_sha256", "weight_map", "layers",
)  # fmt: skip


def bent(value: object, rng: random.Random) -> object:
    """The JSON value with one thing in it changed."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        changed = dict(value)
        how = rng.random()
        if how < 0.2:
            del changed[key]
        elif how < 0.4:
            changed[rng.choice(KEYS)] = rng.choice(VALUES)
        elif how < 0.5:
            changed[rng.choice([k for k in (key, "x", "") if isinstance(k, str)]) + "x"] = (
                changed.pop(key)
            )
        else:
            changed[key] = bent(value[key], rng)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], bent(value[place], rng), *value[place + 1 :]]
    return rng.choice(VALUES)


def noisy(data: bytes, rng: random.Random) -> bytes:
    """The bytes with some of them changed, cut off, doubled or inserted."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        if not data:
            break
        place = rng.randrange(len(data))
        how = rng.randrange(5)
        if how == 0:
            data[place] = rng.randrange(256)
        elif how == 1:
            del data[place : place + rng.choice((1, 4, 100))]
        elif how == 2:
            data[place:place] = rng.randbytes(rng.choice((1, 8, 300)))
        elif how == 3:
            data[place : place + 8] = struct.pack("<Q", rng.choice((0, 2**16, 2**40, 2**64 - 1)))
        else:
            data[place:place] = data[: rng.randrange(64)]
    return bytes(data)


def bent_json(data: bytes, rng: random.Random) -> bytes:
    return json.dumps(bent(json.loads(data), rng)).encode("utf-8", "surrogatepass")


def bent_header(data: bytes, rng: random.Random) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    header = bent_json(data[8 : 8 + length], rng)
    told = len(header) if rng.random() < 0.9 else rng.choice((0, 1, 2**62, len(header) + 7))
    return struct.pack("<Q", told) + header + data[8 + length :]


FILES = {
    "a/adapter_config.json": (bent_json, noisy),
    "a/adapter_model.safetensors": (bent_header, noisy),
    "a/detour.json": (bent_json, noisy),
    "a/README.md": (noisy,),
    "a/test.jsonl": (noisy,),
    "a.flat": (bent_header, noisy),
}


def attack(folder: Path, seconds: float, seed: int) -> tuple[int, int]:
    """How many files were refused and how many read; fails at anything else."""
    rng = random.Random(seed)
    whole = {name: (folder / name).read_bytes() for name in FILES}
    began = time.monotonic()
    refused = read = 0
    while time.monotonic() - began < seconds:
        name = rng.choice(list(FILES))
        changed = rng.choice(FILES[name])(whole[name], rng)
        (folder / name).write_bytes(changed)
        start = time.monotonic()
        try:
            Adapter.load(folder / name.split("/")[0])
            read += 1
        except AdapterError:
            refused += 1
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error}; {name} = {changed[:2000]!r}")
        assert time.monotonic() - start < SLOWEST, (name, changed[:2000])
        (folder / name).write_bytes(whole[name])
    return refused, read


def withstood(folder: Path, seconds: float, seed: int) -> None:
    made(folder)
    attack(folder, min(seconds / 10, 2.0), seed + 1)  # what every later file needs is loaded
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused, read = attack(folder, seconds, seed)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held
    assert grown < MEMORY, f"{grown / 1024:.0f} MB more at the highest"
    assert refused > 100 * min(seconds, 20) / 20
    assert read > 0, "nothing but errors: the changes are too coarse to reach what lies deeper"


def test_twenty_seconds_of_broken_files(tmp_path):
    withstood(tmp_path, SHORT, 0)


@pytest.mark.long
def test_ten_minutes_of_broken_files(tmp_path):
    withstood(tmp_path, LONG, 1)
