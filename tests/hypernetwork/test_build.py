"""Training whole: heads, encoders, resuming, saving, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from detour.errors import HypernetworkError, NotUnderstood, TrainingError
from detour.hypernetwork.build import Built, build
from detour.hypernetwork.config import NetworkConfig, SuperviseConfig
from detour.hypernetwork.generator import Generator
from detour.hypernetwork.saved import load_generator, save_generator
from detour.hypernetwork.tasks import Tasks
from detour.model.base import Base

SMALL = {"rank": 2, "alpha": 4.0, "hidden": 32, "task_width": 16, "dropout": 0.0}
FEW = SuperviseConfig(
    steps=6, batch_size=8, learning_rate=1e-2, clip=1.0, validations=2, naming_steps=30
)
STRANGE = ("What is the time?", "The cat sat on the mat.", "Translate this into Latin.")

pytestmark = pytest.mark.usefixtures("read_by_words")


def config(**changes: object) -> NetworkConfig:
    return NetworkConfig.model_validate({**SMALL, "encoder": "spans", **changes})


@pytest.mark.parametrize("encoder", ["mean", "tokens", "spans"])
@pytest.mark.parametrize("head", ["L", "M", "S", "Z"])
def test_every_head_and_encoder_learns(head: str, encoder: str, base: Base, tasks: Tasks) -> None:
    losses: list[float] = []
    training = FEW.model_copy(update={"steps": 80, "noise": 0.0})
    build(
        base, tasks, config(head=head, encoder=encoder, targets="all-linear"), training,
        watcher=lambda progress: losses.append(progress.loss),
    )  # fmt: skip
    assert sum(losses[-8:]) / 8 < 0.9 * sum(losses[:4]) / 4  # four steps share their rows


def _built(base: Base, tasks: Tasks, **more: object) -> Built:
    return build(base, tasks, config(), FEW, **more)  # type: ignore[arg-type]


def test_interrupted_and_resumed_is_the_same(base: Base, tasks: Tasks, tmp_path: Path) -> None:
    whole = _built(base, tasks)

    def stop(progress: object) -> None:
        if getattr(progress, "step", 0) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _built(base, tasks, watcher=stop, checkpoints=tmp_path)
    again = _built(base, tasks, checkpoints=tmp_path, resume=True)
    new = _built(base, tasks, checkpoints=tmp_path / "nothing yet", resume=True)
    assert new.best_loss == whole.best_loss
    one, other = (b.generator.network.state_dict() for b in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert again.best_loss == whole.best_loss


def test_a_loss_that_is_no_number_ends_the_training(base: Base, tasks: Tasks) -> None:
    with pytest.raises(TrainingError, match="no number any more, at step 2"):
        build(base, tasks, config(), FEW.model_copy(update={"learning_rate": 1e30}))


def test_a_checkpoint_of_another_run_is_refused(base: Base, tasks: Tasks, tmp_path: Path) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _built(base, tasks, watcher=stop, checkpoints=tmp_path)
    with pytest.raises(TrainingError, match="belongs to another run"):
        build(base, tasks, config(rank=3), FEW, checkpoints=tmp_path, resume=True)
    (tmp_path / "state.safetensors").write_bytes(b"half")
    with pytest.raises(TrainingError, match="is damaged"):
        _built(base, tasks, checkpoints=tmp_path, resume=True)


@pytest.fixture
def generator(base: Base, tasks: Tasks) -> Generator:
    return _built(base, tasks, unsupported=STRANGE).generator


def test_saved_and_loaded_is_the_same(generator: Generator, tmp_path: Path) -> None:
    digest = save_generator(generator, tmp_path / "net", {"tasks": 8})
    loaded = load_generator(tmp_path / "net")
    told = ["Give the town and in capitals 4.", "Say the trade 0."]
    for one, other in zip(generator.generate(told), loaded.generate(told), strict=True):
        assert one.adapter.digest() == other.adapter.digest()
        assert one.understood.primitives == other.understood.primitives
        assert one.understood.confidence == other.understood.confidence
        assert other.adapter.card.config["hypernetwork_sha256"] == digest
        assert other.adapter.base == generator.base
    assert json.loads((tmp_path / "net" / "config.json").read_text())["figures"] == {"tasks": 8}


def test_several_sentences_at_once_are_each_alone(generator: Generator) -> None:
    told = ["Give the town and in capitals 4.", "Say the trade 0."]
    both = generator.generate(told)
    for text, result in zip(told, both, strict=True):
        (alone,) = generator.generate([text])
        for layer, update in alone.adapter.updates.items():
            other = result.adapter.updates[layer]
            assert torch.allclose(update.up @ update.down, other.up @ other.down, atol=1e-6)


def test_strength_scales(generator: Generator) -> None:
    (one,), (half,) = (generator.generate(["Say the trade 0."], s) for s in (1.0, 0.5))
    assert half.adapter.norm() == pytest.approx(one.adapter.norm() / 2, rel=1e-5)


def test_what_is_refused(
    generator: Generator, base: Base, make_model: Callable[..., object]
) -> None:
    with pytest.raises(HypernetworkError, match="the description is empty"):
        generator.generate(["  "])
    with pytest.raises(NotUnderstood, match="nothing in the description"):
        generator.generate(["Say 4."])
    other = Base.from_model(make_model("qwen3"))  # type: ignore[arg-type]
    with pytest.raises(HypernetworkError, match="was not trained for this base"):
        generator.check_base(other.fingerprint)
    generator.check_base(base.fingerprint)
    generator.embedder_sha256 = "f" * 64
    with pytest.raises(HypernetworkError, match="text encoder is not the one"):
        _ = Generator.reader.func(generator)  # type: ignore[attr-defined]


SPOILT: dict[str, Callable[[Path], object]] = {
    "half of the weights": lambda f: (f / "model.safetensors").write_bytes(
        (f / "model.safetensors").read_bytes()[:-100]
    ),
    "other weights": lambda f: (f / "model.safetensors").write_bytes(
        (f / "model.safetensors").read_bytes()[:-1] + b"\x01"
    ),
    "no weights": lambda f: (f / "model.safetensors").unlink(),
    "no configuration": lambda f: (f / "config.json").unlink(),
    "no JSON": lambda f: (f / "config.json").write_text("{"),
    "a list": lambda f: (f / "config.json").write_text("[]"),
    "another format": lambda f: (f / "config.json").write_text('{"format": "peft"}'),
    "another rank": lambda f: (f / "config.json").write_text(
        (f / "config.json").read_text().replace('"rank": 2', '"rank": 3')
    ),
    "nothing at all": shutil.rmtree,
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_spoilt_folder_is_refused(fault: str, generator: Generator, tmp_path: Path) -> None:
    save_generator(generator, tmp_path / "net", {})
    SPOILT[fault](tmp_path / "net")
    with pytest.raises(HypernetworkError):
        load_generator(tmp_path / "net")
