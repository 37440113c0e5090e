"""Tables as LaTeX (booktabs): best bold, second underlined, the ± smaller."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from reports.table import Cell, Table

_SIGNS = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "α": r"$\alpha$",
    "λ": r"$\lambda$",
    "ω": r"$\omega$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "†": r"$\dagger$",
    "°": r"$^\circ$",
    "−": r"$-$",
    "–": "--",
    "·": r"$\cdot$",
    "…": r"\dots{}",
}


def escape(text: str) -> str:
    """Return text that LaTeX prints as it stands; other signs than ASCII become ``?``."""
    return "".join(_SIGNS.get(sign, sign if sign.isascii() else "?") for sign in text)


def table_text(table: Table, label: str | None = None) -> str:
    r"""Return a ``table`` float with a booktabs tabular; needs ``\usepackage{booktabs}``.

    Parameters
    ----------
    table : Table
        What to print; its notes follow the tabular in small type.
    label : str, optional
        Name for ``\ref``; ``tab:<name>`` if not given.
    """
    width = len(table.columns) + 1
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(table.title)}}}",
        rf"\label{{{label or 'tab:' + table.name}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        *_header(table),
        r"\midrule",
    ]
    for place, (group, rows) in enumerate(table.groups):
        if place:
            lines.append(r"\addlinespace")
        lines.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{escape(group)}}}}} \\")
        for row in rows:
            name = escape(row.label)
            cells = [rf"\textit{{{name}}}" if row.reference else name, *map(_cell, row.cells)]
            lines.append(_line(cells))
    lines += [r"\bottomrule", r"\end{tabular}"]
    if table.notes:
        said = " ".join(escape(note.rstrip(".") + ".") for note in table.notes)
        lines += [rf"\par\smallskip{{\footnotesize {said}\par}}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def standalone(body: str) -> str:
    """Return a small document around ``body``, to look at it or to check that it compiles."""
    head = r"\documentclass{article}\usepackage{booktabs}\usepackage[margin=1cm]{geometry}"
    return f"{head}\n\\begin{{document}}\n{body}\\end{{document}}\n"


def _header(table: Table) -> list[str]:
    lines = []
    for level in range(table.levels):
        entries = [column[level] for column in table.columns]
        # A header spans its neighbours only where all levels above it agree too.
        prefixes = [column[: level + 1] for column in table.columns]
        if level == table.levels - 1:
            lines.append(_line(["method", *map(escape, entries)]))
            continue
        cells, rules, at = [""], [], 2
        for _, same in groupby(zip(prefixes, entries, strict=True), key=lambda item: item[0]):
            spanned = list(same)
            cells.append(rf"\multicolumn{{{len(spanned)}}}{{c}}{{{escape(spanned[0][1])}}}")
            if spanned[0][1]:
                rules.append(rf"\cmidrule(lr){{{at}-{at + len(spanned) - 1}}}")
            at += len(spanned)
        lines += [_line(cells), "".join(rules)]
    return [line for line in lines if line]


def _cell(cell: Cell) -> str:
    main = escape(cell.main)
    if cell.best:
        main = rf"\textbf{{{main}}}"
    elif cell.second:
        main = rf"\underline{{{main}}}"
    spread = rf" {{\scriptsize $\pm$ {escape(cell.spread)}}}" if cell.spread else ""
    return main + spread + escape(cell.flag)


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
