"""The model card as one HTML page, with data sheet and certificate. It loads nothing from the network."""

from __future__ import annotations

import html
from collections.abc import Sequence

from edge_lstm.bundle.archive import Bundle
from edge_lstm.bundle.certificate import figures_table, read_certificate, summary_text
from edge_lstm.bundle.data_sheet import sheet_rows, variant_rows
from edge_lstm.foundation.text import escaped


def model_page(bundle: Bundle) -> str:
    """The HTML page. All texts of the bundle are escaped."""
    certificate = read_certificate(bundle)
    title = _escaped(bundle.contract.name)
    sheet = "".join(f"<dt>{_escaped(name)}</dt><dd>{_escaped(text)}</dd>" for name, text in sheet_rows(bundle))
    features = [
        [feature.name, feature.unit or "-", f"{feature.mean:.6g}", f"{feature.scale:.6g}"]
        for feature in bundle.contract.features
    ]
    body = [
        f"<h1>{title}</h1><dl>{sheet}</dl>",
        _table("Features", ["feature", "unit", "mean", "standard deviation"], features),
        _table("Variants", ["variant", "bytes", "parity", "drift", ""], variant_rows(bundle)),
    ]
    if certificate is not None:
        body += [_table("Certificate", *figures_table(certificate)), f"<p>{_escaped(summary_text(certificate))}</p>"]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><main>\n{''.join(body)}\n</main></body></html>\n"
    )


def _escaped(text: str) -> str:
    return html.escape(escaped(text))


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    header = "".join(f"<th>{_escaped(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{_escaped(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<h2>{_escaped(title)}</h2><div><table><tr>{header}</tr>{body}</table></div>"


_STYLE = """
body { margin: 0; background: #f6f7f9; color: #1d2530; font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 24px 16px; } div { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; font-variant-numeric: tabular-nums; }
td { white-space: nowrap; } th, td { padding: 5px 8px; text-align: right; border-bottom: 1px solid #e4e7ec; }
th:first-child, td:first-child { text-align: left; } th { color: #5b6675; font-weight: 500; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; } dt { color: #5b6675; } dd { margin: 0; }
"""
