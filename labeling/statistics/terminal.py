"""Sections as text for a terminal: the question, the answer, figures in columns, tables of at most 20 rows.

Fits 100 columns. Texts that others wrote stay on their line and move no cursor.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from unicodedata import east_asian_width

from palate.labeling.statistics.formatting import column_digits, digits_of, interval, number, one_line
from palate.labeling.statistics.panels import Cell, Column, Figure, Panel, Section, Table

WIDTH = 100  # columns of the terminal
ROWS = 20  # of a table
INDENT = "    "
GAP = "  "
NARROWEST = 20  # columns that a text keeps when a table is too wide
HEAD = 10  # columns that a name gets over narrow numbers before it is broken into lines
BOLD, DIM, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


def section_text(one: Section, colours: bool = False) -> str:
    """A section; `colours` are for a terminal only."""
    bold, dim, plain = (BOLD, DIM, PLAIN) if colours else ("", "", "")
    parts = [f"{bold}{one.title.upper()}{plain}"]
    parts += ["\n".join(_panel(panel, bold, dim, plain)) for panel in one.panels]
    return "\n\n".join(parts)


def _panel(panel: Panel, bold: str, dim: str, plain: str) -> list[str]:
    lines = [f"{bold}{one_line(panel.question)}{plain}"]
    lines += [*_wrapped(panel.answer, GAP), *_wrapped(panel.missing, GAP)]
    if panel.figures:
        lines += ["", *_figures(panel.figures)]
    for table in panel.tables:
        lines += ["", *table_lines(table)]
    remarks = [panel.read, *panel.notes] if panel.figures or panel.tables else [*panel.notes]
    said = [f"{dim}{line}{plain}" for remark in remarks for line in _wrapped(remark, INDENT)]
    return lines + (["", *said] if said else [])


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        one_line(text), WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


# -- figures ----------------------------------------------------------------------------------------------------


def _figures(figures: Sequence[Figure]) -> list[str]:
    """One figure a line: name, value, interval, what was counted; a remark where there is room, or under it."""
    names = [one_line(figure.label, 44) for figure in figures]
    values = [number(figure.value, figure.unit, _digits(figure)) for figure in figures]
    spans = [_span(figure) for figure in figures]
    wide = [max(columns(text) for text in texts) for texts in (names, values, spans)]
    lines = []
    for figure, name, value, span in zip(figures, names, values, spans, strict=True):
        counted = "" if figure.n is None else f"n = {figure.n:,} {figure.of}"
        line = f"{INDENT}{pad(name, wide[0])}{GAP}{pad(value, wide[1], right=True)}"
        remarks = [one_line(each) for each in (figure.why, figure.note) if each]
        if figure.value is not None:
            line += f"{GAP}{pad(span, wide[2])}" + (GAP if wide[2] else "")
            if columns(line) + columns(counted) <= WIDTH:
                line += counted
            else:
                remarks = [counted, *remarks]
        remark = "; ".join(remarks)
        lines += _with_remark(line.rstrip(), remark, wide[0])
    return lines


def _digits(figure: Figure) -> int | None:
    return digits_of((figure.value, figure.low, figure.high), figure.unit)


def _span(figure: Figure) -> str:
    shown = interval(figure.low, figure.high, figure.unit, _digits(figure))
    return f"(95 %: {shown})" if shown and figure.value is not None else ""


def _with_remark(line: str, remark: str, names: int) -> list[str]:
    if not remark:
        return [line]
    if columns(line) + 3 + columns(remark) <= WIDTH:
        return [f"{line}   {remark}"]
    return [line, *_wrapped(remark, INDENT + " " * (names + len(GAP)))]


# -- tables -----------------------------------------------------------------------------------------------------


@dataclass
class _Block:
    """A column as it is printed: its name and its cells, all of one width."""

    name: str
    cells: list[str]
    right: bool
    text: bool = False  # may be cut
    head: int = HEAD

    @property
    def inner(self) -> int:
        return max((columns(cell) for cell in self.cells), default=0)

    @property
    def width(self) -> int:
        words = max((columns(word) for word in self.name.split()), default=0)
        return max(self.inner, words, min(columns(self.name), self.head))


def table_lines(table: Table) -> list[str]:
    """The first rows of a table, and how many more there are."""
    rows = list(table.rows[:ROWS])
    total = table.total if table.total is not None else len(table.rows)
    caption = _wrapped(table.caption, INDENT)
    if not rows:
        return caption
    blocks = _fitted([_block(column, rows) for column in table.columns], WIDTH - len(INDENT))
    hidden = len(table.columns) - len(blocks)
    lines = [*caption, *_head(blocks)]
    for place in range(len(rows)):
        cells = (pad(block.cells[place], block.width, block.right) for block in blocks)
        lines.append((INDENT + GAP.join(cells)).rstrip())
    left = [f"{total - len(rows):,} more rows"] if total > len(rows) else []
    left += [f"{hidden} more column{'s' if hidden > 1 else ''}"] if hidden else []
    return [*lines, f"{INDENT}and {' and '.join(left)}: palate stats --json"] if left else lines


def _fitted(blocks: list[_Block], room: int) -> list[_Block]:
    """The blocks that have room side by side; texts are cut before a column is left out."""

    def excess(block: _Block) -> int:
        return max(0, block.inner - NARROWEST) if block.text else 0

    if _wide(blocks) > room:
        blocks = [replace(block, head=0) for block in blocks]
    while len(blocks) > 1 and _wide(blocks) - sum(map(excess, blocks)) > room:
        blocks = blocks[:-1]
    for block in sorted(blocks, key=excess, reverse=True):
        over = _wide(blocks) - room
        if over > 0 and excess(block):
            block.cells = _shortened(block.cells, block.inner - min(over, excess(block)))
    return blocks


def _block(column: Column, rows: Sequence[dict[str, Cell]]) -> _Block:
    digits = column_digits(column, rows)
    values = [one_line(number(row.get(column.key), column.unit, digits), 60) for row in rows]
    if not column.low:
        return _Block(one_line(column.label), values, column.unit != "text", column.unit == "text")
    widest = max(columns(value) for value in values)
    spans = [interval(row.get(column.low), row.get(column.high), column.unit, digits) for row in rows]
    both = [
        f"{pad(value, widest, right=True)} {span and f'({span})'}"
        for value, span in zip(values, spans, strict=True)
    ]
    cells = [pad(cell, max(map(columns, both))) for cell in both]
    return _Block(f"{one_line(column.label)} (95 %)", cells, right=False)


def _wide(blocks: Sequence[_Block]) -> int:
    return sum(block.width for block in blocks) + len(GAP) * (len(blocks) - 1)


def _head(blocks: Sequence[_Block]) -> list[str]:
    """The names over their columns, on as many lines as the longest needs."""
    names = [_name_lines(block) for block in blocks]
    height = max(map(len, names))
    lines = []
    for level in range(height):
        words = [[""] * (height - len(name)) + name for name in names]
        cells = (
            pad(word[level], block.width, block.right) for word, block in zip(words, blocks, strict=True)
        )
        lines.append((INDENT + GAP.join(cells)).rstrip())
    return [*lines, INDENT + GAP.join("-" * block.width for block in blocks)]


def _name_lines(block: _Block) -> list[str]:
    held = block.name.replace("(95 %)", "(95\N{NO-BREAK SPACE}%)")
    lines = textwrap.wrap(held, block.width, break_on_hyphens=False) or [""]
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


# -- widths -----------------------------------------------------------------------------------------------------


def columns(text: str) -> int:
    """How many columns a text takes: East Asian characters take two."""
    return sum(2 if east_asian_width(mark) in "WF" else 1 for mark in text)


def pad(text: str, width: int, right: bool = False) -> str:
    """The text in so many columns."""
    space = " " * (width - columns(text))
    return space + text if right else text + space


def _shortened(cells: Sequence[str], most: int) -> list[str]:
    """Cut at the end; inside where that would make different cells alike (`votes.json:annotator1`)."""
    cut = [_cut(cell, most) for cell in cells]
    return cut if len(set(cut)) == len(set(cells)) else [_cut_inside(cell, most) for cell in cells]


def _cut_inside(text: str, most: int) -> str:
    kept = len(text)
    while columns(text) > most:
        kept -= 1
        text = text[: kept // 3] + "\N{HORIZONTAL ELLIPSIS}" + text[len(text) - (kept - kept // 3 - 1) :]
    return text


def _cut(text: str, most: int) -> str:
    while columns(text) > most:
        text = text[:-2].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
    return text
