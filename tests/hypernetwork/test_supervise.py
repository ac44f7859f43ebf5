"""What is drawn: by step alone, rows of like length together, nothing that only judges."""

import itertools
from collections.abc import Sequence

import pytest
import torch
from tests.hypernetwork.tiny_tasks import WIDTH, WordEmbedder

from detour.hypernetwork.build import new_network, trained_on
from detour.hypernetwork.config import NetworkConfig
from detour.hypernetwork.optimise import _mean_square
from detour.hypernetwork.reading import Library
from detour.hypernetwork.supervise import BUCKET, Draws, step_on
from detour.hypernetwork.tasks import Tasks
from detour.model.base import Base
from detour.team import Team


def _draws(base: Base, tasks: Tasks) -> Draws:
    numbers = {id(d): number for number, d in enumerate(trained_on(tasks))}
    return Draws(base, tasks, numbers, tasks.primitives)


def test_a_step_draws_the_same_again(base: Base, tasks: Tasks) -> None:
    draws = _draws(base, tasks)
    one = [draws.batch(0, step, 6) for step in range(2 * BUCKET)]
    again = [_draws(base, tasks).batch(0, step, 6) for step in range(2 * BUCKET)]
    assert one == again
    assert one != [draws.batch(1, step, 6) for step in range(2 * BUCKET)]
    assert all(len(rows) == 6 for rows in one)


def test_rows_of_like_length_meet(base: Base, tasks: Tasks) -> None:
    rows = [_draws(base, tasks).batch(0, step, 8) for step in range(BUCKET)]
    spans = sorted(
        (min(len(r.encoded.ids) for r in batch), max(len(r.encoded.ids) for r in batch))
        for batch in rows
    )
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_only_training_descriptions_of_training_tasks_are_drawn(base: Base, tasks: Tasks) -> None:
    told = trained_on(tasks)
    allowed = {d.text: t.name for t in tasks.of("train") for d in t.of_set()}
    drawn = [row for step in range(20) for row in _draws(base, tasks).batch(0, step, 8)]
    assert {told[row.description].text for row in drawn} <= set(allowed)
    assert {allowed[told[row.description].text] for row in drawn} == {
        task.name for task in tasks.of("train")
    }


def test_what_is_judged_is_never_a_test_task(base: Base, tasks: Tasks) -> None:
    told = trained_on(tasks)
    judged = {told[row.description].text for row in _draws(base, tasks).judged(60)}
    assert judged <= {d.text for d in tasks.of("validation")[0].of_set()}
    lengths = [len(row.encoded.ids) for row in _draws(base, tasks).judged(60)]
    assert lengths == sorted(lengths)


def test_shares_of_a_step_add_up_to_it(base: Base, tasks: Tasks) -> None:
    told = trained_on(tasks)
    library = Library.of(WordEmbedder(), told, "spans", 0.0, 16)
    config = NetworkConfig(encoder="spans", spelling=16, rank=2, dropout=0.0, hidden=16)
    network = new_network(base, tasks, config, WIDTH, seed=0)
    _ = base.head  # made while the slots are empty
    torch.manual_seed(1)
    for parameter in network.parameters():  # as after some steps: nothing is zero
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    drawn = _draws(base, tasks).batch(0, 0, 7)
    described = library.picked([row.description for row in drawn])

    def gradients(*shares: Sequence[int] | None) -> tuple[float, list[torch.Tensor]]:
        network.zero_grad()
        steps = [step_on(base, network, described, drawn, share) for share in shares]
        for step in steps:
            penalty = step.fraction * _mean_square(step.generated)
            (step.loss + step.named + penalty).backward()
        found = [p.grad.clone() for p in network.parameters() if p.grad is not None]
        assert sum(step.fraction for step in steps) == pytest.approx(1)
        return sum(float((step.loss + step.named).detach()) for step in steps), found

    whole, expected = gradients(None)
    parts, found = gradients(*(Team(rank, 3).share(7) for rank in range(3)))
    assert parts == pytest.approx(whole, rel=1e-6)
    largest = max(float(gradient.abs().max()) for gradient in expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * largest)
