"""A data report as one HTML page that fetches nothing.

Knows reports; looks at nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from detour import html
from detour.data.report import DataReport, Decoded
from detour.language.catalogue import ENGLISH, Catalogue

ROWS = 24  # of a table of counts
SHOWN = 4000  # characters of the decoded row


def page(report: DataReport, t: Catalogue = ENGLISH) -> str:
    """The page, in the catalogue's language."""
    title = t("Data report: {name}", name=report.name)
    counts = [
        (t("labels"), report.labels),
        (t("languages"), report.languages),
        (t("licences"), report.licences),
    ]
    parts = [
        findings(report, t),
        _numbers(report, t),
        *([_example(report.example, t)] if report.example else []),
        f'<div class="grid">{"".join(_counted(*pair) for pair in counts if pair[1])}</div>',
    ]
    told = f"<p>{verdict(report, t)}</p>{''.join(parts)}"
    return html.page(title, t.say(report.told), told, t)


def verdict(report: DataReport, t: Catalogue) -> str:
    """Whether to train, as a coloured word, and what to do, as HTML."""
    told = t("verdict: {verdict}", verdict=report.verdict.replace("_", " "))
    return (
        f'<span class="verdict {report.verdict}">{escape(told)}</span> '
        f"{escape(t.say(report.advice))}"
    )


def findings(report: DataReport, t: Catalogue, title: str = "", above: str = "") -> str:
    """The section that says what is wrong with the data, as HTML; `above` is HTML before it."""
    if not report.findings:
        return html.section(title or t("findings"), above + escape(t("nothing was found")))
    rows = [
        [
            f'<td class="{finding.severity}">{escape(finding.code)}</td>',
            f'<td class="n">{finding.rows:,}</td>',
            f"<td>{escape(t.say(finding.told))}"
            + (f'<br><span class="soft">{escape(", ".join(finding.where))}</span>'
               if finding.where else "")
            + "</td>",
        ]
        for finding in report.findings
    ]  # fmt: skip
    heads = [t("finding"), t("rows"), t("what to do")]
    return html.table(title or t("findings"), heads, rows, above, numbers=(1,))


def _numbers(report: DataReport, t: Catalogue) -> str:
    told: list[tuple[str, str]] = [
        (t("rows of {split}", split=split), f"{count:,}") for split, count in report.rows.items()
    ]
    told.append((t("rows that can be used"), f"{report.usable:,}"))
    if tokens := report.tokens:
        learned = f"{tokens.supervised_median:,.0f} ({tokens.supervised_least:,} – "
        told += [
            (t("tokens a row, median and most"), f"{tokens.median:,.0f}, {tokens.most:,}"),
            (t("learned tokens a row, median (least – most)"),
             f"{learned}{tokens.supervised_most:,})"),
            (t("tokens in all"), f"{tokens.total:,}"),
            (t("rows longer than the context"), f"{tokens.too_long:,}"),
        ]  # fmt: skip
    if report.sampled < report.usable:
        told.append((t("rows looked at closely"), f"{report.sampled:,}"))
    rows = [[f"<td>{escape(name)}</td>", f'<td class="n">{value}</td>'] for name, value in told]
    return html.table(t("in numbers"), [], rows)


def _example(example: Decoded, t: Catalogue) -> str:
    left, shown = SHOWN, ""
    for piece, learned in example.pieces:
        told = escape(piece[:left])
        left -= len(piece)
        shown += f"<mark>{told}</mark>" if learned else told
        if left <= 0:
            shown += " …"
            break
    caption = t("as the model sees {source}; what is learned is marked", source=example.source)
    return html.section(caption, f"<pre>{shown}</pre>")


def _counted(title: str, counts: Mapping[str, int]) -> str:
    most = max(counts.values())
    rows = [
        [
            f"<td>{escape(name)}</td>",
            f'<td style="width:40%"><div class="bar" style="width:{100 * count / most:.0f}%"></div>'
            "</td>",
            f'<td class="n">{count:,}</td>',
        ]
        for name, count in list(counts.items())[:ROWS]
    ]
    return html.table(title, [], rows)
