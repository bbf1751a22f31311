"""The instructions that annotators work by: Markdown, in numbered versions that are never changed.

Every vote stores the version its annotator had before them, so that a change of mind about what is asked for
can be told from a change of the people. Markdown becomes HTML here, with every tag in it shown as written.
"""

import difflib
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from markdown_it import MarkdownIt

from palate.config import UserError
from palate.data.store import Store, now

LONGEST = 100_000  # characters


@dataclass(frozen=True)
class Guidelines:
    """One version; `version` is None and the text empty before the first one."""

    version: int | None = None
    text: str = ""
    created_by: str | None = None
    created_at: datetime | None = None


def current(store: Store) -> Guidelines:
    """The version in force."""
    rows = store.rows("SELECT * FROM guideline ORDER BY version DESC LIMIT 1")
    return Guidelines(**rows[0]) if rows else Guidelines()


def find(store: Store, version: int) -> Guidelines | None:
    """One version."""
    rows = store.rows("SELECT * FROM guideline WHERE version = ?", [version])
    return Guidelines(**rows[0]) if rows else None


def history(store: Store) -> list[Guidelines]:
    """All versions, newest first, with the names of their authors instead of the ids."""
    rows = store.rows(
        "SELECT g.version, g.text, coalesce(a.name, g.created_by) AS created_by, g.created_at FROM guideline g "
        "LEFT JOIN annotator a ON a.id = g.created_by ORDER BY g.version DESC"
    )
    return [Guidelines(**row) for row in rows]


def changes(before: str, after: str) -> list[dict[str, str]]:
    """The lines that went ("-") and came ("+"), in the order of the text; empty lines don't count."""
    old, new = ([line.strip() for line in text.splitlines() if line.strip()] for text in (before, after))
    found = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            found += [{"sign": "-", "text": line} for line in old[a:b]]
            found += [{"sign": "+", "text": line} for line in new[c:d]]
    return found


@lru_cache(maxsize=4)
def as_html(text: str) -> str:
    """Markdown as HTML that is safe to show: no HTML passes, links lead to the web or mail, images are links.

    Headings start at the third level, below those of the page; links open in a tab of their own.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = markdown.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
        for child in token.children or ():
            if child.type == "link_open":
                child.attrSet("target", "_blank")
                child.attrSet("rel", "noopener noreferrer")
    rendered: str = markdown.renderer.render(tokens, markdown.options, {})
    return rendered


def from_file(store: Store, text: str) -> Guidelines:
    """What a file says as a new version; nothing, when some version said so: leads have gone on from there."""
    known = store.value("SELECT max(version) FROM guideline WHERE text = ?", [text.strip()])
    return add(store, text, None) if known is None else current(store)


def add(store: Store, text: str, person_id: str | None) -> Guidelines:
    """A new version; the one in force when nothing differs."""
    text = text.strip()
    if not text or len(text) > LONGEST:
        raise UserError(f"guidelines take 1 to {LONGEST:,} characters, got {len(text):,}")
    with store.transaction():
        last = current(store)
        if last.text == text:
            return last
        new = Guidelines((last.version or 0) + 1, text, person_id, now())
        store.write(
            "INSERT INTO guideline (version, text, created_by, created_at) VALUES (?, ?, ?, ?)",
            [new.version, new.text, new.created_by, new.created_at],
        )
    return new
