"""Queries from elsewhere: one SELECT over the project's records, and nothing else.

DuckDB's own parser says what a statement is; every node of its tree must be one that is known here: our data
tables, functions that compute, no files, no settings, no catalogue, no accounts. What is not known is refused,
so a function of a later DuckDB is closed until somebody writes it down.

    check("SELECT count(*) FROM vote")
    rows = run(store, "SELECT id FROM prompt WHERE source = ?", ["ideas.jsonl"], file)
"""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import duckdb
import pyarrow as pa

from palate.config import UserError
from palate.data.store import Store

TABLES = frozenset(
    ("prompt", "completion", "comparison", "annotator", "assignment", "vote", "run", "score", "feature")
    + ("guideline", "withheld", "training_view", "current_vote", "preference")
)
TABLE_FUNCTIONS = frozenset(("unnest", "range", "generate_series", "json_each"))
# by kind; the first also holds what the parser makes of syntax
_FUNCTIONS = {
    "operators": """
        + - * / // % ** ^ || -> ->> = == != <> < > <= >= & | ~ << >> @> <@ && ~~ ~~* !~~ !~~* ~~~ ^@
        like_escape ilike_escape not_like_escape not_ilike_escape array_extract array_slice
        list_value row struct_pack struct_extract struct_insert unnest if coalesce nullif greatest
        least construct_array map
    """,
    "text": """
        lower upper length len strlen char_length trim ltrim rtrim substr substring left right
        concat concat_ws replace reverse contains starts_with ends_with prefix suffix instr strpos
        position split string_split str_split split_part regexp_matches regexp_full_match
        regexp_extract regexp_extract_all regexp_replace string_to_array array_to_string ascii chr
        unicode md5 sha256 hash levenshtein jaccard jaro_winkler_similarity strip_accents
        nfc_normalize length_grapheme format printf
    """,
    "lists, structs, JSON": """
        list_transform list_apply list_filter list_reduce list_contains list_has list_has_any
        list_has_all list_position list_indexof list_concat list_cat list_append list_prepend
        list_distinct list_unique list_sort list_reverse_sort list_reverse list_slice list_extract
        list_zip list_aggregate list_sum list_avg list_min list_max list_count list_any_value
        list_first list_last list_median array_length flatten array_contains array_transform
        array_filter struct_keys map_keys map_values map_extract cardinality json json_extract
        json_extract_string json_extract_path json_extract_path_text json_value json_exists
        json_valid json_type json_keys json_array_length json_contains json_object json_array
        json_quote to_json from_json from_json_strict json_transform json_structure json_group_array
        json_group_object row_to_json
    """,
    "numbers and times": """
        abs sign round floor ceil ceiling trunc mod exp ln log log2 log10 sqrt cbrt pow power pi
        degrees radians sin cos tan asin acos atan atan2 isnan isinf isfinite add subtract multiply
        divide fdiv random hex bit_count strftime strptime try_strptime date_trunc datetrunc
        date_part datepart date_diff datediff date_sub date_add age epoch epoch_ms epoch_us
        to_timestamp make_date make_timestamp now current_date today current_localtimestamp
        get_current_timestamp year month day hour minute second week dayofweek weekday dayofyear
        quarter monthname dayname last_day time_bucket to_days to_hours to_minutes to_seconds
        to_months to_weeks to_years to_milliseconds to_microseconds typeof
    """,
    "aggregates and windows": """
        count count_star count_if countif sum fsum avg mean min max min_by max_by arg_min arg_max
        any_value first last list array_agg string_agg group_concat bool_and bool_or bit_and bit_or
        bit_xor median mode mad quantile quantile_cont quantile_disc approx_quantile
        approx_count_distinct product stddev stddev_pop stddev_samp var_pop var_samp variance corr
        covar_pop covar_samp regr_slope regr_intercept regr_r2 entropy kurtosis skewness histogram
        row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value
        nth_value grouping
    """,
}
FUNCTIONS = frozenset(name for names in _FUNCTIONS.values() for name in names.split())
_SYNTAX = {
    "expressions": """
        COLUMN_REF CONSTANT FUNCTION CAST CASE COMPARISON CONJUNCTION OPERATOR SUBQUERY STAR WINDOW PARAMETER
        LAMBDA LAMBDA_REF BETWEEN COLLATE POSITIONAL_REFERENCE TYPE
    """,
    "sources": "BASE_TABLE EMPTY SUBQUERY JOIN TABLE_FUNCTION EXPRESSION_LIST",
    "selects": "SELECT_NODE SET_OPERATION_NODE RECURSIVE_CTE_NODE",
    "parts": """
        ORDER_MODIFIER LIMIT_MODIFIER LIMIT_PERCENT_MODIFIER DISTINCT_MODIFIER ORDER_DEFAULT ASCENDING DESCENDING
    """,
}
_EXPRESSIONS, _SOURCES, _NODES, _PARTS = (frozenset(names.split()) for names in _SYNTAX.values())
LONGEST = 100_000  # characters of a statement
BATCH = 20_000  # rows written at once

Scope = frozenset[str]  # names of the WITH clauses that can be seen


class QueryRefused(UserError):
    """The statement is not run, or not to its end; `code` says why: refused | failed | too_slow | too_large."""

    def __init__(self, message: str, code: str = "query_refused") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Limits:
    """What one query may cost."""

    rows: int = 5_000_000
    bytes: int = 2 << 30
    seconds: float = 120.0


def check(sql: str) -> None:
    """Raise QueryRefused unless `sql` is one SELECT that reads our records and computes."""
    if len(sql) > LONGEST:
        raise QueryRefused(f"a query takes at most {LONGEST:,} characters, this one has {len(sql):,}")
    with duckdb.connect() as parser:  # a database of its own, empty: parsing must not meet the real one
        found = parser.execute(
            "SELECT json_serialize_sql(?::VARCHAR, skip_null := true, skip_empty := true)", [sql]
        ).fetchall()
    tree = json.loads(found[0][0])
    if tree["error"]:
        reason = str(tree["error_message"]).splitlines()[0]
        raise QueryRefused(f"only one SELECT can be asked: {reason}")
    statements = tree.get("statements", [])
    if len(statements) != 1:
        raise QueryRefused(f"only one SELECT can be asked at a time, this is {len(statements)} statements")
    try:
        _walk(statements[0], frozenset())
    except RecursionError as error:
        raise QueryRefused("the query is nested too deeply") from error
    except (KeyError, TypeError, AttributeError) as error:  # a tree of another shape than is known here
        raise QueryRefused("the query can't be understood; write it more plainly") from error


def run(
    store: Store, sql: str, params: Sequence[Any], file: IO[bytes], limits: "Limits | None" = None
) -> int:
    """Check and run a query on a cursor of its own that can't write; the rows go to `file` as an Arrow stream.

    Returns how many rows there were. For a worker thread: it takes as long as the query takes.
    """
    check(sql)
    limits = limits or Limits()
    late = threading.Event()
    with store.reading() as cursor:

        def stop() -> None:
            late.set()
            cursor.interrupt()

        timer = threading.Timer(limits.seconds, stop)
        timer.start()
        try:
            return _write(cursor.sql(sql, params=list(params)).to_arrow_reader(BATCH), file, limits)
        except (duckdb.Error, pa.ArrowException) as error:
            if late.is_set():
                raise QueryRefused(
                    f"the query took longer than {limits.seconds:g} s and was stopped; ask for less at a time",
                    "query_too_slow",
                ) from error
            raise QueryRefused(
                f"the query failed: {' '.join(str(error).split())[:500]}", "query_failed"
            ) from error
        finally:
            timer.cancel()


def _write(batches: pa.RecordBatchReader, file: IO[bytes], limits: Limits) -> int:
    rows = 0
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(file, batches.schema, options=options) as writer:
        for batch in batches:
            rows += batch.num_rows
            writer.write_batch(batch)
            if rows > limits.rows or file.tell() > limits.bytes:
                raise QueryRefused(
                    f"the result is larger than {limits.rows:,} rows or {limits.bytes / 2**20:,.0f} MB; "
                    "ask for part of it, with WHERE or LIMIT",
                    "query_too_large",
                )
    return rows


def _walk(node: Any, scope: Scope) -> None:
    """Refuse every node that is not known; `scope` follows the WITH clauses as SQL does."""
    if isinstance(node, list):
        for child in node:
            _walk(child, scope)
        return
    if not isinstance(node, dict):
        return
    kind = node.get("type")
    if "class" in node:
        _expression(node)
    elif kind == "TABLE_FUNCTION":
        _named(node["function"], TABLE_FUNCTIONS, "table function")
        _walk(list(node["function"].values()), scope)
        node = {name: child for name, child in node.items() if name != "function"}
    elif kind == "BASE_TABLE":
        _table(node, scope)
    elif isinstance(kind, str) and kind not in _NODES | _SOURCES | _PARTS:
        raise QueryRefused(
            f"{kind.replace('_', ' ').lower()} can't be asked here; write it as a plain SELECT"
        )
    if isinstance(kind, str) and kind in _NODES:
        scope = _with(node, scope)
        node = {name: child for name, child in node.items() if name != "cte_map"}
    for child in node.values():
        _walk(child, scope)


def _with(node: dict[str, Any], scope: Scope) -> Scope:
    """Walk the WITH clauses of a node; returns the names that its body sees.

    A clause sees those before it, and the repeated part of a recursive one sees itself: elsewhere its name means
    a table.
    """
    for entry in node.get("cte_map", {}).get("map", ()):
        name, query = str(entry["key"]).lower(), entry["value"]["query_node"]
        if query["type"] == "RECURSIVE_CTE_NODE":
            inside = _with(query, scope)
            _walk(query["right"], inside | {name})
            _walk({key: child for key, child in query.items() if key not in ("right", "cte_map")}, inside)
        else:
            _walk(query, scope)
        _walk([child for key, child in entry["value"].items() if key != "query_node"], scope)
        scope = scope | {name}
    return scope


def _expression(node: dict[str, Any]) -> None:
    if node["class"] not in _EXPRESSIONS:
        raise QueryRefused(f"{str(node['class']).replace('_', ' ').lower()} can't be asked here")
    if node["class"] in ("FUNCTION", "WINDOW"):
        _named(node, FUNCTIONS, "function")


def _named(node: dict[str, Any], known: frozenset[str], what: str) -> None:
    path = [str(part).lower() for part in node.get("qualified_name", {}).get("path", [])]
    if path != [str(node["function_name"]).lower()] or path[0] not in known:
        raise QueryRefused(f"the {what} '{'.'.join(path)[:80]}' can't be used here")


def _table(node: dict[str, Any], scope: Scope) -> None:
    path = [str(part).lower() for part in node.get("qualified_name", {}).get("path", [])]
    if node.get("at_clause") or path != [str(node["table_name"]).lower()]:
        raise QueryRefused(f"'{'.'.join(path)[:80]}': name a table alone, without a schema or a version")
    if path[0] not in TABLES | scope:
        raise QueryRefused(
            f"the table '{path[0][:80]}' can't be read here; there are {', '.join(sorted(TABLES))}"
        )
