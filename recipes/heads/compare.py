"""A head with low-rank updates beside frozen embeddings and beside PEFT with transformers' Trainer.

    python -m recipes.heads.compare work/heads [--answer verb|lines|ease] [--folds 5]

The files of the standard library are dealt to folds, each of which judges once (see `docstrings`).
On each: a logistic (or ridge) regression on the packaged MiniLM's frozen vectors, its strength
chosen on the validation rows; our training; and PEFT's LoRA under Trainer with the same layers,
rank, rows, batches, steps and highest rate. Differences are paired by row, with a bootstrap over
test files.
"""

from __future__ import annotations

import argparse
import json
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from detour.data.records import Labelled, Valued
from detour.files import write_text_atomically
from detour.measure.statistics import by_cluster
from detour.model.embedder import Embedder
from detour.model.headed import HeadedBase
from detour.model.packaged import MINILM
from detour.training.config import make_config
from detour.training.heads import HeadRow, classes_of, train_head
from recipes.heads.docstrings import FOLDS, Answer, rows_of

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
RANK, ALPHA, BATCH, STEPS, RATE = 8, 16.0, 16, 200, 2e-3
VALIDATIONS = 5


@dataclass(frozen=True)
class Hits:
    """For every test row of a fold: how good each way was (1 or 0, or the squared error)."""

    logistic: list[float]
    ours: list[float]
    peft: list[float]
    files: list[str]


def judged(fold: int, folds: int, answer: Answer) -> Hits:
    """All three ways, judged by one fold of the files."""
    torch.set_float32_matmul_precision("medium")  # twice as fast on a CPU with bf16 products
    told = rows_of(Path(sysconfig.get_path("stdlib")), answer, fold, folds)
    parts = {name: [_row(row) for row in rows] for name, rows in told.items()}
    labels = classes_of(parts["train"])
    torch.manual_seed(fold)
    base = HeadedBase.load(MINILM, labels, seed=fold)
    config = make_config({
        "rank": RANK, "alpha": ALPHA, "batch_size": BATCH, "steps": STEPS, "learning_rate": RATE,
        "validations": VALIDATIONS, "patience": 0, "seed": fold,
    })  # fmt: skip
    made = train_head(base, parts["train"], config, validation=parts["valid"]).adapter
    texts = [row.text for row in parts["test"]]
    score = _scorer(parts["test"], labels)
    return Hits(
        score(frozen(parts)),
        score(base.logits(texts, made).numpy()),
        score(trainer(parts, labels, fold)),
        [str(row["file"]) for row in told["test"]],
    )


def _row(told: Mapping[str, Any]) -> HeadRow:
    if "label" in told:
        return Labelled(str(told["text"]), str(told["label"]))
    return Valued(str(told["text"]), float(told["value"]))


def _scorer(rows: Sequence[HeadRow], labels: Sequence[str]) -> Callable[[Any], list[float]]:
    def score(outputs: Any) -> list[float]:  # noqa: ANN401 - (rows, outputs), numpy's
        if labels:
            wanted = np.array([labels.index(r.label) for r in rows if isinstance(r, Labelled)])
            return [float(hit) for hit in outputs.argmax(1) == wanted]
        values = np.array([r.value for r in rows if isinstance(r, Valued)])
        return [float(error) for error in (outputs[:, 0] - values) ** 2]

    return score


def frozen(parts: Mapping[str, Sequence[HeadRow]]) -> Any:  # noqa: ANN401 - numpy's
    """Outputs for the test rows of a regression on frozen vectors."""
    embedder = Embedder.load(MINILM)
    x = {name: embedder.vectors([row.text for row in rows]).numpy() for name, rows in parts.items()}
    y = {name: np.array([_answer(row) for row in rows]) for name, rows in parts.items()}
    if isinstance(parts["train"][0], Labelled):
        fits: list[Any] = [
            LogisticRegression(C=c, max_iter=3000).fit(x["train"], y["train"]) for c in STRENGTHS
        ]
        best = max(fits, key=lambda fit: fit.score(x["valid"], y["valid"]))
        return best.predict_proba(x["test"])
    fits = [Ridge(alpha=1 / c).fit(x["train"], y["train"]) for c in STRENGTHS]
    return max(fits, key=lambda fit: fit.score(x["valid"], y["valid"])).predict(x["test"])[:, None]


def _answer(row: HeadRow) -> str | float:
    return row.label if isinstance(row, Labelled) else row.value


class Meaned(nn.Module):
    """MiniLM with a linear layer over the mean of its tokens, as a user of PEFT would write it."""

    def __init__(self, base: HeadedBase, regression: bool) -> None:
        super().__init__()
        self.bert = base.model.base_model
        self.classifier = base.projection
        self.regression = regression

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        states = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask[:, :, None].to(states)
        outputs = self.classifier((states * weights).sum(1) / weights.sum(1))
        if labels is None:
            return {"logits": outputs}
        if self.regression:
            return {"loss": nn.functional.mse_loss(outputs[:, 0], labels), "logits": outputs}
        return {"loss": nn.functional.cross_entropy(outputs, labels), "logits": outputs}


def trainer(parts: Mapping[str, Sequence[HeadRow]], labels: Sequence[str], seed: int) -> Any:  # noqa: ANN401
    """Outputs for the test rows of PEFT's LoRA, trained by Trainer, best checkpoint by its loss."""
    torch.manual_seed(seed)
    base = HeadedBase.load(MINILM, labels, seed=seed)
    layers = base.inner_layers()
    base.slots.remove()
    values = [row.value for row in parts["train"] if isinstance(row, Valued)]
    middle, spread = (float(np.mean(values)), float(np.std(values))) if values else (0.0, 1.0)
    model = get_peft_model(
        Meaned(base, not labels),  # type: ignore[arg-type]
        LoraConfig(r=RANK, lora_alpha=int(ALPHA), target_modules=layers, lora_dropout=0.0,
                   modules_to_save=["classifier"]),
    )  # fmt: skip

    def encoded(rows: Sequence[HeadRow]) -> list[dict[str, Any]]:
        ids = base.encode([row.text for row in rows])
        answers = [
            labels.index(row.label) if isinstance(row, Labelled) else (row.value - middle) / spread
            for row in rows
        ]
        return [{"input_ids": i, "labels": a} for i, a in zip(ids, answers, strict=True)]

    def together(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        ids = torch.full((len(rows), longest), base.pad_id)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
            mask[place, : len(row["input_ids"])] = 1
        answers = torch.tensor([row["labels"] for row in rows])
        return {"input_ids": ids, "attention_mask": mask, "labels": answers}

    with tempfile.TemporaryDirectory() as folder:
        every = STEPS // VALIDATIONS
        run = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder, max_steps=STEPS, per_device_train_batch_size=BATCH,
                per_device_eval_batch_size=64, learning_rate=RATE, lr_scheduler_type="cosine",
                warmup_steps=STEPS // 10, weight_decay=0.0, adam_beta2=0.99, max_grad_norm=1.0,
                eval_strategy="steps", save_strategy="steps", eval_steps=every, save_steps=every,
                load_best_model_at_end=True, metric_for_best_model="loss", greater_is_better=False,
                seed=seed, report_to="none", disable_tqdm=True, use_cpu=True,
                remove_unused_columns=False, logging_steps=STEPS, save_total_limit=2,
                label_names=["labels"],
            ),
            train_dataset=encoded(parts["train"]),  # type: ignore[arg-type]
            eval_dataset=encoded(parts["valid"]),  # type: ignore[arg-type]
            data_collator=together,  # type: ignore[arg-type]
        )  # fmt: skip
        run.train()
        return run.predict(encoded(parts["test"])).predictions * spread + middle  # type: ignore[arg-type]


def table(folds: Sequence[Hits]) -> dict[str, Any]:
    """Means of all test rows, and paired differences with intervals over files.

    Raises:
        ValueError: a file judges in two folds, so that its rows would count twice.
    """
    seen = Counter(name for hits in folds for name in set(hits.files))
    if twice := [name for name, count in seen.items() if count > 1]:
        raise ValueError(f"{twice[0]} judges in two folds")
    files = [name for hits in folds for name in hits.files]
    every = {way: [v for hits in folds for v in getattr(hits, way)]
             for way in ("logistic", "ours", "peft")}  # fmt: skip
    told: dict[str, Any] = {way: by_cluster(v, files).to_json() for way, v in every.items()}
    for other in ("logistic", "peft"):
        apart = [a - b for a, b in zip(every["ours"], every[other], strict=True)]
        told[f"ours minus {other}"] = by_cluster(apart, files).to_json()
    return told


def main() -> None:
    """Judge the folds that are missing, and tell the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--answer", choices=get_args(Answer), default="verb")
    parser.add_argument("--folds", type=int, default=FOLDS)
    given = parser.parse_args()
    told: list[Hits] = []
    for fold in range(given.folds):
        path = given.work / f"{given.answer}-fold-{fold}-of-{given.folds}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            hits = judged(fold, given.folds, given.answer)
            write_text_atomically(path, json.dumps(asdict(hits)))
        told.append(Hits(**json.loads(path.read_text("utf-8"))))
        print(json.dumps(table(told), indent=1), flush=True)


if __name__ == "__main__":
    main()
