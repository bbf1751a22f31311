"""Tables that come over HTTP: looked through row by row before and after they are stored, all or nothing.

A lead may add prompts, completions, comparisons, scores, and votes that an import or a rule brought. Nobody may
add a vote that looks as if a person had cast it at the screen, nor an annotator with more rights than others.

    new = store_tables(store, {"prompt": [Path("prompts.parquet")]})
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from palate.config import UserError
from palate.data.any_store import quoted
from palate.data.columns import TABLE, record_schema
from palate.data.store import Store

ORDER = tuple(TABLE.values())  # what is referred to comes first
_SCHEMAS = {table: record_schema(kind) for kind, table in TABLE.items()}
_MESSAGES = """TRY(from_json_strict(messages, '[{"role": "VARCHAR", "content": "VARCHAR"}]'))"""
_ID = "{0} IS NULL OR length({0}) NOT BETWEEN 1 AND 200 OR regexp_matches({0}, '[[:cntrl:]]')"


def _object(column: str) -> str:
    return f"{column} IS NULL OR NOT json_valid({column}) OR json_type({column}) <> 'OBJECT'"


@dataclass(frozen=True)
class Rule:
    """What makes rows wrong, in SQL, and what to say then."""

    wrong: str
    why: str


# conditions, looked for in the file alone
_WRONG: dict[str, list[Rule]] = {
    "prompt": [
        Rule(_ID.format("id"), "an id has 1 to 200 visible characters"),
        Rule(f"{_MESSAGES} IS NULL OR len({_MESSAGES}) = 0", 'messages are a list of {"role", "content"}'),
        Rule(
            f"list_bool_or(list_transform({_MESSAGES}, lambda m: m.content IS NULL OR m.role IS NULL "
            "OR m.role NOT IN ('system', 'user', 'assistant')))",
            "a message has a content, and the role system, user or assistant",
        ),
        Rule(f"{_MESSAGES}[-1].role <> 'user'", "messages end with a user turn"),
        Rule("split IS NULL OR split NOT IN ('train', 'test')", "split is train or test"),
        Rule("source IS NULL OR tags IS NULL", "source and tags are not null"),
        Rule(_object("meta"), "meta is a JSON object"),
    ],
    "completion": [
        Rule(_ID.format("id"), "an id has 1 to 200 visible characters"),
        Rule("text IS NULL OR model IS NULL", "text and model are not null"),
        Rule("role IS NULL OR role NOT IN ('sample', 'demonstration', 'edit')", "role is sample, demonstration or edit"),
        Rule(_object("sampling"), "sampling is a JSON object"),
        Rule(_object("meta"), "meta is a JSON object"),
    ],
    "comparison": [
        Rule(_ID.format("id"), "an id has 1 to 200 visible characters"),
        Rule(
            "completion_ids IS NULL OR len(completion_ids) NOT BETWEEN 2 AND 9 "
            "OR list_unique(completion_ids) < len(completion_ids)",
            "a comparison takes 2 to 9 different completions",
        ),
        Rule(
            "purpose IS NULL OR purpose NOT IN ('train', 'random', 'gold', 'repeat', 'eval')",
            "purpose is train, random, gold, repeat or eval",
        ),
        Rule("overlap IS NULL OR overlap NOT BETWEEN 1 AND 1000", "overlap is 1 to 1000"),
        Rule("propensity IS NULL OR NOT (propensity > 0 AND propensity <= 1)", "propensity is above 0 and at most 1"),
        Rule("strategy IS NULL OR priority IS NULL", "strategy and priority are not null"),
    ],
    "annotator": [
        Rule(_ID.format("id"), "an id has 1 to 200 visible characters"),
        Rule("name IS NULL OR length(name) NOT BETWEEN 1 AND 1000", "a name has 1 to 1,000 characters"),
        Rule("kind IS NULL OR kind NOT IN ('human', 'model', 'rule')", "kind is human, model or rule"),
        Rule("role IS DISTINCT FROM 'annotator'", "role is annotator; who may do more is decided on the page of people"),
        Rule(_object("meta"), "meta is a JSON object"),
    ],
    "assignment": [
        Rule(_ID.format("id"), "an id has 1 to 200 visible characters"),
        Rule("state IS DISTINCT FROM 'done'", "state is done: open items are handed out by the server"),
        Rule("display_order IS NULL", "display_order is not null; empty when it is not known"),
    ],
    "vote": [
        Rule(_ID.format("id"), "an id has 1 to 200 visible characters"),
        Rule("run_id IS NULL OR run_id = ''", "a vote that is sent here names the run that brought it"),
        Rule("verdict IS NULL OR verdict NOT IN ('ranked', 'tie', 'all_bad', 'skip')",
         "verdict is ranked, tie, all_bad or skip"),
        Rule("ranking IS NULL OR list_unique(flatten(ranking)) < len(flatten(ranking))",
         "a ranking names each completion once"),
        Rule("(verdict IN ('ranked', 'tie')) <> (len(flatten(ranking)) > 0)",
         "ranked and tie have a ranking, all_bad and skip have none"),
        Rule("strength NOT BETWEEN 0 AND 3", "strength is 0 to 3 or null"),
        Rule("flags IS NULL OR created_at IS NULL", "flags and created_at are not null"),
        Rule("adjudicated IS NULL", "adjudicated is true or false"),
        Rule(_object("criteria"), "criteria is a JSON object"),
    ],
    "score": [
        Rule(_ID.format("run_id"), "run_id names a run"),
        Rule("mean IS NULL OR NOT isfinite(mean) OR NOT isfinite(coalesce(std, 0))", "mean and std are finite"),
    ],
    "feature": [
        Rule(_ID.format("run_id"), "run_id names a run"),
        Rule(
            "vector IS NULL OR len(vector) NOT BETWEEN 1 AND 4096 "
            "OR list_bool_or(list_transform(vector, lambda x: x IS NULL OR NOT isfinite(x)))",
            "a vector has 1 to 4,096 finite numbers",
        ),
    ],
}  # fmt: skip
# queries for rows that refer to what is not there; {rows} are those of the file, after they are stored
_DANGLING: dict[str, list[Rule]] = {
    "completion": [
        Rule("SELECT id FROM {rows} WHERE prompt_id NOT IN (SELECT id FROM prompt) OR prompt_id IS NULL",
         "its prompt is not known")
    ],
    "comparison": [
        Rule("SELECT id FROM {rows} WHERE prompt_id NOT IN (SELECT id FROM prompt) OR prompt_id IS NULL",
         "its prompt is not known"),
        Rule("SELECT r.id FROM (SELECT id, prompt_id, unnest(completion_ids) AS one FROM {rows}) r "
         "LEFT JOIN completion c ON c.id = r.one WHERE c.id IS NULL OR c.prompt_id <> r.prompt_id",
         "its completions are not known, or answer another prompt"),
    ],
    "assignment": [
        Rule("SELECT r.id FROM {rows} r LEFT JOIN comparison c ON c.id = r.comparison_id "
         "WHERE c.id IS NULL OR (len(r.display_order) > 0 AND list_sort(r.display_order) <> list_sort(c.completion_ids))",
         "its comparison is not known, or has other completions"),
        Rule("SELECT id FROM {rows} WHERE annotator_id NOT IN (SELECT id FROM annotator) OR annotator_id IS NULL",
         "its annotator is not known"),
    ],
    "vote": [
        Rule("SELECT r.id FROM {rows} r LEFT JOIN assignment a ON a.id = r.assignment_id "
         "LEFT JOIN comparison c ON c.id = a.comparison_id "
         "WHERE c.id IS NULL OR NOT list_has_all(c.completion_ids, flatten(r.ranking))",
         "its assignment is not known, or it ranks other completions"),
        Rule("SELECT r.id FROM {rows} r JOIN vote v ON v.id = r.id WHERE v.assignment_id <> r.assignment_id",
         "its id belongs to another vote"),
        Rule("SELECT r.id FROM {rows} r LEFT JOIN vote s ON s.id = r.supersedes "
         "JOIN vote v ON v.id = r.id AND v.run_id = r.run_id "
         "WHERE r.supersedes IS NOT NULL AND (s.id IS NULL OR s.run_id IS NULL)",
         "it supersedes a vote that is not known, or that a person cast at the screen"),
    ],
    "score": [
        Rule("SELECT completion_id AS id FROM {rows} WHERE completion_id NOT IN (SELECT id FROM completion) "
         "OR completion_id IS NULL", "its completion is not known")
    ],
    "feature": [
        Rule("SELECT completion_id AS id FROM {rows} WHERE completion_id NOT IN (SELECT id FROM completion) "
         "OR completion_id IS NULL", "its completion is not known"),
        Rule("SELECT r.completion_id AS id FROM {rows} r JOIN feature f ON f.run_id = r.run_id "
         "WHERE len(f.vector) <> len(r.vector)", "other vectors of this run have another length"),
    ],
}  # fmt: skip


class UploadRefused(UserError):
    """Nothing was stored; the message says which rows are wrong, and why."""


def store_tables(store: Store, files: Mapping[str, Sequence[Path]]) -> dict[str, int]:
    """Store Parquet files of records, all or nothing; returns how many rows are new, by table."""
    for table, paths in files.items():
        if table not in _SCHEMAS:
            raise UploadRefused(f"there is no table '{table[:80]}' to add to; there are {', '.join(ORDER)}")
        for path in paths:
            _check_columns(table, path)
    with duckdb.connect(config={"memory_limit": "512MB"}) as con:
        for table, paths in files.items():
            for path in paths:
                _check_rows(con, table, path)
    ordered = {table: files[table] for table in sorted(files, key=ORDER.index)}

    def check(cursor: duckdb.DuckDBPyConnection) -> None:
        for table, paths in ordered.items():
            for path in paths:
                _check_references(cursor, table, path)

    try:
        return store.add_files(ordered, check)
    except (duckdb.ConversionException, duckdb.ConstraintException, duckdb.BinderException) as error:
        raise UploadRefused(f"the rows don't fit: {str(error).splitlines()[0][:300]}") from error


def write_parquet(rows: pa.Table, path: Path) -> Path:
    """Rows as a file that `store_tables` takes."""
    pq.write_table(rows, path, compression="zstd")
    return path


def _check_columns(table: str, path: Path) -> None:
    try:
        names = set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise UploadRefused(f"{table}: what was sent is no Parquet file") from error
    wanted = set(_SCHEMAS[table].names)
    if names != wanted:
        unknown, missing = sorted(names - wanted), sorted(wanted - names)
        said = [f"unknown columns {', '.join(unknown)[:200]}"] if unknown else []
        said += [f"missing columns {', '.join(missing)}"] if missing else []
        raise UploadRefused(f"{table}: {' and '.join(said)}")


def _check_rows(con: duckdb.DuckDBPyConnection, table: str, path: Path) -> None:
    example = "completion_id" if table in ("score", "feature") else "id"
    source = f"read_parquet({quoted(path)})"
    for rule in _WRONG[table]:
        try:
            found = con.execute(
                f"SELECT count(*), min({example}) FROM {source} WHERE {rule.wrong}"
            ).fetchall()
        except duckdb.Error as error:
            raise UploadRefused(f"{table}: {rule.why} ({str(error).splitlines()[0][:200]})") from error
        _refuse(table, rule.why, *found[0])


def _check_references(cursor: duckdb.DuckDBPyConnection, table: str, path: Path) -> None:
    for rule in _DANGLING.get(table, ()):
        sql = rule.wrong.format(rows=f"read_parquet({quoted(path)})")
        found = cursor.execute(f"SELECT count(*), min(id) FROM ({sql})").fetchall()
        _refuse(table, rule.why, *found[0])


def _refuse(table: str, why: str, rows: int, example: object) -> None:
    if rows:
        raise UploadRefused(f"{table}: {why}; {rows:,} rows are wrong, one of them {str(example)[:80]!r}")
