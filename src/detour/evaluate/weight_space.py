"""Generated adapters in weight space, and scores against the distance to what was learned.

Two panels: each task's update as a point, placed by the principal components of all updates (from
their inner products, formed in low rank), and each held-out task's score against how far its
descriptions are from all that trained. Text-to-LoRA shows both (arXiv 2506.06105, section 5). Knows
hypernetworks and tables; draws with matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from detour.adapter.adapter import Adapter
from detour.evaluate.hypernet import Table
from detour.files import write_bytes_atomically
from detour.hypernetwork.generator import Generator
from detour.hypernetwork.tasks import Task, Tasks

MOST = 240  # tasks that are drawn


@dataclass(frozen=True)
class Drawn:
    """What the picture shows, in numbers.

    Attributes:
        path: the picture.
        alike: mean cosine of the updates of two tasks that share a primitive.
        apart: that of two tasks that share none.
        correlation: Spearman's of score and distance over held-out tasks; NaN for fewer than 3.
        explained: share of the variance that the two axes show.
    """

    path: Path
    alike: float
    apart: float
    correlation: float
    explained: float

    def __str__(self) -> str:
        return (
            f"{self.path}: cosine of updates {self.alike:.2f} with a primitive in common, "
            f"{self.apart:.2f} without; score against distance {self.correlation:.2f} (Spearman)"
        )


def draw(generator: Generator, tasks: Tasks, table: Table, path: Path) -> Drawn:
    """Write the picture as PNG; one generated adapter a task, from its first description.

    Raises:
        StorageError: it cannot be written.
    """
    chosen = [task for task in tasks.every if task.split != "validation"]
    chosen = chosen[:: -(-len(chosen) // MOST)]
    made = generator.generate([_told(task)[0] for task in chosen])
    products = inner_products([result.adapter for result in made])
    places, explained = principal(products)
    alike, apart = cosines(products, [task.primitives for task in chosen])
    points = distances(generator, tasks, table)
    correlation = spearman([d for d, _ in points.values()], [s for _, s in points.values()])
    drawn = Drawn(path, alike, apart, correlation, explained)
    write_bytes_atomically(path, _picture(chosen, places, points, drawn))
    return drawn


def inner_products(adapters: Sequence[Adapter]) -> Float[Tensor, "adapters adapters"]:
    """⟨ΔW, ΔW'⟩ of every two, over all layers; from r × r products, no ΔW is laid out."""
    total = torch.zeros(len(adapters), len(adapters), dtype=torch.float64)
    for layer in adapters[0].updates:
        own = [adapter.updates[layer] for adapter in adapters]
        ranks = torch.tensor([update.down.shape[0] for update in own])
        owner = torch.repeat_interleave(torch.arange(len(own)), ranks)
        downs = torch.cat([update.down.double() for update in own])  # (Σ ranks, in)
        ups = torch.cat([update.up.double().mT * update.scale for update in own])
        both = (downs @ downs.mT) * (ups @ ups.mT)
        rows = torch.zeros(len(own), both.shape[1], dtype=torch.float64)
        rows.index_add_(0, owner, both)
        total.mT.index_add_(0, owner, rows.mT)
    return total


def principal(
    products: Float[Tensor, "points points"],
) -> tuple[Float[Tensor, "points 2"], float]:
    """The first two principal components from inner products, and the variance they explain."""
    centred = products - products.mean(0) - products.mean(1, keepdim=True) + products.mean()
    values, vectors = torch.linalg.eigh(centred)
    values = values.clamp(min=0)
    return vectors[:, -2:].flip(1) * values[-2:].flip(0).sqrt(), float(
        values[-2:].sum() / values.sum()
    )


def cosines(products: Tensor, primitives: Sequence[tuple[str, ...]]) -> tuple[float, float]:
    """The mean cosine of two tasks that share a primitive, and of two that share none."""
    size = products.diagonal().clamp(min=1e-30).sqrt()
    cosine = products / size[:, None] / size[None]
    shared: list[float] = []
    others: list[float] = []
    for one, names in enumerate(primitives):
        for two in range(one):
            is_shared = bool(set(names) & set(primitives[two]))
            (shared if is_shared else others).append(float(cosine[one, two]))
    return _mean(shared), _mean(others)


def distances(generator: Generator, tasks: Tasks, table: Table) -> dict[str, tuple[float, float]]:
    """Held-out task → 1 − cosine of its descriptions to the nearest that trained, and its score."""
    embedder = generator.reader.embedder
    known = embedder.vectors([text for task in tasks.of("train") for text in _told(task)[:8]])
    scores: dict[str, list[bool]] = {}
    texts: dict[str, set[str]] = {}
    for item, hit in zip(table.items, table.hits["generated"], strict=True):
        if item.task.split == "test":
            scores.setdefault(item.task.name, []).append(hit)
            texts.setdefault(item.task.name, set()).add(item.description.text)
    found: dict[str, tuple[float, float]] = {}
    for name, hits in scores.items():
        nearest = (embedder.vectors(sorted(texts[name])) @ known.mT).max(1).values
        found[name] = (1 - float(nearest.mean()), sum(hits) / len(hits))
    return found


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """The correlation of two rankings; NaN for fewer than 3 points or a constant."""
    if len(one) < 3 or len(set(one)) == 1 or len(set(other)) == 1:
        return float("nan")
    from scipy.stats import spearmanr

    found: Any = spearmanr(one, other)
    return float(found.statistic)


def _told(task: Task) -> list[str]:
    return [d.text for d in task.of_set() or task.descriptions]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _picture(
    tasks: Sequence[Task],
    places: Tensor,
    points: Mapping[str, tuple[float, float]],
    drawn: Drawn,
) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    names = sorted({_group(task) for task in tasks})
    for number, name in enumerate(names):
        own = [place for place, task in enumerate(tasks) if _group(task) == name]
        left.scatter(
            places[own, 0], places[own, 1], s=18, label=name,
            color=f"C{number % 10}", marker="osD^v"[number // 10 % 5],
        )  # fmt: skip
    left.set_title(f"updates by their last primitive ({drawn.explained:.0%} of the variance)")
    left.set_xlabel("first principal component of ΔW")
    left.set_ylabel("second")
    left.legend(fontsize=7, ncols=2, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    right.scatter([d for d, _ in points.values()], [s for _, s in points.values()], s=18)
    right.set_title(f"held-out tasks (Spearman {drawn.correlation:.2f})")
    right.set_xlabel("1 − cosine to the nearest training description")
    right.set_ylabel("exact match")
    right.set_ylim(-0.03, 1.03)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150)
    return stream.getvalue()


def _group(task: Task) -> str:
    return task.primitives[-1]
