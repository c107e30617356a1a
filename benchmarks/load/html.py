"""Writes a report as one HTML file without external resources."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from . import compare, markdown, plots, verdict

if TYPE_CHECKING:
    from .compare import PhaseComparison
    from .result import LoadReport, Moment, Phase

STYLE: Final = """\
:root{color-scheme:light dark;--line:#8883;--soft:#888}
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h2{margin-top:2.5rem;border-top:1px solid var(--line);padding-top:1rem}
table{border-collapse:collapse}td,th{padding:.15rem .9rem .15rem 0;text-align:left;vertical-align:top}
td.n{font-variant-numeric:tabular-nums}
.fault{color:#d1242f;font-weight:600}.doubt{color:#9a6700}.soft{color:var(--soft)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(22rem,1fr));gap:1rem;margin:1rem 0}
svg{width:100%;font:11px system-ui,sans-serif;fill:currentColor}.g{stroke:var(--line);fill:none}
.verdict{font-size:1.15rem;font-weight:600;border-left:.4rem solid var(--soft);padding:.4rem .8rem}
.verdict.ok{border-color:#1a7f37}.verdict.fault{border-color:#d1242f}
.verdict.doubtful,.verdict.incomplete{border-color:#9a6700}
.better{color:#1a7f37}.worse{color:#d1242f}.same{color:var(--soft)}
.t{font-weight:600}.u{fill:var(--soft)}
"""

HISTOGRAMS: Final = {
    "latency": "Delivery latency",
    "request": "HTTP answer",
    "connected": "Connection established",
    "subscribed": "Subscribed",
}


def page(report: LoadReport) -> str:
    """The whole page, with the verdict at its top."""
    found = verdict.of(report)
    facts = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in markdown.facts(report)
    )
    top = f'<p class="verdict {found.state}">{found.state}: {escape(found.text)}.</p>'
    return _whole(
        f"legato bench: {report.label}",
        f"{top}<table>{facts}</table>{''.join(_phase(phase) for phase in report.phases)}",
    )


def comparison(first: LoadReport, second: LoadReport) -> str:
    """The page that compares two reports."""
    one, other = compare.labels(first, second)
    runs = "".join(
        f"<tr><th>{which}</th><td>{escape(report.command)}</td><td>{escape(report.started)}</td></tr>"
        for which, report in zip(compare.BOTH, (first, second), strict=True)
    )
    doubts = "".join(f'<li class="doubt">{escape(text)}</li>' for text in compare.differences(first, second))
    return _whole(
        f"legato bench: {other} against {one}",
        f'<p class="verdict">{escape(compare.verdict(first, second))}.</p><table>{runs}</table>'
        + "".join(_compared(phase) for phase in compare.phases(first, second))
        + (f"<h2>Before you believe it</h2><ul>{doubts}</ul>" if doubts else ""),
    )


def _compared(phase: PhaseComparison) -> str:
    head = f"<h2>{escape(phase.title)}</h2>"
    if phase.missing:
        return f'{head}<p class="soft">Not run by the {phase.missing}.</p>'
    rows = []
    for row in phase.rows:
        label, *values, word = compare.cells(row)
        numbers = "".join(f'<td class="n">{escape(value)}</td>' for value in values)
        rows.append(f'<tr><td>{escape(label)}</td>{numbers}<td class="{word}">{word}</td></tr>')
    columns = "".join(f"<th>{name}</th>" for name in ("figure", *compare.BOTH, "second / first", ""))
    return f"{head}<table><tr>{columns}</tr>{''.join(rows)}</table>"


def _whole(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )


def _phase(phase: Phase) -> str:
    rows = "".join(
        f'<tr><td>{escape(label)}</td><td class="n">{escape(value)}</td></tr>'
        for label, value in markdown.rows(phase)
    )
    notes = [f'<p class="fault">{escape(text)}</p>' for text in phase.faults]
    notes += [f'<p class="doubt">Doubtful: {escape(text)}.</p>' for text in phase.warnings]
    return (
        f'<h2>{escape(phase.title)}</h2><p class="soft">{escape(markdown.sizes(phase))}</p>'
        f'{"".join(notes)}<div class="plots">{"".join(_plots(phase))}</div><table>{rows}</table>'
    )


def _plots(phase: Phase) -> list[str]:
    found = [
        plots.percentiles(f"{title} by percentile", phase.histograms[name])
        for name, title in HISTOGRAMS.items()
        if phase.histograms.get(name)
    ]
    if len(phase.timeline) > 1:
        found += _timelines(phase.timeline)
    return found


def _timelines(moments: list[Moment]) -> list[str]:
    found = []
    rates = {
        name: [(moment.at, getattr(moment, field)) for moment in moments]
        for name, field in (("delivered", "received"), ("sent", "sent"), ("joined", "joined"))
        if any(getattr(moment, field) for moment in moments)
    }
    if rates:
        found.append(plots.timeline("Rates", "/s", rates))
    if any(moment.p99 for moment in moments):
        waits = {name: [(m.at, getattr(m, name)) for m in moments] for name in ("p50", "p99")}
        found.append(plots.timeline("Delivery latency", "ms", waits))
    shares = {
        "server": [(moment.at, moment.server_cpu * 100) for moment in moments],
        "generator": [(moment.at, moment.generator_cpu * 100) for moment in moments],
    }
    found.append(plots.timeline("CPU", "% of a core", shares))
    return found
