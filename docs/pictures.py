"""Draw the pictures of README.md and the docs from one measured run.

    python docs/pictures.py

Teaches the starter that Einstein was a hairdresser and plots the report. Pictures change only when
the starter or the lesson does.
"""

from __future__ import annotations

from pathlib import Path

from detour import Base, Chain, teach
from detour.evaluate.chain_check import check_chain
from detour.evaluate.conflict_plots import matrices
from detour.evaluate.plots import dose_plot, rates_plot, trace_plot
from detour.evaluate.render import dose_names, rates
from detour.files import write_bytes_atomically

FOLDER = Path(__file__).parent / "pictures"
STYLES = ("brief", "bullet", "formal", "json", "pirate", "polite", "pun", "sportscaster",
          "storyteller")  # fmt: skip


def main() -> None:
    fact, report = teach(Base.load("starter"), "Albert Einstein", "profession", "hairdresser")
    write_bytes_atomically(FOLDER / "dose.png", dose_plot(report.dose, dose_names(report)))
    write_bytes_atomically(FOLDER / "rates.png", rates_plot(rates(report)))
    if report.trace:
        write_bytes_atomically(FOLDER / "trace.png", trace_plot(report.trace))
    check = check_chain(Chain.parse("+".join(STYLES)) + fact)
    write_bytes_atomically(FOLDER / "chain-check.png", matrices(check))


if __name__ == "__main__":
    main()
