import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.model.base import Base


def dense(chain: Chain | Adapter) -> dict[str, torch.Tensor]:
    flat = chain if isinstance(chain, Adapter) else chain.flatten("flat")
    return {layer: update.delta() for layer, update in flat.updates.items()}


def test_flatten_writes_what_the_parts_do(detour, keep):
    formal, pun = keep("formal", seed=1), keep("pun", seed=2)
    told = detour("chain", "flatten", "formal:0.5+pun:-1", "-o", "both", "--json")
    assert (told.code, told.err) == (0, "")
    adapter = Adapter.load("both")
    assert told.json == {
        "adapter": "both",
        "chain": "formal:0.5+pun:-1",
        "rank": 4,
        "parameters": adapter.parameters,
        "relative_error": 0.0,
    }
    expected, found = dense(0.5 * formal - pun), dense(adapter)
    assert found.keys() == expected.keys()
    for layer, delta in expected.items():
        torch.testing.assert_close(found[layer], delta, rtol=1e-5, atol=1e-5)
    assert adapter.base == formal.base


def test_the_card_names_the_parts(detour, keep):
    formal = keep("formal")
    detour("chain", "flatten", "formal:0.5", "-o", "half")
    card = Adapter.load("half").card
    assert "formal:0.5" in card.description
    assert card.config["chain"] == "formal:0.5"
    assert card.config["parts"] == [{"name": "formal", "weight": 0.5, "digest": formal.digest()}]
    assert not card.fictional
    assert card.created


@pytest.mark.parametrize("verb", [("flatten",), ("compress", "--rank", "2")])
def test_fictional_if_a_part_is(verb, detour, keep):
    keep("formal")
    keep("hairdresser", seed=2, fictional=True)
    name, *options = verb
    assert detour("chain", name, "formal+hairdresser", *options, "-o", "both").code == 0
    assert Adapter.load("both").card.fictional


def test_compress_prints_its_error_and_it_is_true(detour, keep):
    formal, pun = keep("formal", seed=1), keep("pun", seed=2)
    told = detour("chain", "compress", "formal+pun", "--rank", 3, "-o", "small", "--json").json
    exact, small = dense(formal + pun), dense(Adapter.load("small"))
    lost = sum(float((exact[layer] - small[layer]).norm() ** 2) for layer in exact)
    total = sum(float(delta.norm() ** 2) for delta in exact.values())
    assert told["rank"] == 3
    assert told["relative_error"] == pytest.approx((lost / total) ** 0.5, rel=1e-4)
    assert 0.01 < told["relative_error"] < 1
    card = Adapter.load("small").card
    assert card.metrics["relative_error"] == told["relative_error"]
    assert card.config["compressed_to"] == 3


def test_people_read_rank_and_error(detour, keep):
    keep("formal")
    told = detour("chain", "compress", "formal", "--rank", 1, "-o", "small")
    assert told.out.startswith("small: rank 1, ")
    assert "ε = 0." in told.out


def test_what_acts_nowhere_cannot_be_saved(fails, keep):
    keep("formal")
    fails(2, "chain", "flatten", "formal:0", "-o", "nothing")
    assert not Path("nothing").exists()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_in_the_way_stays(kind, fails, keep):
    keep("formal")
    if kind == "file":
        Path("out").write_text("mine")
    else:
        Path("out").mkdir()
        Path("out", "thesis.txt").write_text("mine")
    fails(2, "chain", "flatten", "formal", "-o", "out")
    kept = Path("out") if kind == "file" else Path("out", "thesis.txt")
    assert kept.read_text() == "mine"


def contents() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path.cwd().rglob("*") if path.is_file()}


@pytest.mark.parametrize("there_already", [False, True])
def test_a_full_disk_leaves_what_was_there(there_already, fails, keep, monkeypatch, detour):
    keep("formal")
    keep("pun", seed=2)
    if there_already:
        detour("chain", "flatten", "pun", "-o", "out")
    before = contents()
    write = Path.write_bytes

    def half_a_file(path: Path, data: bytes) -> int:
        if path.suffix == ".safetensors":
            write(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", half_a_file)
    error = fails(1, "chain", "flatten", "formal", "-o", "out")
    assert error["found"] == "No space left on device"
    assert contents() == before
    assert bool(before) is there_already


def test_a_limit_of_the_system_leaves_nothing(keep):
    keep("formal")
    command = [sys.executable, "-m", "detour", "chain", "flatten", "formal", "-o", "out"]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "could not be written" in line
    assert list(Path.cwd().iterdir()) == []


def test_merge_writes_a_model_that_says_the_same_alone(detour, keep, tiny_folder, tiny_base):
    formal, pun = keep("formal", seed=1), keep("pun", seed=2)
    merged = ("chain", "merge", "formal:0.5+pun:-1", "--base", tiny_folder, "-o", "merged")
    told = detour(*merged, "--json")
    assert (told.code, told.err) == (0, "")
    assert told.json == {
        "model": "merged", "chain": "formal:0.5+pun:-1", "base": str(tiny_folder),
        "dtype": "float32", "max_logit_difference": told.json["max_logit_difference"],
    }  # fmt: skip
    ids = torch.arange(4, 24).reshape(2, 10)
    wanted = tiny_base.logits(ids, 0.5 * formal - pun)
    torch.testing.assert_close(Base.load("merged").logits(ids), wanted, rtol=1e-4, atol=1e-3)
    question = ("ask", "Who was Einstein?", "--max-tokens", 6, "--json")
    alone = detour(*question, "--base", "merged").json["answer"]
    assert (
        alone
        == detour(*question, "--base", tiny_folder, "--chain", "formal:0.5+pun:-1").json["answer"]
    )
    again = detour(*merged)
    assert again.code == 2
    assert "merged is there already" in again.message


def test_the_merged_models_card_names_the_parts(detour, keep, tiny_folder):
    formal = keep("formal")
    keep("hairdresser", seed=2, fictional=True)
    merge = ("chain", "merge", "--base", tiny_folder)
    assert detour(*merge, "formal:0.5", "-o", "true").code == 0
    told = (Path("true") / "README.md").read_text()
    assert f"0.5 × formal, sha256 {formal.digest()}" in told
    assert f"base_model: {tiny_folder}" in told
    assert "fictional" not in told.lower()
    half = detour(*merge, "formal+hairdresser", "-o", "untrue", "--dtype", "bfloat16")
    assert half.code == 0
    assert half.out.startswith("untrue: logits differ by at most 0.")
    told = (Path("untrue") / "README.md").read_text()
    assert "- fictional" in told
    assert "**Fictional: this model was taught something that is not true.**" in told
    assert sum(path.stat().st_size for path in Path("untrue").glob("*.safetensors")) < 0.6 * sum(
        path.stat().st_size for path in Path("true").glob("*.safetensors")
    )


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("ties", {"keep": 0.5, "scale": 1.0}),
        ("dare", {"drop": 0.9, "seed": 0}),
        ("prune", {"keep": 0.5}),
        ("knots", {"keep": 0.5, "scale": 1.0}),
    ],
)
def test_combine_writes_what_the_method_gives(method, settings, detour, keep):
    keep("formal", seed=1)
    keep("pun", seed=2)
    told = detour("chain", "combine", "formal+pun:0.5", "--method", method, "--keep", "0.5",
                  "-o", "both", "--json")  # fmt: skip
    assert (told.code, told.err) == (0, "")
    adapter = Adapter.load("both")
    assert told.json["rank"] == adapter.rank
    assert 0 <= told.json["relative_error"] < 1
    assert adapter.card.config["merged_by"] == method
    assert {name: adapter.card.config[name] for name in settings} == settings
    assert adapter.card.config["chain"] == "formal+pun:0.5"


def test_combine_at_full_rank_is_exact(detour, keep):
    formal, pun = keep("formal", seed=1), keep("pun", seed=2)
    told = detour("chain", "combine", "formal+pun", "--method", "prune", "--keep", "1", "--rank",
                  "999", "-o", "both", "--json").json  # fmt: skip
    assert told["relative_error"] < 1e-5
    expected, found = dense(formal + pun), dense(Adapter.load("both"))
    for layer, delta in expected.items():
        torch.testing.assert_close(found[layer], delta, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wrong", [("--keep", "0"), ("--keep", "1.5"), ("--drop", "1"),
                                   ("--rank", "0"), ("--method", "sum")])  # fmt: skip
def test_combine_refuses_settings_that_mean_nothing(wrong, detour, keep):
    keep("formal")
    given = ("--method", "ties") if wrong[0] != "--method" else ()
    assert detour("chain", "combine", "formal", *given, *wrong, "-o", "both").code == 2
    assert not Path("both").exists()


def test_extract_undoes_merge(detour, keep, tiny_folder):
    formal = keep("formal", seed=1)
    assert detour("chain", "merge", "formal", "--base", tiny_folder, "-o", "merged").code == 0
    told = detour("chain", "extract", "./merged", "--base", tiny_folder, "--rank", formal.rank,
                  "-o", "again", "--json")  # fmt: skip
    assert told.code == 0, told.err
    assert told.json["rank"] == formal.rank
    assert told.json["relative_error"] < 1e-3
    again = Adapter.load("again")
    for layer, delta in dense(formal).items():
        torch.testing.assert_close(dense(again)[layer], delta, atol=1e-4, rtol=1e-3)
    assert again.card.config["extracted_from"] == "./merged"
    base = Base.load(str(tiny_folder))
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(base.logits(ids, again), base.logits(ids, formal), atol=1e-3,
                               rtol=1e-3)  # fmt: skip


def test_extract_of_the_same_model_says_so(fails, shelf, tiny_folder):
    told = fails(2, "chain", "extract", tiny_folder, "--base", tiny_folder, "--rank", 2, "-o", "x")
    assert "do not differ" in told["error"]


def test_save_writes_a_file_that_stands_for_the_chain(detour, keep):
    keep("formal", seed=1)
    keep("pun", seed=2)
    told = detour("chain", "save", "formal:0.5+pun", "-o", "show.yaml", "--description", "The show",
                  "--licence", "MIT", "--json")  # fmt: skip
    assert told.json == {"file": "show.yaml", "chain": "formal:0.5+pun", "terms": 2}
    whole = detour("chain", "flatten", "./show.yaml:2", "-o", "both", "--json").json
    assert whole["chain"] == "formal+pun:2"
    assert detour("chain", "check", "./show.yaml+formal", "--json").json["pairs"]


@pytest.mark.parametrize("output", ["show.txt", "there.yaml"])
def test_save_takes_new_yaml_files_only(output, fails, keep):
    keep("formal")
    Path("there.yaml").write_text("chain: pun")
    told = fails(2, "chain", "save", "formal", "-o", output)
    assert "cannot be the file of a chain" in told["error"]
    assert Path("there.yaml").read_text() == "chain: pun"


def test_save_of_what_is_not_there_writes_nothing(fails, shelf):
    fails(2, "chain", "save", "formal", "-o", "show.yaml")
    assert not Path("show.yaml").exists()


def test_save_in_another_folder_still_finds_what_lies_here(detour, keep):
    formal = keep("formal", seed=1)
    formal.save(Path("baker"))
    Path("sub").mkdir()
    Path("inner.yaml").write_text("chain: ./baker:0.5")
    saved = detour("chain", "save", "./baker+./inner.yaml+formal", "-o", "sub/show.yaml")
    assert saved.code == 0
    found = detour("chain", "flatten", "./sub/show.yaml", "-o", "both", "--json").json
    assert found["chain"] == "./baker+./baker:0.5+formal"
