"""A chain's check as one HTML page that fetches nothing. Knows checks; looks at nothing itself."""

from __future__ import annotations

from html import escape

from detour import html
from detour.evaluate.chain_check import ChainCheck
from detour.evaluate.conflict_plots import inline
from detour.language.catalogue import ENGLISH, Catalogue

COLOURS = {"invalid": "unusable", "no conflict predicted": "ready", "measure it": "dirty"}


def page(check: ChainCheck, t: Catalogue = ENGLISH) -> str:
    """The page, in the catalogue's language."""
    verdict = t("verdict: {verdict}", verdict=t.say(check.said))
    parts = [
        f'<p><span class="verdict {COLOURS[check.verdict]}">{escape(verdict)}</span> '
        f"{escape(t.say(check.advice))}</p>",
        *(f'<p class="error">{escape(t.say(fault))}</p>' for fault in check.faults),
        *(html.section("", drawing) for drawing in (inline(check, t) if check.pairs else [])),
        _pairs(check, t),
        _shares(check, t),
    ]
    return html.page(t("Chain: {chain}", chain=check.chain.text), "detour chain check",
                     "".join(parts), t)  # fmt: skip


def _pairs(check: ChainCheck, t: Catalogue) -> str:
    heads = [t("pair"), t("cosine"), t("cancelled"), t("first one's share"), t("input overlap"),
             t("output overlap"), t("why to measure")]  # fmt: skip
    rows = [
        [html.cell(f"{check.names[pair.a]} · {check.names[pair.b]}"),
         *(html.cell(f"{value:.2f}", "n") for value in vars(pair.figures).values()),
         html.cell("; ".join(t.say(reason) for reason in pair.reasons))]
        for pair in check.pairs
    ]  # fmt: skip
    return html.table(t("pairs"), heads, rows, numbers=range(1, 6))


def _shares(check: ChainCheck, t: Catalogue) -> str:
    rows = [(name, f"{share:.1%}") for name, share in
            zip(check.names, check.geometry.shares, strict=True)]  # fmt: skip
    return html.pairs(t("share of all that the chain changes"), rows)
