"""Tables as LaTeX (booktabs): best bold, second underlined, the ± smaller."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from reports import latex_layout
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
    "‡": r"$\ddagger$",
    "§": r"\S{}",
    "¶": r"\P{}",
    "÷": r"$\div$",
    "→": r"$\to$",
    "≤": r"$\leq$",
    "²": r"$^2$",
    "°": r"$^\circ$",
    "−": r"$-$",
    "–": "--",
    "·": r"$\cdot$",
    "…": r"\dots{}",
}


_DOT = re.compile(r"(?<=[a-z])\.(?=[a-z])")


def escape(text: str) -> str:
    """Return text that LaTeX prints as it stands.

    Accented Latin letters stay (LaTeX reads UTF-8); other signs than ASCII become ``?``.
    """
    return "".join(_SIGNS.get(sign, sign if _is_latin(sign) else "?") for sign in text)


def _is_latin(sign: str) -> bool:
    return sign.isascii() or (ord(sign) < 0x180 and sign.isalpha())


def label_of(experiment: str, name: str) -> str:
    r"""Return a table's name for ``\ref``, that no table of another experiment has."""
    return f"tab:{re.sub(r'[^A-Za-z0-9._-]+', '-', experiment)}:{name}"


def table_text(table: Table, label: str | None = None, comments: Sequence[str] = ()) -> str:
    r"""Return floats with booktabs tabulars; needs ``\usepackage{booktabs}``.

    A table that is wider than a column becomes a ``table*`` over both; one that is wider
    than the page is cut into tabulars of some columns each, one beneath the other; one that
    is taller than the page goes on in further floats of the same number.

    Parameters
    ----------
    table : Table
        What to print; its notes follow the tabulars in small type.
    label : str, optional
        Name for ``\ref``; ``tab:<name>`` if not given.
    comments : sequence of str
        What is written into the file, but not printed.
    """
    kind = "table*" if latex_layout.width(table) > latex_layout.COLUMN_POINTS else "table"
    lines = [f"% {' '.join(comment.split())}" for comment in comments]
    for number, piece in enumerate(latex_layout.pieces(table)):
        lines += [rf"\begin{{{kind}}}", r"\centering\small"]
        if number:
            # Without a package: the next float takes the number of the one before.
            lines += [r"\addtocounter{table}{-1}"]
            lines += [rf"\caption{{{escape(table.title + latex_layout.CONTINUED)}}}"]
        else:
            lines += [rf"\caption{{{escape(table.title)}}}"]
            lines += [rf"\label{{{label or 'tab:' + table.name}}}"]
        for place, part in enumerate(piece.tables):
            lines += [*([r"\par\medskip"] if place else []), *_tabular(part)]
        if piece.notes:
            said = " ".join(escape(note.rstrip(".") + ".") for note in piece.notes)
            lines += [rf"\par\smallskip{{\footnotesize {said}\par}}"]
        lines += [rf"\end{{{kind}}}"]
    return "\n".join(lines) + "\n"


def _tabular(table: Table) -> list[str]:
    paragraph = rf"p{{{latex_layout.TEXT_POINTS:g}pt}}"
    texts = [latex_layout.is_paragraph(points) for points in latex_layout.all_points(table)]
    kinds = [paragraph if text else "r" if place else "l" for place, text in enumerate(texts)]
    # In the last column \raggedright takes the \\ for itself.
    end = r"\tabularnewline" if texts[-1] else r"\\"
    lines = [rf"\begin{{tabular}}{{{''.join(kinds)}}}", r"\toprule", *_header(table), r"\midrule"]
    for place, (group, rows) in enumerate(table.groups):
        if place:
            lines.append(r"\addlinespace")
        width = len(table.columns) + 1
        lines.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{escape(group)}}}}} \\")
        for row in rows:
            cells = [escape(row.name), *map(_cell, row.cells)]
            cells = [
                _paragraph(cell) if text else cell for cell, text in zip(cells, texts, strict=True)
            ]
            if row.reference:
                cells[0] = rf"\itshape {cells[0]}" if texts[0] else rf"\textit{{{cells[0]}}}"
            lines.append(_line(cells, end))
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _paragraph(text: str) -> str:
    """Return LaTeX text that may be broken within the dotted name of a setting too."""
    broken = _DOT.sub(lambda _: r".\allowbreak{}", text).replace(r"\_", r"\_\allowbreak{}")
    return rf"\raggedright {broken}"


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


def _line(cells: Sequence[str], end: str = r"\\") -> str:
    # The row before ends with \\, which takes a star or a bracket that follows for its own.
    guard = "{}" if cells[0].startswith(("[", "*")) else ""
    return f"{guard}{' & '.join(cells)} {end}"
