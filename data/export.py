"""Preferences and votes out of the store, into a file that other tools (and `palate import`) read.

DuckDB writes the file itself, row by row, so any number of rows takes little memory (from a server, as much as
they take there). The file appears whole or not at all. What training reads is `palate.data.preferences`, not this.

    export_preferences(store, Path("preferences.jsonl"))     # {"prompt": [...], "chosen": [...], "rejected": [...]}
    export_votes(store, Path("votes.parquet"))               # one row per vote, answers in the order shown
"""

from pathlib import Path
from string import Template

from palate.config import UserError
from palate.data.any_store import AnyStore
from palate.data.preferences import Annotators

_MESSAGES = """from_json(q.messages, '[{"role": "VARCHAR", "content": "VARCHAR"}]')"""
_TIME = "strftime(v.created_at, '%Y-%m-%dT%H:%M:%S.%fZ')"

# TRL's conversational preference columns, then who said so and where it stands in the store. As in training,
# ties and votes on gold and evaluation comparisons are left out.
_PREFERENCES = """
SELECT $messages AS prompt,
       [{'role': 'assistant', 'content': w.text}] AS chosen,
       [{'role': 'assistant', 'content': l.text}] AS rejected,
       q.source, q.split, q.meta ->> 'group' AS "group", w.model AS chosen_model, l.model AS rejected_model,
       v.annotator_name AS annotator, v.annotator_kind, $time AS time, v.strength, v.seconds_visible,
       v.seconds_active, v.rationale AS reason, p.winner_shown_first AS chosen_shown_first,
       p.prompt_id, p.comparison_id, p.winner AS chosen_id, p.loser AS rejected_id, p.vote_id
FROM preference p
JOIN current_vote v ON v.id = p.vote_id
JOIN prompt q ON q.id = p.prompt_id
JOIN completion w ON w.id = p.winner
JOIN completion l ON l.id = p.loser
WHERE NOT p.tie AND p.purpose IN ('train', 'random', 'repeat') AND $whose
ORDER BY v.created_at, p.vote_id, p.winner, p.loser
"""

# every vote, superseded ones too: importing them again gives the same votes with the same ids
_VOTES = """
WITH shown AS (
    SELECT a.id, a.annotator_id, a.comparison_id, len(a.display_order) > 0 AS known,
           CASE WHEN len(a.display_order) > 0 THEN a.display_order ELSE c.completion_ids END AS ids
    FROM assignment a JOIN comparison c ON c.id = a.comparison_id
    WHERE a.id IN (SELECT assignment_id FROM vote)
), responses AS (
    SELECT s.id, list({'id': m.id, 'text': m.text, 'model': m.model, 'role': m.role,
                        'finish_reason': m.finish_reason} ORDER BY u.place) AS responses
    FROM shown s, unnest(list_transform(s.ids, lambda x, i: {'place': i, 'id': x})) AS t(u)
    JOIN completion m ON m.id = u.id
    GROUP BY s.id
)
SELECT $messages AS prompt, q.source, q.split, q.meta ->> 'group' AS "group", r.responses,
       [{'vote_id': v.id, 'assignment_id': s.id, 'annotator': n.name, 'kind': n.kind, 'verdict': v.verdict,
         'ranking': v.ranking, 'strength': v.strength, 'time': $time, 'seconds': v.seconds_visible,
         'seconds_active': v.seconds_active, 'reason': v.rationale, 'flags': v.flags, 'criteria': v.criteria,
         'edited_text': v.edited_text, 'guideline_version': v.guideline_version,
         'supersedes': v.supersedes, 'adjudicated': coalesce(v.adjudicated, false)}] AS judgements,
       s.known AS shown_in_order, c.purpose, c.id AS comparison_id, q.id AS prompt_id
FROM vote v
JOIN shown s ON s.id = v.assignment_id
JOIN responses r ON r.id = s.id
JOIN annotator n ON n.id = s.annotator_id
JOIN comparison c ON c.id = s.comparison_id
JOIN prompt q ON q.id = c.prompt_id
WHERE $whose
ORDER BY v.created_at, v.id
"""


def export_preferences(store: AnyStore, file: Path, annotators: Annotators = "all") -> int:
    """Every pair that a current vote decides, one row each; returns how many."""
    return _write(store, _filled(_PREFERENCES, annotators, "p.annotator_kind"), file)


def export_votes(store: AnyStore, file: Path, annotators: Annotators = "all") -> int:
    """Every vote with its answers in the order shown; returns how many."""
    return _write(store, _filled(_VOTES, annotators, "n.kind"), file)


def _filled(query: str, annotators: Annotators, kind: str) -> str:
    whose = "true" if annotators == "all" else f"{kind} = '{annotators}'"
    return Template(query).substitute(messages=_MESSAGES, time=_TIME, whose=whose)


def _write(store: AnyStore, query: str, file: Path) -> int:
    name = file.name.lower()
    if name.endswith(".parquet"):
        options = "FORMAT parquet, COMPRESSION zstd"
    elif name.endswith((".jsonl", ".jsonl.gz")):
        options = f"FORMAT json, COMPRESSION {'gzip' if name.endswith('.gz') else 'uncompressed'}"
    else:
        raise UserError(f"{file}: the ending says the format; use .jsonl, .jsonl.gz or .parquet")
    if file.is_dir() or not file.resolve().parent.is_dir():
        raise UserError(f"{file} can't be written: {'it is a folder' if file.is_dir() else 'no such folder'}")
    temporary = file.with_name(f".{file.name}.part")
    try:
        rows = store.export(query, temporary, options)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return rows
