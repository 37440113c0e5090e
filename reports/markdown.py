"""Tables as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from reports.table import Cell, Table


def table_text(table: Table) -> str:
    """Return a table as a Markdown pipe table: bold what can't be told from the best."""
    headers = [escape(" · ".join(part for part in column if part)) for column in table.columns]
    lines = [_line(["method", *headers]), _line(["---", *("---:" for _ in headers)])]
    for group, rows in table.groups:
        lines.append(_line([f"*{escape(group)}*", *("" for _ in headers)]))
        for row in rows:
            label = f"*{escape(row.name)}*" if row.reference else escape(row.name)
            lines.append(_line([label, *(_cell(cell) for cell in row.cells)]))
    return "\n".join(lines) + "\n"


def document(table: Table, lists: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return a page: title, table, and lists of sentences under headings."""
    parts = [f"# {table.title}\n", table_text(table)] if table.rows else [f"# {table.title}\n"]
    for heading, sentences in lists:
        if sentences:
            parts.append(f"## {heading}\n\n" + "\n".join(f"- {escape(one)}" for one in sentences))
            parts[-1] += "\n"
    return "\n".join(parts)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    if cell.best:
        return f"**{text}**"
    return f"<u>{text}</u>" if cell.second else text


def escape(text: str) -> str:
    """Return text that Markdown shows as it is, in one line."""
    for sign in ("\\", "|", "*", "_", "<"):
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
