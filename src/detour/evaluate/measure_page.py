"""What was measured of a chain as one HTML page that fetches nothing. Knows measurements only."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from detour import html
from detour.evaluate.chain_measure import ChainMeasure, Kept
from detour.evaluate.chain_remedies import Remedy
from detour.evaluate.measure_plots import inline
from detour.language.catalogue import ENGLISH, Catalogue

COLOURS = {"compatible": "ready", "degraded": "dirty", "conflict": "unusable",
           "not measured": "dirty"}  # fmt: skip


def page(found: ChainMeasure, helped: Sequence[Remedy], t: Catalogue = ENGLISH) -> str:
    """The page, in the catalogue's language."""
    verdict = t("verdict: {verdict}", verdict=t.say(found.said))
    parts = [
        f'<p><span class="verdict {COLOURS[found.verdict]}">{escape(verdict)}</span></p>',
        *(f"<p>{escape(t.say(kept.why))}</p>" for kept in found.kept.values() if kept.why),
        html.section("", inline(found, t)),
        _adapters(found, t),
        _texts(found, t),
        _remedies(helped, t),
    ]
    return html.page(t("Chain: {chain}", chain=found.chain.text), "detour chain measure",
                     "".join(parts), t)  # fmt: skip


def _adapters(found: ChainMeasure, t: Catalogue) -> str:
    heads = [t("adapter"), t("base"), t("alone"), t("in the chain"), t("retained"), t("tests"),
             t("KL to alone"), t("contradictions")]  # fmt: skip
    rows = [[html.cell(found.names[place]), *_figures(kept)] for place, kept in found.kept.items()]
    return html.table(t("adapters"), heads, rows, numbers=range(1, 8))


def _figures(kept: Kept) -> list[str]:
    share = kept.share
    told = [f"{kept.base:.2f}", f"{kept.alone:.2f}", f"{kept.chain:.2f}",
            f"{share.value:.2f} [{share.low:.2f}, {share.high:.2f}]" if share else "–", str(kept.n),
            f"{kept.moved.kl_to_alone:.2f}" if kept.moved else "–",
            f"{kept.contradictions.value:.0%}" if kept.contradictions else "–"]  # fmt: skip
    return [html.cell(one, "n") for one in told]


def _texts(found: ChainMeasure, t: Catalogue) -> str:
    broken = found.broken
    return html.pairs(t("text"), [
        (t("broken answers in the chain"), str(broken.chain)),
        (t("broken answers of each adapter alone"), str(broken.alone)),
        (t("broken answers of the base"), str(broken.base)),
        (t("KL to the base on neutral text, nats a token"), f"{found.neutral.kl_mean:.4f}"),
    ])  # fmt: skip


def _remedies(helped: Sequence[Remedy], t: Catalogue) -> str:
    if not helped:
        return ""
    heads = [t("tried"), t("adapters"), t("retained"), t("worst"), t("gain"), t("chain")]
    rows = [
        [html.cell(t.say(one.what)),
         *(html.cell(told, "n") for told in (str(len(one.shares)), f"{one.retained_mean:.2f}",
                                             f"{one.worst:.2f}", one.gain_told)),
         html.cell(one.chain.text)]
        for one in helped
    ]  # fmt: skip
    return html.table(t("what helps"), heads, rows, numbers=range(1, 5))
