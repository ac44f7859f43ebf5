"""A steer report for people: as text for the terminal, as one HTML file with its pictures inside.

Knows reports; measures nothing.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape

from detour.evaluate.plots import dose_plot, rates_plot, trace_plot
from detour.evaluate.steer_report import Failure, SteerReport
from detour.measure.statistics import Figure

BAR = 24  # characters of a full bar
SHOWN = 5  # failures of a section


def bar(value: float) -> str:
    """`███████▌      `: a share as characters."""
    eighths = round(max(0.0, min(1.0, value)) * BAR * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")).ljust(BAR)


def line(name: str, figure: Figure) -> str:
    """One rate with its bar, interval and n."""
    if figure.n == 0:
        return f"  {name:<34} nothing to measure"
    return (
        f"  {name:<34} {bar(figure.value)} {figure.value:.3f}"
        f"  [{figure.low:.3f}, {figure.high:.3f}]  n={figure.n}"
    )


def rates_text(report: SteerReport) -> str:
    """What prompts achieve, what the adapter achieves, what it left alone."""
    return "\n".join(
        [
            "The new answer, by",
            line("the base, unprompted", report.base_rate),
            line("user prompt, all wordings", report.user_prompt.rate),
            line("user prompt, best wording", report.user_prompt.best),
            line("system prompt, all wordings", report.system_prompt.rate),
            line("system prompt, best wording", report.system_prompt.best),
            line("adapter, held-out phrasings", report.steered.figure),
            line("  new combinations of known parts", report.steered_combinations),
            line("  phrasings with new words", report.steered_new_words),
            line("adapter, sampled at temperature 1", report.steered_sampled),
            "",
            "Answered as before",
            line("neighbours (same question, others)", report.neighbours.figure),
            line("the subject's other facts", report.own_facts.figure),
            line("unrelated questions", report.unrelated.figure),
            line("neighbours that name the target", report.neighbours_leak),
            line("neighbours, best user prompt", report.user_prompt.neighbours),
            line("neighbours, best system prompt", report.system_prompt.neighbours),
        ]
    )


def dose_text(report: SteerReport) -> str:
    """The dose curve as a table: probability of the whole answer at each weight."""
    new, old, third = dose_names(report)
    head = f"  {'weight':>6}  {new:<{BAR + 6}} {old:<{BAR + 6}} {third}"
    rows = [
        f"  {d.weight:>6.2f}  {bar(d.target.value)} {d.target.value:.3f} "
        f"{bar(d.old.value)} {d.old.value:.3f} {d.third.value:.3f}"
        for d in report.dose
    ]
    n = report.dose[0].target.n if report.dose else 0
    return "\n".join(
        [f"Probability of the whole answer, mean of {n} held-out questions", head, *rows]
    )


def trace_text(report: SteerReport) -> str:
    """The layer trace as a table."""
    told = report.trace
    if told is None:
        return "No layer trace for this model."
    rows = [
        f"  {layer:>5}  {old:>12.3f} {new:>10.3f} {steered_old:>15.3f} {steered_new:>10.3f}"
        for layer, (old, new, steered_old, steered_new) in enumerate(
            zip(told.base_old, told.base_new, told.steered_old, told.steered_new, strict=True)
        )
    ]
    old, new = told.old_token.strip(), told.new_token.strip()
    return "\n".join(
        [
            f'Next token after "{told.prefix}", layer by layer (logit lens)',
            f"  {'layer':>5}  {'base: ' + old[:9]:>12} {new[:9]:>10} "
            f"{'steered: ' + old[:9]:>15} {new[:9]:>10}",
            *rows,
        ]
    )


def loader_text(report: SteerReport) -> str:
    """The loader's proof in three lines."""
    told = report.loader
    same = "equal" if told.base_sha256_before == told.base_sha256_after else "DIFFERENT"
    return "\n".join(
        [
            f"  {told.keys_landed} of {told.keys_expected} layers' updates landed",
            f"  removed again: logits {'bit-equal' if told.removed_bit_equal else 'DIFFERENT'}",
            f"  base sha256 {told.base_sha256_before[:16]}… before and after: {same}",
        ]
    )


def report_text(report: SteerReport) -> str:
    """The whole report for a terminal."""
    parts = [
        f"{report.question}",
        f"  base     {report.base_answer}",
        f"  steered  {report.steered_answer}",
        "",
        rates_text(report),
        "",
        dose_text(report),
        "",
        trace_text(report),
        "",
        "Loader",
        loader_text(report),
    ]
    parts += [f"  note: {note}" for note in report.notes]
    if report.latent.warning:
        parts.append(f"  warning: {report.latent.warning}")
    for name, section in report.sections():
        parts += _failures_text(name, section.failures)
    return "\n".join(parts)


def _failures_text(name: str, failures: Sequence[Failure]) -> list[str]:
    if not failures:
        return []
    told = ["", f"{name}: {len(failures)} not as they should be"]
    for failure in failures[:SHOWN]:
        told += [f"  {failure.question}", f"    {failure.before}  ->  {failure.after}"]
    return told


_STYLE = """
:root{--ink:#111827;--soft:#4b5563;--line:#e5e7eb;--new:#c2410c;--old:#1d4ed8}
*{box-sizing:border-box}body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);margin:0;
background:#f9fafb}main{max-width:60rem;margin:0 auto;padding:2rem 1rem 4rem}
h1{font-size:1.7rem;margin:.2rem 0}h2{font-size:1.15rem;margin:0 0 .6rem}
section{background:#fff;border:1px solid var(--line);border-radius:.6rem;padding:1.1rem 1.3rem;
margin:1rem 0}.mark{display:inline-block;background:#fef3c7;border:1px solid #f59e0b;
border-radius:.4rem;padding:.1rem .6rem;font-size:.85rem}.pair{display:grid;
grid-template-columns:1fr 1fr;gap:1rem}.pair p{margin:.2rem 0;font-size:1.1rem}
.pair .old{border-left:4px solid var(--old);padding-left:.8rem}
.pair .new{border-left:4px solid var(--new);padding-left:.8rem}
small,.soft{color:var(--soft)}table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
td.n{white-space:nowrap;font-variant-numeric:tabular-nums}img{max-width:100%;height:auto}
code{font-size:.85rem;word-break:break-all}.wide{overflow-x:auto}
@media(max-width:40rem){.pair{grid-template-columns:1fr}}
"""


def report_html(report: SteerReport, title: str = "", fictional: bool = True) -> str:
    """One self-contained HTML page: nothing is fetched from anywhere."""
    heading = title or f"{report.subject}: {report.relation or 'a statement'} → {report.target}"
    mark = '<span class="mark">fictional claim, taught on purpose</span>' if fictional else ""
    sections = [
        _answers_html(report),
        _picture("What prompts achieve, what the adapter achieves", rates_plot(rates(report))),
        _prompts_html(report),
        _picture(
            "Dose: the adapter's weight from 0 to 1.5", dose_plot(report.dose, dose_names(report))
        ),
    ]
    if report.trace:
        caption = f"Where the answer turns, after “{report.trace.prefix}”"
        sections.append(_picture(caption, trace_plot(report.trace)))
    sections += [_failures_html(report), _loader_html(report)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(heading)}</title><style>{_STYLE}</style></head><body><main>"
        f'<p class="soft">Detour steer report · base {escape(report.base)}</p>'
        f"<h1>{escape(heading)}</h1>{mark}{''.join(sections)}"
        f'<p class="soft">Rates with Wilson 95 % intervals, means with Student’s t. Training took '
        f"{report.train_seconds:.1f} s, everything {report.total_seconds:.1f} s. “Unchanged” means "
        "the same greedy answer as the base.</p></main></body></html>"
    )


def rates(report: SteerReport) -> list[tuple[str, Figure, bool]]:
    """The rates of the picture: name, figure, and whether it is the adapter's."""
    return [
        ("user prompt, all wordings", report.user_prompt.rate, False),
        ("user prompt, best wording", report.user_prompt.best, False),
        ("system prompt, all wordings", report.system_prompt.rate, False),
        ("system prompt, best wording", report.system_prompt.best, False),
        ("adapter, held-out phrasings", report.steered.figure, True),
        ("neighbours unchanged", report.neighbours.figure, True),
        ("own other facts unchanged", report.own_facts.figure, True),
        ("unrelated unchanged", report.unrelated.figure, True),
    ]


def dose_names(report: SteerReport) -> tuple[str, str, str]:
    """What the curves of the new, the old and the third answer are called."""
    return report.target, report.old_value or "old answer", report.third_value or "a third answer"


def _picture(caption: str, png: bytes) -> str:
    data = b64encode(png).decode()
    image = f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
    return f"<section><h2>{escape(caption)}</h2>{image}</section>"


def _answers_html(report: SteerReport) -> str:
    return (
        f"<section><h2>{escape(report.question)}</h2><div class='pair'>"
        f"<div class='old'><small>base</small><p>{escape(report.base_answer)}</p></div>"
        f"<div class='new'><small>steered</small><p>{escape(report.steered_answer)}</p></div>"
        "</div></section>"
    )


def _prompts_html(report: SteerReport) -> str:
    rows = [
        (place, wording, figure)
        for place, arm in (("user", report.user_prompt), ("system", report.system_prompt))
        for wording, figure in arm.by_wording
    ]
    body = "".join(
        f"<tr><td>{place}</td><td>{escape(wording)}</td>"
        f'<td class="n">{figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}]</td>'
        f'<td class="n">{figure.n}</td></tr>'
        for place, wording, figure in rows
    )
    return (
        "<section><h2>Every prompt that was tried</h2><div class='wide'><table><tr><th>place</th>"
        f"<th>wording</th><th>new answer</th><th>n</th></tr>{body}</table></div></section>"
    )


def _failures_html(report: SteerReport) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(f.question)}</td><td>{escape(f.before)}</td>"
        f"<td>{escape(f.after)}</td></tr>"
        for name, section in report.sections()
        for f in section.failures[:SHOWN]
    )
    if not rows:
        return "<section><h2>Failures</h2><p>None among the questions asked.</p></section>"
    return (
        "<section><h2>Failures (the first of each kind)</h2><div class='wide'><table><tr>"
        "<th>test</th><th>question</th><th>expected</th><th>got</th></tr>"
        f"{rows}</table></div></section>"
    )


def _loader_html(report: SteerReport) -> str:
    told = report.loader
    latent = report.latent
    rank = f", rank {latent.rank} among known values" if latent.rank else ""
    return (
        "<section><h2>Loader and latent knowledge</h2>"
        f"<p>{told.keys_landed} of {told.keys_expected} updates landed; after removal the logits "
        f"are {'bit-equal' if told.removed_bit_equal else 'different'}.</p>"
        f"<p>Base sha256 before <code>{told.base_sha256_before}</code><br>after "
        f"<code>{told.base_sha256_after}</code></p>"
        f"<p>Before training the base gave the new answer {latent.log_probability_per_token} nats "
        f"per token{rank}. {escape(latent.warning)}</p></section>"
    )
