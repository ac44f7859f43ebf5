"""Whether `detour tune` beats the default on two small tasks that this repository holds.

    python benchmarks/tuning.py FOLDER [--trials 20] [--workers 2]

`options`: what an option of the command line is for, asked and answered by the help. `messages`:
the program's English messages and their German. Writes rows and studies into FOLDER, prints a line
a task. A study that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 90  # characters of a message
ROWS = 320


def options() -> Iterator[tuple[str, str]]:
    """Every option of every command with a line of help."""
    spec = importlib.util.spec_from_file_location("docs_update", ROOT / "docs/update.py")
    assert spec
    assert spec.loader
    update = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = update
    spec.loader.exec_module(update)
    for verb, command, _ in update.commands():
        for option in command.params:
            if getattr(option, "help", None):
                yield f"What is {option.opts[-1]} of detour {verb} for?", option.help


def messages() -> Iterator[tuple[str, str]]:
    """Short messages and their German."""
    told = (ROOT / "src/detour/language/de.yaml").read_text(encoding="utf-8")
    for english, german in yaml.safe_load(told).items():
        if 12 < len(english) < LONGEST:
            yield f"In German: {english}", german


def main() -> None:
    """Write the rows, search, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", default="20")
    parser.add_argument("--workers", default="2")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    for name, pairs in (("options", options()), ("messages", messages())):
        found = sorted(set(pairs))
        random.Random(0).shuffle(found)
        rows = [{"prompt": prompt, "completion": answer} for prompt, answer in found[:ROWS]]
        data, study = asked.folder / f"{name}.jsonl", asked.folder / name
        data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        resume = ["--resume"] if (study / "study.db").exists() else []
        call = [sys.executable, "-m", "detour", "tune", str(data), "-o", str(study), "--json",
                "--trials", asked.trials, "--workers", asked.workers, *resume]  # fmt: skip
        told = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout
        print(json.dumps({"task": name, "rows": len(rows), **json.loads(told)}))


if __name__ == "__main__":
    main()
