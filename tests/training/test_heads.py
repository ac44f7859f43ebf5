"""Heads on encoders and decoders: trained beside low-rank updates, read by PEFT, refused."""

import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from detour.adapter.adapter import Adapter
from detour.data.records import Labelled, Valued
from detour.errors import BaseError, ConfigError, DataError, TrainingError
from detour.evaluate.heads import plainest, score
from detour.model.headed import HeadedBase
from detour.training.config import make_config
from detour.training.heads import classes_of, train_head

WORDS = {"sea": ["ship", "wave", "harbour"], "land": ["field", "hill", "road"]}
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
CONFIG = make_config(
    {"steps": 100, "batch_size": 8, "learning_rate": 2e-3, "rank": 4, "alpha": 8.0}
)


def sentence(label: str, rng: random.Random) -> str:
    return f"the {rng.choice(WORDS[label])} and the {rng.choice(WORDS[label])} {rng.randrange(90)}"


def labelled(count: int, seed: int = 0) -> list[Labelled]:
    rng = random.Random(seed)
    chosen = [("sea", "land")[number % 2] for number in range(count)]
    return [Labelled(sentence(label, rng), label, f"row {n}") for n, label in enumerate(chosen)]


def valued(count: int, seed: int = 0) -> list[Valued]:
    return [
        Valued(row.text, 40.0 if row.label == "sea" else 70.0, row.source)
        for row in labelled(count, seed)
    ]


def apart(rows: list[Any], learned: list[Any]) -> list[Any]:
    """Those whose text is not learned: chance makes some twice."""
    known = {row.text for row in learned}
    return [row for row in rows if row.text not in known]


ENCODERS: dict[str, Callable[[int], torch.nn.Module]] = {
    "bert": lambda n: BertModel(BertConfig(vocab_size=n, max_position_embeddings=64, **SIZES)),
    "roberta": lambda n: RobertaModel(
        RobertaConfig(vocab_size=n, max_position_embeddings=64, pad_token_id=1, **SIZES)
    ),
    "distilbert": lambda n: DistilBertModel(
        DistilBertConfig(vocab_size=n, max_position_embeddings=64, dim=32, n_layers=2, n_heads=4,
                         hidden_dim=48)
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(
    tiny_tokenizer: PreTrainedTokenizerFast,
    make_model: Callable[..., torch.nn.Module],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """Bases without any head for classes: three encoders, three decoders."""
    found: dict[str, Path] = {}
    for name in (*ENCODERS, "llama", "gpt2", "qwen3"):
        torch.manual_seed(0)
        model = ENCODERS[name](len(tiny_tokenizer)) if name in ENCODERS else make_model(name)
        found[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(found[name])  # type: ignore[operator]
        tiny_tokenizer.save_pretrained(found[name])
    return found


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:fan_in_fan_out")  # PEFT's own
@pytest.mark.parametrize("kind", [*ENCODERS, "llama", "gpt2", "qwen3"])
def test_an_adapter_with_a_head_is_learned_and_read_by_peft(
    kind: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    name = str(folders[kind])
    base = HeadedBase.load(name, ["land", "sea"])
    before = {n: p.clone() for n, p in base.model.named_parameters()}
    result = train_head(
        base, labelled(160), CONFIG, validation=apart(labelled(30, 1), labelled(160))
    )
    assert all(torch.equal(p, before[n]) for n, p in base.model.named_parameters())
    assert not any(p.requires_grad for p in base.model.parameters())
    test = labelled(40, 2)
    reached = score(base, test, result.adapter)["accuracy"]
    assert reached.value >= 0.85
    assert reached.low > plainest(labelled(80), test)["accuracy"].value

    result.adapter.save(tmp_path / "made")
    read = Adapter.load(tmp_path / "made")
    again = HeadedBase.for_adapter(read, name)
    texts = [row.text for row in test[:7]] + ["a longer text about the ship and the harbour, 3"]
    ours = again.logits(texts, read)
    assert torch.allclose(ours, base.logits(texts, result.adapter), atol=1e-5)
    plain = AutoModelForSequenceClassification.from_pretrained(name, num_labels=2)
    plain.config.pad_token_id = again.pad_id
    theirs = PeftModel.from_pretrained(plain, str(tmp_path / "made")).eval()
    rows = again.encode(texts)
    for row, own in zip(rows, ours, strict=True):
        with torch.no_grad():
            told = theirs(torch.tensor([row])).logits[0].float()
        assert torch.allclose(told, own, atol=1e-4 * max(1.0, float(own.abs().max())))


def test_an_encoder_that_means_its_tokens_is_read_so(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "sentences"
    shutil.copytree(folders["bert"], folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode_mean_tokens": true}')
    base = HeadedBase.load(str(folder), ["land", "sea"])
    assert base.pooling == "mean"
    assert not any("pooler" in layer for layer in base.inner_layers())
    rows = base.encode(["the ship", "a longer text about the harbour and the road"])
    encoder = base.model.base_model
    with torch.no_grad():
        alone = torch.stack([encoder(torch.tensor([r])).last_hidden_state[0].mean(0) for r in rows])
        assert torch.allclose(base.forward(rows), base.projection(alone), atol=1e-5)
    made = train_head(
        base, labelled(160), CONFIG, validation=apart(labelled(30, 1), labelled(160))
    ).adapter
    assert score(base, labelled(40, 2), made)["accuracy"].value >= 0.85
    again = HeadedBase.for_adapter(made, str(folders["bert"]))  # the card says it too
    assert again.pooling == "mean"
    assert torch.equal(again.logits(["the hill"], made), base.logits(["the hill"], made))
    with pytest.raises(ConfigError, match="more than one layer"):
        HeadedBase.load(str(folders["roberta"]), ["land", "sea"], pooling="mean")


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_numbers_come_out_as_they_went_in(kind: str, folders: dict[str, Path]) -> None:
    base = HeadedBase.load(str(folders[kind]))
    assert base.kind == "regression"
    rows = valued(160)
    fast = CONFIG.model_copy(update={"learning_rate": 5e-3, "steps": 200})
    result = train_head(base, rows, fast, validation=apart(valued(30, 1), rows))
    reached = score(base, valued(40, 2), result.adapter)
    assert reached["mse"].value < 0.3 * plainest(rows, valued(40, 2))["mse"].value
    assert reached["r2"].low > 0.3
    values = base.estimate([row.text for row in valued(40, 2)], result.adapter)
    assert 10 < min(values) < 55 < max(values) < 110  # not scaled ones


def test_an_interrupted_run_goes_on_bit_for_bit(folders: dict[str, Path], tmp_path: Path) -> None:
    base = HeadedBase.load(str(folders["bert"]), ["land", "sea"])
    whole = train_head(base, labelled(60), CONFIG)

    def stop(progress: object) -> None:
        if progress.step == 23:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_head(base, labelled(60), CONFIG, watcher=stop, checkpoints=tmp_path)
    assert not any(p.requires_grad for p in base.model.parameters())
    resumed = train_head(base, labelled(60), CONFIG, checkpoints=tmp_path, resume=True)
    assert resumed.adapter.digest() == whole.adapter.digest()
    with pytest.raises(TrainingError) as caught:
        train_head(base, labelled(58), CONFIG, checkpoints=tmp_path, resume=True)
    assert "data" in caught.value.found


def test_what_cannot_be_trained(folders: dict[str, Path], tmp_path: Path) -> None:
    name = str(folders["bert"])
    base = HeadedBase.load(name, ["land", "sea"])
    with pytest.raises(DataError, match="nothing to tell apart"):
        classes_of([Labelled("a", "x"), Labelled("b", "x")])
    assert classes_of(valued(4)) == []
    with pytest.raises(DataError, match="not for classification"):
        train_head(base, valued(20), CONFIG)
    with pytest.raises(DataError, match="row 3 has a class that the head does not know"):
        train_head(base, [*labelled(3), Labelled("t", "air", "row 3")], CONFIG)
    with pytest.raises(ConfigError, match="at least two classes"):
        HeadedBase.load(name, ["one"])
    half = HeadedBase.load(name, ["land", "sea"], dtype="bfloat16")
    with pytest.raises(ConfigError, match="float32"):
        train_head(half, labelled(20), CONFIG)
    with pytest.raises(TrainingError, match="changed nothing for the better"):
        train_head(base, labelled(40), make_config({"steps": 3, "learning_rate": 0.0}))
    with pytest.raises(ConfigError, match="gives classes"):
        base.estimate(["a"])
    with pytest.raises(ConfigError, match="gives a number"):
        HeadedBase.load(name).classify(["a"])
    (tmp_path / "config.json").write_text('{"model_type": "clip_text_model"}')
    with pytest.raises(BaseError):
        HeadedBase.load(str(tmp_path), ["a", "b"])


def test_other_classes_are_refused(folders: dict[str, Path]) -> None:
    name = str(folders["bert"])
    made = train_head(HeadedBase.load(name, ["land", "sea"]), labelled(160), CONFIG).adapter
    other = HeadedBase.load(name, ["sea", "land"])
    with pytest.raises(ConfigError, match="other classes"):
        other.logits(["the ship"], made)
    with pytest.raises(ConfigError, match="has no head"):
        HeadedBase.for_adapter(made.with_(card=made.card.with_(config={})), name)
    guess = HeadedBase.for_adapter(made, name).classify(["the ship and the wave 3"], made)[0]
    assert math.isclose(sum(guess.probabilities.values()), 1.0, abs_tol=1e-6)
    assert guess.probability == guess.probabilities[guess.label]
