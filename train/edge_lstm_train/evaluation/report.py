"""The report: one HTML file without scripts or external resources, readable on phones as well."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_lstm.foundation.files import write_file
from edge_lstm.foundation.text import escaped
from edge_lstm_train.evaluation.plots import Drawing


@dataclass(frozen=True)
class Paragraph:
    """Plain text: a "lead" at the top of the report, a "note" that explains the block above it, or a "warning"."""

    text: str
    kind: Literal["lead", "note", "warning"]


@dataclass(frozen=True)
class Table:
    """Texts in rows; all columns but the first hold numbers. `strong`: the cells (row, column) in bold."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class Facts:
    """Names with their values."""

    items: Mapping[str, str]


@dataclass(frozen=True)
class KeyFigures:
    """The numbers to read first, each with its name."""

    items: Mapping[str, str]


@dataclass(frozen=True)
class Picture:
    """A plot of `plots` with a caption of one line."""

    svg: Drawing
    caption: str


Block = Paragraph | Table | Facts | KeyFigures | Picture


@dataclass(frozen=True)
class Section:
    """A heading and its blocks."""

    title: str
    blocks: Sequence[Block]


def write_report(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write the page; on an error the old file stays unchanged. Texts are plain text, which is escaped here."""
    body = "\n".join(_section(section) for section in sections)
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_escaped(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{_escaped(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )
    write_file(path, page)


def extend_report(path: Path, section: Section) -> None:
    """Append a section to a page of `write_report`, replacing an earlier section of the same title."""
    page = path.read_text(encoding="utf-8")
    opening = _opening(section)
    if (begin := page.find(opening)) >= 0:
        page = page[:begin] + page[page.index("</section>", begin) + len("</section>\n") :]
    before, end, after = page.rpartition("</main>")
    write_file(path, f"{before}{_section(section)}\n{end}{after}")


def _section(section: Section) -> str:
    heading = f"<h2>{_escaped(section.title)}</h2>\n" if section.title else ""
    return f"{_opening(section)}\n{heading}" + "\n".join(_block(block) for block in section.blocks) + "\n</section>"


def _opening(section: Section) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")
    return f'<section id="{name}">' if name else "<section>"


def _block(block: Block) -> str:
    if isinstance(block, Paragraph):
        return f"<p class={block.kind}>{_escaped(block.text)}</p>"
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, KeyFigures):
        large = "".join(
            f"<div><dt>{_escaped(name)}</dt><dd>{_escaped(text)}</dd></div>" for name, text in block.items.items()
        )
        return f"<dl class=figures>{large}</dl>"
    if isinstance(block, Facts):
        rows = "".join(f"<dt>{_escaped(name)}</dt><dd>{_escaped(text)}</dd>" for name, text in block.items.items())
        return f"<dl>{rows}</dl>"
    caption = _escaped(block.caption)
    drawn = "".join(
        f'<div class={name} role="img" aria-label="{caption}">{svg.decode()}</div>'
        for name, svg in zip(("wide", "narrow"), block.svg, strict=True)
    )
    return f"<figure><figcaption>{caption}</figcaption>{drawn}</figure>"


def _table(block: Table) -> str:
    head = "".join(f'<th scope="col">{_escaped(name)}</th>' for name in block.header)
    body = []
    for row, cells in enumerate(block.rows):
        line = [f'<th scope="row">{_escaped(cells[0])}</th>']
        for column, cell in enumerate(cells[1:], 1):
            text = _escaped(cell)
            line.append(f"<td><strong>{text}</strong></td>" if (row, column) in block.strong else f"<td>{text}</td>")
        body.append(f"<tr>{''.join(line)}</tr>")
    rows = "".join(body)
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --edge: #e4e7ec; --ink: #1d2530; --soft: #5b6675;
  --line: #d9dee5; --rule: #eceff3; --measured: #8a96a6; --model: #0b7a5b; --other: #c2571a; }
@media (prefers-color-scheme: dark) { :root { --page: #12161b; --card: #1a2027; --edge: #2b333d; --ink: #e6eaf0;
  --soft: #a3aebb; --line: #3a4450; --rule: #29313a; --measured: #8593a5; --model: #4fc79f; --other: #f0955b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 796px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 8px 0 20px; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 10px; }
section { background: var(--card); border: 1px solid var(--edge); border-radius: 10px; padding: 16px 18px;
  margin: 0 0 16px; }
p { margin: 0 0 10px; } section > :last-child { margin-bottom: 0; }
.lead { font-size: 1.1rem; line-height: 1.45; }
.note, figcaption { color: var(--soft); font-size: .875rem; }
.note { margin-top: 8px; }
.warning { border-left: 4px solid var(--other); padding-left: 10px; }
.scroll { overflow-x: auto; margin: 0 -18px; padding: 0 18px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 0 6px 14px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
thead th { color: var(--soft); font-weight: 500; font-size: .8rem; white-space: normal; vertical-align: bottom; }
th:first-child { text-align: left; padding-left: 0; }
tbody th { font-weight: 500; } tbody tr:last-child > * { border-bottom: 0; }
td strong { color: var(--model); }
figure { margin: 0 0 18px; } figcaption { margin-bottom: 4px; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; }
.narrow { display: none; }
dl { display: grid; grid-template-columns: minmax(110px, max-content) 1fr; gap: 5px 18px; margin: 0; font-size: .9rem; }
* + dl { margin-top: 14px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.figures { display: flex; flex-wrap: wrap; gap: 10px 30px; margin: 0 0 14px; }
.figures div { display: flex; flex-direction: column-reverse; } .figures dd { font-size: 1.5rem; line-height: 1.2; }
.figures dl, .figures dt, .figures dd { margin: 0; }
.scroll + .scroll { margin-top: 16px; } .scroll + p { margin-top: 12px; color: var(--soft); font-size: .875rem; }
@media (max-width: 560px) {
  main { padding: 16px 10px 32px; } section { padding: 14px 11px; } .scroll { margin: 0 -11px; padding: 0 11px; }
  table { font-size: .8rem; } th, td { padding-left: 8px; } thead th { font-size: .72rem; }
  .wide { display: none; } .narrow { display: block; } dl { grid-template-columns: minmax(80px, max-content) 1fr; }
}
"""


def _escaped(text: str) -> str:
    return html.escape(escaped(text))
