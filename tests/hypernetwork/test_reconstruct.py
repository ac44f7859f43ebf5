"""Reconstruction: the low-rank distance against the dense one, the control, and that it learns."""

from collections.abc import Callable

import pytest
import torch
from tests.hypernetwork.tiny_tasks import WordEmbedder

from detour.adapter.adapter import Adapter
from detour.errors import HypernetworkError
from detour.hypernetwork.build import new_network, trained_on
from detour.hypernetwork.config import NetworkConfig, SuperviseConfig
from detour.hypernetwork.reading import Library
from detour.hypernetwork.reconstruct import Targets, distance, train_reconstruction
from detour.hypernetwork.tasks import Tasks
from detour.model.base import Base

LAYERS = ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj"]


def test_distance_equals_the_dense_one() -> None:
    torch.manual_seed(0)
    made = (torch.randn(3, 2, 7), torch.randn(3, 2, 5))
    wanted = (torch.randn(3, 4, 7), torch.randn(3, 4, 5))
    apart, own = distance(made, wanted)
    dense = [up.mT @ down for down, up in (made, wanted)]
    assert torch.allclose(apart, (dense[0] - dense[1]).square().sum((1, 2)), rtol=1e-4)
    assert torch.allclose(own, dense[1].square().sum((1, 2)), rtol=1e-4)


def test_it_does_not_see_the_factorisation() -> None:
    torch.manual_seed(0)
    down, up = torch.randn(1, 3, 7), torch.randn(1, 3, 5)
    turn = torch.randn(3, 3)
    other = (turn @ down, (torch.linalg.inv(turn).mT @ up))
    apart, own = distance((down, up), other)
    assert float(apart) < 1e-4 * float(own)


def _adapters(
    base: Base, tasks: Tasks, random_adapter: Callable[..., Adapter]
) -> dict[str, Adapter]:
    shapes = {n: base.slots.shapes[n] for n in base.slots.named(["q_proj", "v_proj"])}
    return {task.name: random_adapter(shapes, seed=seed) for seed, task in enumerate(tasks.every)}


def test_the_mean_adapter_is_the_control(
    base: Base, tasks: Tasks, random_adapter: Callable[..., Adapter]
) -> None:
    adapters = _adapters(base, tasks, random_adapter)
    layers = list(next(iter(adapters.values())).updates)
    error = Targets(adapters, layers).mean_error()
    apart = total = 0.0
    for layer in layers:
        dense = torch.stack(
            [a.updates[layer].scale * a.updates[layer].up @ a.updates[layer].down
             for a in adapters.values()]
        )  # fmt: skip
        apart += float((dense - dense.mean(0)).square().sum())
        total += float(dense.square().sum())
    assert error == pytest.approx(apart / total, rel=1e-3)


def test_it_learns_adapters_better_than_their_mean(
    base: Base, tasks: Tasks, words: WordEmbedder, random_adapter: Callable[..., Adapter]
) -> None:
    adapters = _adapters(base, tasks, random_adapter)
    config = NetworkConfig.model_validate(
        {"encoder": "mean", "rank": 2, "hidden": 64, "task_width": 32, "dropout": 0.0}
    )
    network = new_network(base, tasks, config, words.width, 0)
    told = trained_on(tasks)
    library = Library.of(words, told, "mean")
    training = SuperviseConfig(steps=250, batch_size=16, learning_rate=5e-3, noise=0.0, clip=1.0)
    losses: list[float] = []
    from detour.hypernetwork.optimise import Run

    state = train_reconstruction(
        adapters, tasks, network, library, told, training,
        Run(watcher=lambda progress: losses.append(progress.loss)),
    )  # fmt: skip
    learned = {task.name: adapters[task.name] for task in tasks.of("train")}
    layers = [layer for group in network.places.groups for layer in group.layers]
    assert losses[0] == pytest.approx(1.0, abs=1e-3)  # nothing is generated at first
    assert sum(losses[-10:]) / 10 < 0.5 * Targets(learned, layers).mean_error()
    assert state.best_step > 0


def test_adapters_of_other_layers_or_tasks_are_refused(
    base: Base, tasks: Tasks, words: WordEmbedder, random_adapter: Callable[..., Adapter]
) -> None:
    config = NetworkConfig.model_validate({"encoder": "mean", "rank": 2})
    network = new_network(base, tasks, config, words.width, 0)
    told = trained_on(tasks)
    library = Library.of(words, told, "mean")
    half = {"model.layers.0.self_attn.q_proj": (32, 32)}
    with pytest.raises(HypernetworkError, match="has nothing on"):
        train_reconstruction(
            {"home": random_adapter(half)}, tasks, network, library, told, SuperviseConfig()
        )
    strange = {"nowhere": next(iter(_adapters(base, tasks, random_adapter).values()))}
    with pytest.raises(HypernetworkError, match="none of the adapters"):
        train_reconstruction(strange, tasks, network, library, told, SuperviseConfig())
