"""A steer report for people: as text for the terminal, as one HTML file with its pictures inside.

Both in the language of a catalogue. Knows reports; measures nothing.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape

from detour.evaluate.plots import dose_plot, rates_plot, trace_plot
from detour.evaluate.steer_report import (
    DOSES,
    Failure,
    LanguageReport,
    Repeat,
    Section,
    SteerReport,
)
from detour.language.catalogue import ENGLISH, NAMES, Catalogue, text
from detour.measure.statistics import Figure

BAR = 24  # characters of a full bar
SHOWN = 5  # failures of a section
FIGURES = {  # of the full report, as its tables call them
    text("The new answer"): {
        "efficacy": text("trained phrasings"),
        "paraphrases": text("held-out phrasings"),
        "paraphrases_sampled": text("the same, sampled"),
        "contradictions": text("held-out, another value"),
        "delta_log_p": text("gain, nats a token"),
        "portability_alias": text("under another name"),
        "portability_reversal": text("asked the other way round"),
        "portability_negation": text("the old fact denied"),
        "portability_hops": text("what follows from it"),
    },
    text("What else it touches"): {
        "locality": text("neighbours unchanged"),
        "neighbours_naming_target": text("neighbours naming it"),
        "leak_ratio": text("gain there / gain here"),
        "told_before_unchanged": text("told before, unchanged"),
        "told_before_naming_target": text("told before, naming it"),
        "own_other_facts_unchanged": text("own other facts unchanged"),
        "unrelated_unchanged": text("unrelated unchanged"),
        "unrelated_naming_target": text("unrelated naming it"),
    },
    text("By their published names"): {"ES": "ES", "PS": "PS", "NS": "NS", "S": "S"},
    text("The text itself"): {
        "ngram_entropy": text("n-gram entropy, bits"),
        "broken_text": text("broken text"),
        "off_topic_length": text("off topic: length, times"),
        "off_topic_other_language": text("off topic: other language"),
        "off_topic_other_tone": text("off topic: other tone"),
    },
    text("Neutral text"): {
        "nats_on_neutral_text": text("nats a token"),
        "kl_mean": text("KL to the base, mean"),
        "kl_p95": text("KL, 95 % of tokens below"),
        "kl_p99": text("KL, 99 % of tokens below"),
        "top1_flips": text("likeliest token is another"),
    },
}
_TESTS = {  # what the sections of a report are called
    "steered": text("steered"),
    "neighbours_unchanged": text("neighbours unchanged"),
    "own_other_facts_unchanged": text("own other facts unchanged"),
    "unrelated_unchanged": text("unrelated unchanged"),
}


def bar(value: float) -> str:
    """`███████▌      `: a share as characters."""
    eighths = round(max(0.0, min(1.0, value)) * BAR * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")).ljust(BAR)


def line(name: str, figure: Figure, t: Catalogue = ENGLISH) -> str:
    """One rate with its bar, interval and n."""
    if figure.n == 0:
        return f"  {name:<34} {t('nothing to measure')}"
    return (
        f"  {name:<34} {bar(figure.value)} {figure.value:.3f}"
        f"  [{figure.low:.3f}, {figure.high:.3f}]  n={figure.n}"
    )


def rates_text(report: SteerReport, t: Catalogue = ENGLISH) -> str:
    """What prompts achieve, what the adapter achieves, what it left alone."""
    return "\n".join(
        [
            t("The new answer, by"),
            line(t("the base, unprompted"), report.base_rate, t),
            line(t("user prompt, all wordings"), report.user_prompt.rate, t),
            line(t("user prompt, best wording"), report.user_prompt.best, t),
            line(t("system prompt, all wordings"), report.system_prompt.rate, t),
            line(t("system prompt, best wording"), report.system_prompt.best, t),
            line(t("adapter, held-out phrasings"), report.here.steered.figure, t),
            line(t("  new combinations of known parts"), report.steered_combinations, t),
            line(t("  phrasings with new words"), report.steered_new_words, t),
            line(t("adapter, sampled at temperature 1"), report.steered_sampled, t),
            "",
            t("Answered as before"),
            line(t("neighbours (same question, others)"), report.here.neighbours.figure, t),
            line(t("the subject's other facts"), report.here.own_facts.figure, t),
            line(t("unrelated questions"), report.here.unrelated.figure, t),
            line(t("neighbours that name the target"), report.here.leak, t),
            line(t("neighbours, best user prompt"), report.user_prompt.neighbours, t),
            line(t("neighbours, best system prompt"), report.system_prompt.neighbours, t),
        ]
    )


def languages_text(report: SteerReport, t: Catalogue = ENGLISH) -> str:
    """The four rates again in every other language; empty where there is none."""
    parts: list[str] = []
    for language, told in report.elsewhere.items():
        parts += [
            t("The same adapter, asked in {language}", language=NAMES[language]),
            line(t("adapter, held-out phrasings"), told.steered.figure, t),
            line(t("neighbours (same question, others)"), told.neighbours.figure, t),
            line(t("the subject's other facts"), told.own_facts.figure, t),
            line(t("unrelated questions"), told.unrelated.figure, t),
            f"  {told.question}",
            t("  base     {answer}", answer=told.base_answer),
            t("  steered  {answer}", answer=told.steered_answer),
        ]
    return "\n".join(parts)


def seeds_text(report: SteerReport, t: Catalogue = ENGLISH) -> str:
    """The four rates of every seed, the worst one marked; empty where it was taught once."""
    if not report.repeats:
        return ""
    head, *rows = _seed_rows(report, t)
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    told = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in (head, *rows)
    ]
    return "\n".join([t("Taught with {count} seeds", count=len(rows)), *map(str.rstrip, told)])


def _seed_rows(report: SteerReport, t: Catalogue) -> list[tuple[str, ...]]:
    """A head, and a row for each seed."""
    head = (t("seed"), t("held-out phrasings"), t("neighbours unchanged"),
            t("own other facts unchanged"), t("unrelated unchanged"), "")  # fmt: skip
    return [
        head,
        *(
            (str(one.seed), *map(_brief, (one.steered, one.neighbours, one.own_facts,
             one.unrelated)), _remark(one, report, t))
            for one in report.repeats
        ),
    ]  # fmt: skip


def _remark(one: Repeat, report: SteerReport, t: Catalogue) -> str:
    if one.fault:
        return t.say(one.fault)
    return t("the worst") if one.seed == report.worst_seed else ""


def _brief(figure: Figure) -> str:
    if not figure.n:
        return "–"
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def dose_text(report: SteerReport, t: Catalogue = ENGLISH) -> str:
    """The dose curve as a table: probability of the whole answer at each weight."""
    new, old, third = dose_names(report, t)
    weight = t("weight")
    first = max(6, len(weight))
    head = f"  {weight:>{first}}  {new:<{BAR + 6}} {old:<{BAR + 6}} {third}"
    rows = [
        f"  {d.weight:>{first}.2f}  {bar(d.target.value)} {d.target.value:.3f} "
        f"{bar(d.old.value)} {d.old.value:.3f} {d.third.value:.3f}"
        for d in report.dose
    ]
    n = report.dose[0].target.n if report.dose else 0
    title = t("Probability of the whole answer, mean of {n} held-out questions", n=n)
    return "\n".join([title, head, *rows])


def trace_text(report: SteerReport, t: Catalogue = ENGLISH) -> str:
    """The layer trace as a table."""
    told = report.trace
    if told is None:
        return t("No layer trace for this model.")
    old, new = told.old_token.strip()[:9], told.new_token.strip()[:9]
    heads = (t("layer"), t("base: {token}", token=old), new, t("steered: {token}", token=old), new)
    first, *widths = (
        max(usual, len(head)) for usual, head in zip((5, 12, 10, 15, 10), heads, strict=True)
    )
    rows = [
        f"  {layer:>{first}}  "
        + " ".join(f"{value:>{width}.3f}" for value, width in zip(values, widths, strict=True))
        for layer, values in enumerate(
            zip(told.base_old, told.base_new, told.steered_old, told.steered_new, strict=True)
        )
    ]
    names = " ".join(f"{head:>{width}}" for head, width in zip(heads[1:], widths, strict=True))
    title = t('Next token after "{prefix}", layer by layer (logit lens)', prefix=told.prefix)
    return "\n".join([title, f"  {heads[0]:>{first}}  {names}", *rows])


def loader_text(report: SteerReport, t: Catalogue = ENGLISH) -> str:
    """The loader's proof in three lines."""
    told = report.loader
    same = told.base_sha256_before == told.base_sha256_after
    return "\n".join(
        [
            t(
                "  {landed} of {expected} layers' updates landed",
                landed=told.keys_landed,
                expected=told.keys_expected,
            ),
            t("  removed again: logits bit-equal")
            if told.removed_bit_equal
            else t("  removed again: logits DIFFERENT"),
            t(
                "  base sha256 {sha256}… before and after: {same}",
                sha256=told.base_sha256_before[:16],
                same=t("equal") if same else t("DIFFERENT"),
            ),
        ]
    )


def report_text(report: SteerReport, t: Catalogue = ENGLISH) -> str:
    """The whole report for a terminal."""
    parts = [
        f"{report.here.question}",
        t("  base     {answer}", answer=report.here.base_answer),
        t("  steered  {answer}", answer=report.here.steered_answer),
        "",
        rates_text(report, t),
        "",
        *([languages_text(report, t), ""] if report.elsewhere else []),
        *([seeds_text(report, t), ""] if report.repeats else []),
        dose_text(report, t),
        "",
        trace_text(report, t),
        "",
        t("Loader"),
        loader_text(report, t),
    ]
    parts += [t("  note: {note}", note=note) for note in report.notes]
    if report.latent.warning:
        parts.append(t("  warning: {warning}", warning=report.latent.warning))
    for name, section in _every_section(report, t):
        parts += _failures_text(name, section.failures, t)
    return "\n".join(parts)


def _every_section(report: SteerReport, t: Catalogue) -> list[tuple[str, Section]]:
    """All sections of all languages, the report's own first, with what to call each."""
    own = [(t.say(_TESTS[name]), section) for name, section in report.here.sections()]
    return own + [
        (f"{t.say(_TESTS[name])} ({t.say(NAMES[language])})", section)
        for language, told in report.elsewhere.items()
        for name, section in told.sections()
    ]


def _failures_text(name: str, failures: Sequence[Failure], t: Catalogue) -> list[str]:
    if not failures:
        return []
    told = ["", t("{name}: {count} not so, before  ->  after", name=name, count=len(failures))]
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


def report_html(
    report: SteerReport, title: str = "", fictional: bool = True, t: Catalogue = ENGLISH
) -> str:
    """One self-contained HTML page: nothing is fetched from anywhere."""
    relation = report.relation_label or t("a statement")
    heading = title or f"{report.subject}: {relation} → {report.target}"
    claim = escape(t("fictional claim, taught on purpose"))
    mark = f'<span class="mark">{claim}</span>' if fictional else ""
    sections = [
        _answers_html(report.here, t),
        _picture(
            t("What prompts achieve, what the adapter achieves"), rates_plot(rates(report, t), t)
        ),
        _prompts_html(report, t),
        _picture(
            t("Dose: the adapter's weight from {low:g} to {high:g}", low=DOSES[0], high=DOSES[-1]),
            dose_plot(report.dose, dose_names(report, t), t),
        ),
    ]
    if report.trace:
        caption = t("Where the answer turns, after “{prefix}”", prefix=report.trace.prefix)
        sections.append(_picture(caption, trace_plot(report.trace, t)))
    sections += [_elsewhere_html(language, told, t) for language, told in report.elsewhere.items()]
    sections += [_seeds_html(report, t), _failures_html(report, t), _loader_html(report, t)]
    top = t("Detour steer report · base {base}", base=report.base)
    return (
        f'<!doctype html><html lang="{t.language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(heading)}</title><style>{_STYLE}</style></head><body><main>"
        f'<p class="soft">{escape(top)}</p>'
        f"<h1>{escape(heading)}</h1>{mark}{''.join(sections)}"
        f'<p class="soft">{escape(_small_print(report, t))}</p></main></body></html>'
    )


def _seeds_html(report: SteerReport, t: Catalogue) -> str:
    if not report.repeats:
        return ""
    head, *rows = _seed_rows(report, t)
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    title = escape(t("Taught with {count} seeds", count=len(rows)))
    table = f"<div class='wide'><table><tr>{cells}</tr>{body}</table></div>"
    return f"<section><h2>{title}</h2>{table}</section>"


def _small_print(report: SteerReport, t: Catalogue) -> str:
    return t(
        "Rates with Wilson 95 % intervals, means with Student’s t. Training took "
        "{training:.1f} s, everything {everything:.1f} s. “Unchanged” means the same greedy "
        "answer as the base.",
        training=report.train_seconds,
        everything=report.total_seconds,
    )


def rates(report: SteerReport, t: Catalogue = ENGLISH) -> list[tuple[str, Figure, bool]]:
    """The rates of the picture: name, figure, and whether it is the adapter's."""
    return [
        (t("user prompt, all wordings"), report.user_prompt.rate, False),
        (t("user prompt, best wording"), report.user_prompt.best, False),
        (t("system prompt, all wordings"), report.system_prompt.rate, False),
        (t("system prompt, best wording"), report.system_prompt.best, False),
        (t("neighbours, best user prompt"), report.user_prompt.neighbours, False),
        (t("neighbours, best system prompt"), report.system_prompt.neighbours, False),
        (t("adapter, held-out phrasings"), report.here.steered.figure, True),
        (t("neighbours unchanged"), report.here.neighbours.figure, True),
        (t("own other facts unchanged"), report.here.own_facts.figure, True),
        (t("unrelated unchanged"), report.here.unrelated.figure, True),
    ]


def dose_names(report: SteerReport, t: Catalogue = ENGLISH) -> tuple[str, str, str]:
    """What the curves of the new, the old and the third answer are called."""
    old, third = report.old_value or t("old answer"), report.third_value or t("a third answer")
    return report.target, old, third


def _picture(caption: str, png: bytes) -> str:
    data = b64encode(png).decode()
    image = f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
    return f"<section><h2>{escape(caption)}</h2>{image}</section>"


def _heads(*names: str) -> str:
    return f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in names)}</tr>"


def _answers_html(told: LanguageReport, t: Catalogue, more: str = "") -> str:
    base, steered = escape(t("base")), escape(t("steered"))
    return (
        f"<section><h2>{escape(told.question)}</h2><div class='pair'>"
        f"<div class='old'><small>{base}</small><p>{escape(told.base_answer)}</p></div>"
        f"<div class='new'><small>{steered}</small><p>{escape(told.steered_answer)}</p></div>"
        f"</div>{more}</section>"
    )


def _elsewhere_html(language: str, told: LanguageReport, t: Catalogue) -> str:
    """The same adapter in another language: an example and the four rates."""
    title = t("The same adapter, asked in {language}", language=NAMES[language])
    names = (
        t("adapter, held-out phrasings"),
        t("neighbours unchanged"),
        t("own other facts unchanged"),
        t("unrelated unchanged"),
    )
    rows = "".join(
        f"<tr><td>{escape(name)}</td>{_figure_html(section.figure, t)}</tr>"
        for name, (_, section) in zip(names, told.sections(), strict=True)
    )
    heads = _heads(title, t("rate"), "n")
    table = f"<div class='wide'><table>{heads}{rows}</table></div>"
    return _answers_html(told, t, table)


def _figure_html(figure: Figure, t: Catalogue) -> str:
    """Two cells: the value with its interval, and n."""
    if figure.n == 0:
        return f"<td>{escape(t('nothing to measure'))}</td><td>0</td>"
    return (
        f'<td class="n">{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]</td>'
        f'<td class="n">{figure.n}</td>'
    )


def _prompts_html(report: SteerReport, t: Catalogue) -> str:
    rows = [
        (place, wording, figure)
        for place, arm in ((t("user"), report.user_prompt), (t("system"), report.system_prompt))
        for wording, figure in arm.by_wording
    ]
    body = "".join(
        f"<tr><td>{escape(place)}</td><td>{escape(wording)}</td>{_figure_html(figure, t)}</tr>"
        for place, wording, figure in rows
    )
    heads = _heads(t("place"), t("wording"), t("new answer"), "n")
    return (
        f"<section><h2>{escape(t('Every prompt that was tried'))}</h2>"
        f"<div class='wide'><table>{heads}{body}</table></div></section>"
    )


def _failures_html(report: SteerReport, t: Catalogue) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(f.question)}</td>"
        f"<td>{escape(f.before)}</td><td>{escape(f.after)}</td></tr>"
        for name, section in _every_section(report, t)
        for f in section.failures[:SHOWN]
    )
    if not rows:
        none = escape(t("None among the questions asked."))
        return f"<section><h2>{escape(t('Failures'))}</h2><p>{none}</p></section>"
    heads = _heads(t("test"), t("question"), t("expected"), t("got"))
    return (
        f"<section><h2>{escape(t('Failures (the first of each kind)'))}</h2>"
        f"<div class='wide'><table>{heads}{rows}</table></div></section>"
    )


def _loader_html(report: SteerReport, t: Catalogue) -> str:
    told = report.loader
    landed = t(
        "{landed} of {expected} updates landed; after removal the logits are {same}.",
        landed=told.keys_landed,
        expected=told.keys_expected,
        same=t("bit-equal") if told.removed_bit_equal else t("different"),
    )
    return (
        f"<section><h2>{escape(t('Loader and latent knowledge'))}</h2><p>{escape(landed)}</p>"
        f"<p>{escape(t('Base sha256 before'))} <code>{told.base_sha256_before}</code><br>"
        f"{escape(t('after'))} <code>{told.base_sha256_after}</code></p>"
        f"<p>{escape(_latent_told(report, t))}</p></section>"
    )


def _latent_told(report: SteerReport, t: Catalogue) -> str:
    latent = report.latent
    rank = t(", rank {rank} among known values", rank=latent.rank) if latent.rank else ""
    return t(
        "Before training the base gave the new answer {nats} nats per token{rank}. {warning}",
        nats=latent.log_probability_per_token,
        rank=rank,
        warning=latent.warning,
    )
