"""Tables as LaTeX (booktabs): best bold, second underlined, the ± smaller."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    "‡": r"$\ddagger$",
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


COLUMN_SIGNS, PAGE_SIGNS = 46, 112
"""Signs of small type that fit one column of a two-column paper, and both."""

_COLUMN_GAP = 2


def escape(text: str) -> str:
    """Return text that LaTeX prints as it stands.

    Accented Latin letters stay (LaTeX reads UTF-8); other signs than ASCII become ``?``.
    """
    return "".join(_SIGNS.get(sign, sign if _is_latin(sign) else "?") for sign in text)


def _is_latin(sign: str) -> bool:
    return sign.isascii() or (ord(sign) < 0x180 and sign.isalpha())


def table_text(table: Table, label: str | None = None, comments: Sequence[str] = ()) -> str:
    r"""Return a float with booktabs tabulars; needs ``\usepackage{booktabs}``.

    A table that is wider than a column becomes a ``table*`` over both; one that is wider
    than the page is cut into tabulars of some columns each, one beneath the other.

    Parameters
    ----------
    table : Table
        What to print; its notes follow the tabulars in small type.
    label : str, optional
        Name for ``\ref``; ``tab:<name>`` if not given.
    comments : sequence of str
        What is written into the file, but not printed.
    """
    wide = _signs(table, range(len(table.columns))) > COLUMN_SIGNS
    kind = "table*" if wide else "table"
    lines = [
        *(f"% {' '.join(comment.split())}" for comment in comments),
        rf"\begin{{{kind}}}",
        r"\centering\small",
        rf"\caption{{{escape(table.title)}}}",
        rf"\label{{{label or 'tab:' + table.name}}}",
    ]
    for number, part in enumerate(_parts(table)):
        lines += [*([r"\par\medskip"] if number else []), *_tabular(part)]
    if table.notes:
        said = " ".join(escape(note.rstrip(".") + ".") for note in table.notes)
        lines += [rf"\par\smallskip{{\footnotesize {said}\par}}"]
    return "\n".join([*lines, rf"\end{{{kind}}}"]) + "\n"


def _tabular(table: Table) -> list[str]:
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        *_header(table),
        r"\midrule",
    ]
    for place, (group, rows) in enumerate(table.groups):
        if place:
            lines.append(r"\addlinespace")
        width = len(table.columns) + 1
        lines.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{escape(group)}}}}} \\")
        for row in rows:
            name = escape(row.label)
            cells = [rf"\textit{{{name}}}" if row.reference else name, *map(_cell, row.cells)]
            lines.append(_line(cells))
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _parts(table: Table) -> Iterator[Table]:
    """Yield the table in parts no wider than a page; columns of one heading stay together."""
    chosen: list[int] = []
    for _, indices in groupby(range(len(table.columns)), key=lambda at: table.columns[at][:-1]):
        # The last heading alone can be as wide as a page: then its columns are cut apart.
        block = list(indices)
        for more in [block] if _signs(table, block) <= PAGE_SIGNS else [[at] for at in block]:
            if chosen and _signs(table, [*chosen, *more]) > PAGE_SIGNS:
                yield table.select(chosen)
                chosen = []
            chosen += more
    yield table.select(chosen)


def _signs(table: Table, columns: Sequence[int]) -> int:
    """Return about how wide some columns are with the row names, in signs of small type."""
    names = max([len("method"), *(len(row.label) for row in table.rows)])
    return names + sum(_column_signs(table, at) + _COLUMN_GAP for at in columns)


def _column_signs(table: Table, at: int) -> int:
    # The spread is set in script size.
    cells = [
        len(row.cells[at].main)
        + round(0.7 * len(row.cells[at].spread) + 2 * bool(row.cells[at].spread))
        for row in table.rows
    ]
    return max([len(table.columns[at][-1]), *cells])


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
