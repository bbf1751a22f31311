"""Millions of made-up votes in a project's own database, for `statistics_scale.py`: written by DuckDB, seeded by hashes.

20 votes an item by different annotators; one item in a hundred has four answers, the others two. Votes follow a
Bradley-Terry model of the 200 models plus a taste of the item, 10 % ties, 3 % skips, strengths, times, half a year of
days; one annotator in ten answers at random.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
VOTES_PER_ITEM = 20
VOTERS = 100  # annotators with a session, who vote while the screens are computed
OPEN_ITEMS = 3_000  # without a vote, for them


@dataclass(frozen=True)
class Size:
    """How much there is."""

    votes: int = 10_000_000
    annotators: int = 5_000
    models: int = 200

    @property
    def items(self) -> int:
        """Comparisons that have votes."""
        return self.votes // VOTES_PER_ITEM


QUICK = Size(40_000, 100, 20)

# item i asks for `k` answers; the model of answer s; ids are digests as everywhere
_MACROS = (
    "CREATE TEMP MACRO k_of(i) AS CASE WHEN i % 100 = 7 THEN 4 ELSE 2 END",
    "CREATE TEMP MACRO draw(i, j, salt) AS (hash(i, j, salt) % 1000003) / 1000003.0",
    "CREATE TEMP MACRO id_of(kind, i, j) AS md5(kind || i || '-' || j)[1:20]",
    "CREATE TEMP MACRO model_of(i, s) AS ((hash(i, 'm') % {models}) + s * (1 + hash(i, 'n') % {stride})) % {models}",
    "CREATE TEMP MACRO score_of(i, s) AS 3.0 * model_of(i, s) / {models} + 1.5 * (draw(i, s, 'e') - 0.5)",
    "CREATE TEMP MACRO person_of(i, j) AS (i * 7919 + j * {step}) % {annotators}",
    "CREATE TEMP MACRO gumbel_of(u) AS -ln(-ln(u * 0.999998 + 0.000001))",
    "CREATE TEMP MACRO care_of(i, j) AS CASE WHEN person_of(i, j) % 10 = 3 THEN 1000 ELSE 1 END",
    "CREATE TEMP MACRO noise_of(i, j, s) AS care_of(i, j) * gumbel_of(draw(i * 10 + s, j, 'g'))",
)

_RECORDS = (
    """INSERT INTO prompt (id, messages, source, split, tags, meta)
       SELECT id_of('p', i, 0), '[{{"role":"user","content":"question ' || i || ' about topic ' || (i % 97) || '"}}]',
              'source-' || (i % 8), 'train', ['tag-' || (i % 20)], '{{}}' FROM range({prompts}) t(i)""",
    """INSERT INTO completion (id, prompt_id, text, model, sampling, role, meta)
       SELECT id_of('c', i, s), id_of('p', i // 5, 0),
              repeat('words of an answer ', 3 + (hash(i, s) % 25)::INT) || i || s ||
              CASE WHEN hash(s, i) % 3 = 0 THEN chr(10) || '- item' || chr(10) || '- **bold**' ELSE '' END,
              'model-' || model_of(i, s), '{{}}', 'sample', '{{}}'
       FROM range({all_items}) t(i), range(4) u(s) WHERE s < k_of(i)""",
    """INSERT INTO comparison (id, prompt_id, completion_ids, strategy, propensity, purpose, overlap, priority)
       SELECT id_of('i', i, 0), id_of('p', i // 5, 0), list_transform(range(k_of(i)), lambda s: id_of('c', i, s)),
              'random', 1.0, 'train', CASE WHEN i < {items} THEN {asked} ELSE 1000 END, 0
       FROM range({all_items}) t(i)""",
    """INSERT INTO annotator (id, name, kind, role, meta)
       SELECT id_of('a', i, 0), 'annotator ' || i, 'human', 'annotator', '{{}}' FROM range({annotators}) t(i)""",
)
_PER_PART = (
    """INSERT INTO assignment (id, comparison_id, annotator_id, display_order, state)
       SELECT id_of('s', i, j), id_of('i', i, 0), id_of('a', person_of(i, j), 0),
              CASE WHEN hash(i, j) % 2 = 0 THEN list_transform(range(k_of(i)), lambda s: id_of('c', i, s))
                   ELSE list_reverse(list_transform(range(k_of(i)), lambda s: id_of('c', i, s))) END, 'done'
       FROM range({low}, {high}) t(i), range({per_item}) u(j)""",
    """INSERT INTO vote (id, run_id, assignment_id, verdict, ranking, strength, criteria, rationale, flags, seconds_visible,
                         seconds_active, created_at)
       WITH drawn AS (
           SELECT i, j, draw(i, j, 'v') AS v,
                  list_transform(list_reverse_sort(list_transform(range(k_of(i)), lambda s:
                      {{'score': score_of(i, s) + noise_of(i, j, s), 's': s}})), lambda x: x.s) AS best
           FROM range({low}, {high}) t(i), range({per_item}) u(j)
       )
       SELECT md5('v' || i || '-' || j), 'made', id_of('s', i, j),
              CASE WHEN v < 0.03 THEN 'skip' WHEN v < 0.13 THEN 'tie' ELSE 'ranked' END,
              CASE WHEN v < 0.03 THEN [] WHEN v < 0.13 THEN [list_transform(best, lambda s: id_of('c', i, s))]
                   ELSE list_transform(best, lambda s: [id_of('c', i, s)]) END,
              CASE WHEN v >= 0.13 AND k_of(i) = 2 THEN 1 + (hash(i, j, 't') % 3)::INT END, '{{}}',
              CASE WHEN hash(i, j, 'w') % 50 = 0 THEN 'because of point ' || (i % 1000) END,
              CASE WHEN hash(i, j, 'f') % 200 = 0 THEN ['unsafe'] ELSE [] END,
              5 + 90 * draw(i, j, 'x'), 4 + 40 * draw(i, j, 'y'),
              TIMESTAMP '2026-01-01' + INTERVAL (((i * 20 + j) * 17 % 15552000)) SECOND
       FROM drawn""",
)
PART = 50_000  # items whose votes are written at once


def make_project(folder: Path, size: Size) -> Path:
    """A project with so many votes, and sessions for those who go on voting; returns its folder."""
    sys.path.insert(0, str(ROOT / "src"))
    from palate.labeling.login import cookie_name
    from palate.labeling.people import People
    from palate.project import Project

    project = Project.create(folder)
    with project.own_store() as store:
        with store.reader() as cursor:
            _write(cursor, size)
        store.checkpoint()
        people = People(store, cookie_name(project.folder))
        secrets = [people.open_session(people.create(f"voter {i}").id) for i in range(VOTERS)]
        lead = people.open_session(people.create("lead", "lead").id)
    (folder / "sessions.json").write_text(json.dumps([cookie_name(project.folder), secrets]))
    (folder / "lead.json").write_text(json.dumps({cookie_name(project.folder): lead}))
    return folder


def _write(cursor: Any, size: Size) -> None:
    values = {
        "models": size.models, "stride": size.models // 4 - 1, "annotators": size.annotators,
        "step": max(1, size.annotators // 20 + 1), "items": size.items, "all_items": size.items + OPEN_ITEMS,
        "prompts": (size.items + OPEN_ITEMS) // 5 + 1, "per_item": VOTES_PER_ITEM, "asked": VOTES_PER_ITEM * 3 // 4,
    }  # fmt: skip
    for macro in _MACROS:
        cursor.execute(macro.format(**values))
    for step in _RECORDS:
        cursor.execute(step.format(**values))
    for low in range(0, size.items, PART):
        for step in _PER_PART:
            cursor.execute(step.format(**values, low=low, high=min(low + PART, size.items)))
        print(
            f"  {min(low + PART, size.items) * VOTES_PER_ITEM:,} votes written", file=sys.stderr, flush=True
        )
