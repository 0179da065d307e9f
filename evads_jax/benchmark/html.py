"""The report's HTML: escaping, tables, the page with its style. Well-formed XML, no scripts, nothing from outside."""

import re
from collections.abc import Iterable, Sequence

from evads_jax.benchmark.table import Cell, Table

_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
# Marks that turn the reading direction, by which a text could reach out of its place.
_DIRECTION = re.compile("[\u202a-\u202e\u2066-\u2069]")

STYLE = """
:root { color-scheme: light dark; --page: #fbfaf8; --card: #fff; --ink: #22252a; --soft: #6a7078; --line: #e4e1dc;
  --accent: #2f5d8a; --good: #2e7d5b; --bad: #b3493f; --chip: #f0eeea;
  --c0: #2f5d8a; --c1: #c2762b; --c2: #2e7d5b; --c3: #8a4f7d; --c4: #6a7078; --c5: #b3493f; }
@media (prefers-color-scheme: dark) { :root { --page: #16181b; --card: #1e2125; --ink: #e4e4e0; --soft: #9aa0a8;
  --line: #33373d; --accent: #8db4dc; --good: #74c29c; --bad: #e58b80; --chip: #2a2e33;
  --c0: #8db4dc; --c1: #e0a869; --c2: #74c29c; --c3: #c99abd; --c4: #9aa0a8; --c5: #e58b80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  "Noto Sans", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif; -webkit-text-size-adjust: 100%; }
main { max-width: 72rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 3rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; overflow-wrap: anywhere; }
p { margin: .4rem 0; max-width: 48rem; } .soft, figcaption, .note { color: var(--soft); font-size: .875rem; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: 1rem 0 0; font-size: .9rem; }
a { color: var(--accent); }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .9rem .4rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; white-space: nowrap; } tbody th { font-weight: 500; }
td.figure { white-space: nowrap; } td small { display: block; color: var(--soft); font-size: .75rem; line-height: 1.3; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1rem; }
figure, .card { margin: 0; padding: 1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; }
.card { margin: 1rem 0; } .card h3 { margin-top: 0; }
figure b { font-size: .925rem; font-weight: 600; } svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 11px; } svg .grid { stroke: var(--line); } svg path { fill: none;
  stroke-width: 1.75; stroke-linejoin: round; vector-effect: non-scaling-stroke; }
.legend { display: flex; flex-wrap: wrap; gap: 0 .9rem; font-size: .8rem; color: var(--soft); }
.legend i { display: inline-block; width: .7rem; height: .2rem; border-radius: 1px; margin-right: .35rem;
  vertical-align: middle; }
.frames { display: flex; gap: .4rem; overflow-x: auto; padding-bottom: .25rem; }
.frames div { flex: 0 0 auto; font-size: .75rem; color: var(--soft); }
.frames img { display: block; height: 9rem; width: auto; border-radius: .25rem; image-rendering: pixelated; }
.answers { width: 100%; } .answers td { overflow-wrap: anywhere; } .answers td:first-child { width: 9rem; }
.answers td:nth-child(2) { width: 4.5rem; }
.chip { display: inline-block; min-width: 2.6rem; padding: 0 .45rem; border-radius: 1rem; background: var(--chip);
  font-size: .8rem; text-align: center; } .chip.full { color: var(--good); font-weight: 600; }
.chip.none { color: var(--bad); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .5rem 0; padding: .6rem .8rem; background: var(--chip);
  border-radius: .35rem; font: .8rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--accent); font-size: .9rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.25rem; font-size: .875rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 36rem) { main { padding: 1.25rem .9rem 3rem; } dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .4rem; } .frames img { height: 6.5rem; } }
@media print { nav { display: none; } .card, figure { break-inside: avoid; } }
"""


def escape(text: object) -> str:
    """Any text as HTML text or attribute value; what XML cannot hold or what turns the reading direction shows as ▯."""
    plain = _DIRECTION.sub("▯", _UNWRITABLE.sub("▯", str(text)))
    for a, b in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#39;")):
        plain = plain.replace(a, b)
    return plain


def page(title: str, subtitle: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """A whole document.

    Args:
      title: its heading, plain text.
      subtitle: HTML under it.
      sections: (anchor, heading, HTML) each.
    """
    links = "".join(f'<a href="#{anchor}">{escape(heading)}</a>' for anchor, heading, _ in sections)
    body = "".join(f'<section id="{a}"><h2>{escape(h)}</h2>{content}</section>' for a, h, content in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(title)}</title><style>{escape_style(STYLE)}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{subtitle}<nav>{links}</nav>{body}</main></body></html>\n"
    )


def escape_style(css: str) -> str:
    """A style sheet that neither HTML nor XML reads as markup; it holds none of their characters anyway."""
    assert not set(css) & set("<&"), "the style sheet needs no markup characters"
    return css


def figure_table(table: Table) -> str:
    """A table of figures: the figure, and small under it interval and n."""
    head = "".join(f"<th>{escape(c)}</th>" for c in table.columns)
    rows = "".join("<tr>" + "".join(map(_td, row)) + "</tr>" for row in table.rows)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{notes}'


def tables_page(title: str, tables: Sequence[Table]) -> str:
    """A document of tables of figures."""
    return page(title, "", [(table.name, table.title, figure_table(table)) for table in tables])


def plain_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of texts."""
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def definitions(pairs: Iterable[tuple[str, object]]) -> str:
    """Names and values."""
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in pairs) + "</dl>"


def fold(summary: str, content: str) -> str:
    """Content that opens on request."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def chip(score: float | None) -> str:
    """A score as a small label; None is a missing verdict."""
    if score is None:
        return '<span class="chip">missing</span>'
    kind = " full" if score == 1 else " none" if score == 0 else ""
    return f'<span class="chip{kind}">{score:g}</span>'


def _td(cell: Cell | str) -> str:
    if isinstance(cell, str):
        return f"<td>{escape(cell)}</td>"
    figure, _, rest = cell.text().partition(" ")
    small = f"<small>{escape(rest).replace('] n', ']<br/>n')}</small>" if rest else ""
    return f'<td class="figure">{escape(figure)}{small}</td>'
