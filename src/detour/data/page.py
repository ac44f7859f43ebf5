"""A data report as one HTML page that fetches nothing.

Knows reports; looks at nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from detour.data.report import DataReport, Decoded
from detour.language.catalogue import ENGLISH, Catalogue

ROWS = 24  # of a table of counts
SHOWN = 4000  # characters of the decoded row
_STYLE = """
:root{--ink:#1f2937;--soft:#6b7280;--line:#e5e7eb;--good:#15803d;--warn:#b45309;--bad:#b91c1c}
*{box-sizing:border-box}body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);margin:0;
background:#f9fafb}main{max-width:60rem;margin:0 auto;padding:2rem 1rem 4rem}
h1{font-size:1.6rem;margin:.2rem 0}h2{font-size:1.1rem;margin:0 0 .6rem}
section{background:#fff;border:1px solid var(--line);border-radius:.6rem;padding:1.1rem 1.3rem;
margin:1rem 0;overflow-x:auto}.soft{color:var(--soft)}
.verdict{display:inline-block;color:#fff;border-radius:.4rem;padding:.15rem .7rem;font-weight:600}
.ready{background:var(--good)}.dirty,.too_few{background:var(--warn)}.unusable{background:var(--bad)}
.error{color:var(--bad)}.warning{color:var(--warn)}.info{color:var(--soft)}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:.85rem;margin:0}
mark{background:#bbf7d0;color:inherit;border-radius:.2rem}
.bar{background:#93c5fd;height:.7rem;border-radius:.2rem;min-width:2px}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(16rem,1fr));gap:1rem}
"""


def page(report: DataReport, t: Catalogue = ENGLISH) -> str:
    """The page, in the catalogue's language."""
    verdict = t("verdict: {verdict}", verdict=report.verdict.replace("_", " "))
    title = t("Data report: {name}", name=report.name)
    counts = [
        (t("labels"), report.labels),
        (t("languages"), report.languages),
        (t("licences"), report.licences),
    ]
    parts = [
        _findings(report, t),
        _numbers(report, t),
        *([_example(report.example, t)] if report.example else []),
        f'<div class="grid">{"".join(_counted(*pair) for pair in counts if pair[1])}</div>',
    ]
    return (
        f'<!doctype html><html lang="{t.language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f'<p class="soft">{escape(t.say(report.told))}</p><h1>{escape(title)}</h1>'
        f'<p><span class="verdict {report.verdict}">{escape(verdict)}</span> '
        f"{escape(t.say(report.advice))}</p>{''.join(parts)}</main></body></html>"
    )


def _findings(report: DataReport, t: Catalogue) -> str:
    if not report.findings:
        return f"<section>{escape(t('nothing was found'))}</section>"
    rows = [
        [
            f'<td class="{finding.severity}">{escape(finding.code)}</td>',
            f'<td class="n">{finding.rows:,}</td>',
            f"<td>{escape(t.say(finding.advice))}"
            + (f'<br><span class="soft">{escape(", ".join(finding.where))}</span>'
               if finding.where else "")
            + "</td>",
        ]
        for finding in report.findings
    ]  # fmt: skip
    return _table(t("findings"), [t("finding"), t("rows"), t("what to do")], rows)


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
    return _table(t("in numbers"), [], rows)


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
    return f"<section><h2>{escape(caption)}</h2><pre>{shown}</pre></section>"


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
    return _table(title, [], rows)


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<section><h2>{escape(title)}</h2><table><tr>{head}</tr>{body}</table></section>"
