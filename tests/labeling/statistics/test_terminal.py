"""`palate stats` as text: compact, aligned, never wider than 100 columns, whatever names people choose."""

from palate.labeling.statistics.panels import Column, Figure, Panel, Section, Table
from palate.labeling.statistics.terminal import ROWS, WIDTH, _shortened, columns, section_text, table_lines
from tests.labeling.sample_panels import EVIL, LONG, SECTIONS, STRENGTH, WAITING


def test_a_section() -> None:
    panel = Panel(
        "agree",
        "Do people agree, more than chance?",
        "They agree on 72.6 % of the pairs.",
        "Guessing would agree on half of them.",
        (
            Figure("percent", 0.726, 0.70, 0.75, 1234, "pairs", "share", note="published: 63 to 77 %"),
            Figure("alpha", None, n=12, of="items", why="all answers are the same"),
        ),
        notes=("Adjudicated votes are left out.",),
    )
    assert section_text(Section("agreement", "Agreement", (panel,))) == (
        "AGREEMENT\n\n"
        "Do people agree, more than chance?\n"
        "  They agree on 72.6 % of the pairs.\n\n"
        "    percent  72.6 %  (95 %: 70.0 to 75.0)  n = 1,234 pairs   published: 63 to 77 %\n"
        "    alpha         –   all answers are the same\n\n"
        "    Guessing would agree on half of them.\n"
        "    Adjudicated votes are left out."
    )


def test_a_table() -> None:
    table = Table(
        (
            Column("model", "model"),
            Column("score", "score", "number", "low", "high"),
            Column("votes", "votes that count", "count"),
        ),
        [
            {"model": "gpt", "score": 1112.4, "low": 1080.0, "high": 1144.2, "votes": 12_345},
            {"model": "大模型", "score": 9.5, "low": None, "high": None, "votes": None},
        ],
    )
    assert table_lines(table) == [
        "                                    votes that",
        "    model   score (95 %)                 count",
        "    ------  ----------------------  ----------",
        "    gpt     1,112 (1,080 to 1,144)      12,345",
        "    大模型     10                            –",
    ]


def test_what_is_missing_is_said() -> None:
    text = section_text(Section("agreement", "Agreement", (WAITING,)))
    assert text.splitlines()[:4] == [
        "AGREEMENT",
        "",
        WAITING.question,
        "  No item was answered by two people: 12 more items that two people answer would give a first",
    ]


def test_long_tables_say_how_many_rows_there_are_more() -> None:
    lines = table_lines(LONG.tables[0])
    assert len(lines) == 2 + 1 + ROWS + 1
    assert lines[-1] == "    and 4,980 more rows: palate stats --json"


def test_everything_fits_and_no_code_reaches_the_terminal() -> None:
    wide = Table(
        (
            Column("name", "name"),
            *(Column(f"c{i}", f"a long name {i}", "share", "low", "high") for i in range(9)),
        ),
        [{"name": EVIL * 9, **{f"c{i}": 0.5 for i in range(9)}, "low": 0.25, "high": 0.75}],
    )
    sections = [*SECTIONS, Section("x", "X", (Panel("p", "q" * 200, EVIL * 30, tables=(wide,)),))]
    for section in sections:
        text = section_text(section)
        assert max(columns(line) for line in text.splitlines() if "q" * 50 not in line) <= WIDTH
        assert not [mark for mark in text if not mark.isprintable() and mark != "\n"]
    lines = table_lines(wide)
    assert lines[-1] == "    and 6 more columns: palate stats --json"


def test_colours_are_for_terminals_only() -> None:
    section = Section("models", "Models", (STRENGTH,))
    plain, coloured = section_text(section), section_text(section, colours=True)
    assert "\x1b" not in plain and coloured.startswith("\x1b[1mMODELS\x1b[0m")
    for code in ("\x1b[1m", "\x1b[2m", "\x1b[0m"):
        coloured = coloured.replace(code, "")
    assert coloured == plain


def test_nothing_at_all() -> None:
    assert section_text(Section("models", "Models")) == "MODELS"
    assert table_lines(Table((Column("a", "a"),), [])) == []


def test_long_names_that_begin_alike_stay_apart() -> None:
    names = [f"pandalm_testset-v1.json:annotator{number}" for number in (1, 2, 3)]
    assert _shortened(names, 20) == ["pandal…on:annotator1", "pandal…on:annotator2", "pandal…on:annotator3"]
    assert _shortened(["a long name", "another"], 6) == ["a lon…", "anoth…"]
    assert _shortened(["日本語のなまえ甲", "日本語のなまえ乙"], 9) == ["日…まえ甲", "日…まえ乙"]
