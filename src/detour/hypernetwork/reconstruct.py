"""Training a hypernetwork to reconstruct adapters that were trained one task each.

The loss is the squared Frobenius distance of ΔW' from ΔW, relative to ΔW's own size and formed from
r × r Gram matrices, so that no ΔW is ever laid out: ‖B'A' − BA‖² = ⟨B'ᵀB', A'A'ᵀ⟩ + ⟨BᵀB, AAᵀ⟩ −
2⟨B'ᵀB, A'Aᵀ⟩. It does not see which of the many factorisations an adapter has (BA = BR⁻¹ · RA), so
that adapters of different starts may be mixed. Always beside it: the error of predicting the mean
of all adapters. Knows adapters' factors and networks; knows no base and no rows of data.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from detour.adapter.adapter import Adapter
from detour.errors import HypernetworkError
from detour.hypernetwork.config import SuperviseConfig
from detour.hypernetwork.naming import Told, learn_names, named
from detour.hypernetwork.network import Hypernetwork
from detour.hypernetwork.optimise import Run, Step, optimise
from detour.hypernetwork.reading import Library
from detour.hypernetwork.state import State
from detour.hypernetwork.supervise import primitives_of
from detour.hypernetwork.tasks import Description, Tasks
from detour.language.catalogue import text

Pair = tuple[Float[Tensor, "tasks rank in"], Float[Tensor, "tasks rank out"]]
JUDGED = 512  # descriptions of which the validation error is taken
TOGETHER = 64  # of them, in one forward


def gram_product(one: Pair, other: Pair) -> Float[Tensor, " tasks"]:
    """⟨upᵀ·down, up'ᵀ·down'⟩ of two low-rank matrices, task by task."""
    downs = one[0] @ other[0].mT  # (tasks, rank, rank')
    ups = one[1] @ other[1].mT
    return (downs * ups).sum((1, 2))


def distance(made: Pair, wanted: Pair) -> tuple[Float[Tensor, " tasks"], Float[Tensor, " tasks"]]:
    """‖ΔW' − ΔW‖² and ‖ΔW‖², task by task."""
    own = gram_product(wanted, wanted)
    apart = gram_product(made, made) + own - 2 * gram_product(made, wanted)
    return apart.clamp(min=0), own


class Targets:
    """The factors to be reconstructed, the scale folded into `up`; layers stacked over tasks."""

    def __init__(
        self,
        adapters: Mapping[str, Adapter],
        layers: Sequence[str],
        device: torch.device | None = None,
    ) -> None:
        """Raises HypernetworkError for an adapter without one of the layers."""
        self.names = list(adapters)
        self.pairs: dict[str, Pair] = {}
        for layer in layers:
            downs: list[Tensor] = []
            ups: list[Tensor] = []
            for name, adapter in adapters.items():
                update = adapter.updates.get(layer)
                if update is None:
                    raise HypernetworkError(
                        text("the adapter {name} has nothing on {layer}", name=name, layer=layer),
                        expected=text("adapters of the hypernetwork's layers"),
                    )
                downs.append(update.down.float())
                ups.append(update.up.float().mT * update.scale)
            self.pairs[layer] = (_stacked(downs).to(device), _stacked(ups).to(device))

    def of(self, layer: str, tasks: Tensor) -> Pair:
        """The factors of some tasks."""
        down, up = self.pairs[layer]
        return down[tasks], up[tasks]

    def mean_error(self) -> float:
        """The relative error of predicting the mean of all ΔW for every task: the control."""
        apart = total = 0.0
        for down, up in self.pairs.values():
            count = len(down)
            products = torch.stack(
                [gram_product((down[t].expand_as(down), up[t].expand_as(up)), (down, up))
                 for t in range(count)]
            )  # fmt: skip
            own = products.diagonal()
            apart += float((own - 2 * products.mean(1) + products.mean()).sum())
            total += float(own.sum())
        return apart / total


def _stacked(factors: Sequence[Tensor]) -> Tensor:
    """(tasks, rank, features); ranks that differ are filled with zeros."""
    rank = max(len(factor) for factor in factors)
    return torch.stack(
        [torch.nn.functional.pad(factor, (0, 0, 0, rank - len(factor))) for factor in factors]
    )


def train_reconstruction(
    adapters: Mapping[str, Adapter],
    tasks: Tasks,
    network: Hypernetwork,
    library: Library,
    descriptions: Sequence[Description],
    config: SuperviseConfig,
    run: Run | None = None,
) -> State:
    """Train `network` in place to give each training task's adapter for its descriptions.

    The relative error of adapters of validation tasks, where there are any, chooses the weights;
    else that of validation descriptions.

    Raises:
        HypernetworkError: adapters that lack layers, or none for the training tasks.
        TrainingError: a checkpoint of another run.
    """
    numbers = {id(d): number for number, d in enumerate(descriptions)}
    layers = [layer for group in network.places.groups for layer in group.layers]
    targets = Targets(adapters, layers, network.device)
    places = {name: place for place, name in enumerate(targets.names)}
    names = {name: place for place, name in enumerate(network.primitives)}
    learned = [task for task in tasks.of("train") if task.name in places]
    if not learned:
        raise HypernetworkError(
            text("none of the adapters belongs to a training task"),
            expected=text("adapters named as the tasks"),
            found=", ".join(targets.names[:5]),
        )
    told = [[(numbers[id(d)], primitives_of(d, t, names)) for d in t.of_set()] for t in learned]
    weights = [task.weight for task in learned]
    judged = [
        (places[t.name], numbers[id(d)])
        for t in tasks.every
        if t.name in places and t.split != "test"
        for d in t.descriptions
        if d.set == "validation" or (t.split == "validation" and not d.set)
    ]
    if not judged:
        raise HypernetworkError(
            text("none of the adapters belongs to a task that validates"),
            expected=text("adapters of validation tasks, or descriptions of the set validation"),
            found=", ".join(targets.names[:5]),
        )
    judged = random.Random("validation").sample(judged, min(JUDGED, len(judged)))
    device = network.device

    def drawn_of(rng: random.Random, size: int) -> list[tuple[int, Told]]:
        tasks = rng.choices(range(len(learned)), weights, k=size)
        return [(places[learned[task].name], rng.choice(told[task])) for task in tasks]

    def step_of(_: int, rng: random.Random) -> Step:
        drawn = drawn_of(rng, config.batch_size)
        generator = torch.Generator().manual_seed(rng.randrange(2**31))
        described = library.picked([number for _, (number, _) in drawn])
        encoded, there = network.encoder(described.noisy(config.noise, generator).to(device))
        generated = network.generate(encoded, there)
        wanted = torch.tensor([place for place, _ in drawn], device=device)
        loss = relative_error(generated.factors, generated.scale, targets, wanted)
        named_by = [primitives for _, (_, primitives) in drawn]
        return Step(loss, named(network, encoded, there, named_by), generated)

    def judge() -> float:
        apart = own = 0.0
        for start in range(0, len(judged), TOGETHER):
            some = judged[start : start + TOGETHER]
            described = library.picked([number for _, number in some]).to(device)
            generated = network(described)
            wanted = torch.tensor([place for place, _ in some], device=device)
            errors = distances(generated.factors, generated.scale, targets, wanted)
            apart, own = apart + float(errors[0]), own + float(errors[1])
        return apart / own

    if not (run and run.goes_on):
        learn_names(
            network, library, lambda rng, size: [told for _, told in drawn_of(rng, size)],
            steps=config.naming_steps, noise=2 * config.noise, seed=config.seed,
            teller=run.teller if run else None,
        )  # fmt: skip
    return optimise(network, config, step_of, judge, run or Run())


def relative_error(
    factors: Mapping[str, tuple[Tensor, Tensor]], scale: float, targets: Targets, tasks: Tensor
) -> Float[Tensor, ""]:
    """Σ ‖ΔW' − ΔW‖² over Σ ‖ΔW‖², over layers and tasks."""
    apart, own = distances(factors, scale, targets, tasks)
    return apart / own


def distances(
    factors: Mapping[str, tuple[Tensor, Tensor]], scale: float, targets: Targets, tasks: Tensor
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Σ ‖ΔW' − ΔW‖² and Σ ‖ΔW‖², over layers and tasks."""
    pairs = [
        distance((down, up * scale), targets.of(layer, tasks))
        for layer, (down, up) in factors.items()
    ]
    apart, own = zip(*pairs, strict=True)
    return torch.stack(apart).sum(), torch.stack(own).sum()
