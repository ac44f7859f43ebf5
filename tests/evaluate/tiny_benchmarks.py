"""Benchmarks in the lm-eval harness's YAML, on files beside them, for a tiny random model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DEFINITIONS = {
    "choice": """
task: tiny_choice
tag: tiny
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: right
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: mcc, aggregation: matthews_corrcoef, higher_is_better: true}
""",
    "writing": """
task: tiny_writing
tag: tiny
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 24, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
  - {metric: bleu, aggregation: bleu, higher_is_better: true}
  - {metric: chrf, aggregation: chrf, higher_is_better: true}
filter_list:
  - {name: whole, filter: [{function: take_first}]}
  - {name: first, filter: [{function: regex, regex_pattern: "(\\\\S+)"}, {function: take_first}]}
""",
    "whole": """
task: tiny_whole
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{question}} {{answer}}"
metric_list:
  - {metric: byte_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
""",
    "last": """
task: tiny_last
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
output_type: loglikelihood
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
}
NAMES = ("tiny_choice", "tiny_writing", "tiny_whole", "tiny_last")


def write(folder: Path, answers: Sequence[str]) -> Path:
    """Four benchmarks of as many items as there are answers, in a new folder."""
    folder.mkdir()
    rows: list[dict[str, Any]] = [
        {"question": f"Which is number {n}?", "choices": ["a", "c", "s", "w it"],
         "right": n % 3, "answer": answer}
        for n, answer in enumerate(answers)
    ]  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    for name, definition in DEFINITIONS.items():
        (folder / f"{name}.yaml").write_text(definition, "utf-8")
    return folder


def grouped(folder: Path, sized: bool) -> None:
    """A group of the first choice benchmark and one on fewer rows."""
    lines = (folder / "rows.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "fewer.jsonl").write_text("".join(lines[:4]), "utf-8")
    fewer = DEFINITIONS["choice"].replace("tiny_choice", "tiny_fewer").replace("tag: tiny\n", "")
    (folder / "fewer.yaml").write_text(fewer.replace("rows.jsonl", "fewer.jsonl"), "utf-8")
    (folder / "both.yaml").write_text(
        "group: both\ntask: [tiny_choice, tiny_fewer]\n"
        f"aggregate_metric_list: [{{metric: acc, weight_by_size: {str(sized).lower()}}}]\n",
        "utf-8",
    )
