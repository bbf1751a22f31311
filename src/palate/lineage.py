"""From a model back to the votes, files and settings that made it, and `palate runs`.

    palate runs                     every run, its parents and its main figure
    palate runs show dpo-1          the runs behind it, every frozen row checked against its hash
    palate runs show dpo-1 --votes  with the id of every vote

Two kinds of steps lead back: a run's parents (the models it started from), and the runs that brought the rows it
froze (who sampled these completions, who cast these votes). The second kind is looked up in the database; when
another process owns it, the walk goes on with what the run folders know and says what is missing. How it all
looks on a terminal or on a model card is in lineage_text.py.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from palate import config, lineage_text
from palate.config import RunsConfig, UserError
from palate.data.any_store import AnyStore
from palate.data.records import Run
from palate.project import Project
from palate.runs import content_hash, file_hash

CONFIGS: dict[str, type] = {
    "import": config.ImportConfig,
    "sft": config.SftConfig,
    "sample": config.SampleConfig,
    "simulate": config.SimulateConfig,
    "reward": config.RewardConfig,
    "dpo": config.DpoConfig,
    "ppo": config.PpoConfig,
    "rloo": config.RlooConfig,
    "grpo": config.GrpoConfig,
    "kto": config.KtoConfig,
    "loop": config.LoopConfig,
    "eval": config.EvalConfig,
}
NOT_SETTINGS = {"project", "recipe", "files"}  # where things lie, not what was done
HASHED = 4e9  # bytes of weights up to which they are hashed, a few seconds

State = Literal["verified", "differs", "missing"]


@dataclass(frozen=True)
class Input:
    """Rows that a run froze, or a file that it read."""

    name: str
    kind: Literal["rows", "file"]
    sha256: str
    rows: int | None
    state: State  # as it lies there now, against the hash in run.json
    path: str


@dataclass(frozen=True)
class Votes:
    """The votes in a run's frozen rows."""

    ids: tuple[str, ...]
    annotators: int
    by_kind: dict[str, int] = field(default_factory=dict)  # human, rule, model; empty: not looked up
    by_run: dict[str, int] = field(default_factory=dict)  # the run that brought them; "people": none did


@dataclass(frozen=True)
class Weights:
    """What a run made, as it lies there now."""

    files: tuple[str, ...]
    size: int  # bytes
    sha256: str | None  # over the files' hashes, of the one file itself when there is one; None: too large


@dataclass(frozen=True)
class Step:
    """One run, what it was told, what it took, and where that came from."""

    run: Run
    settings: dict[str, Any]  # those that differ from the defaults
    inputs: tuple[Input, ...]
    votes: Votes | None
    weights: Weights | None
    origins: dict[str, tuple[str, ...]]  # run id -> why: parent, or what it brought
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lineage:
    """Every run behind `root`, itself included, nearest first."""

    root: str
    steps: dict[str, Step]
    notes: tuple[str, ...] = ()

    @property
    def problems(self) -> list[str]:
        """One sentence for each run whose rows are not what it used: its figures can't be trusted any more."""
        return [
            f"{step.run.id}: {found.path} is {'gone' if found.state == 'missing' else 'not what the run used'}"
            for step in self.steps.values()
            for found in step.inputs
            if found.kind == "rows" and found.state != "verified"
        ]


def run_command(project: Project, settings: RunsConfig) -> None:
    """`palate runs` and `palate runs show RUN`: print it."""
    if settings.action == "list":
        runs = project.runs()
        if settings.json:
            print(json.dumps([asdict(run) for run in runs], indent=2, ensure_ascii=False, default=str))
        elif runs:
            print(lineage_text.run_table(runs))
            print(f"next:   palate runs show {runs[-1].id}   (what made it)")
        else:
            print("no runs yet; next: palate import FILE, then palate sft")
        return
    if settings.run is None:
        raise UserError("which run? For example: palate runs show dpo-1 (`palate runs` lists them)")
    found = walk(project, settings.run)
    if settings.json:
        print(json.dumps(as_json(found), indent=2, ensure_ascii=False, default=str))
        return
    print(lineage_text.text(found, votes=settings.votes))


def walk(project: Project, run_id: str) -> Lineage:
    """Follow parents and brought rows back to the first files and votes. Raises UserError for an unknown run."""
    project.run(run_id)
    runs = {run.id: run for run in project.runs()}
    store, notes = _open(project)
    steps: dict[str, Step] = {}
    todo = [run_id]
    try:
        while todo:
            current = todo.pop(0)
            if current in steps:
                continue
            steps[current] = _step(runs[current], runs, store)
            todo += [origin for origin in steps[current].origins if origin in runs]
    finally:
        if store is not None:
            store.close()
    return Lineage(run_id, steps, notes)


def ancestors(runs: Mapping[str, Run], run_id: str) -> list[str]:
    """`run_id` and every run it descends from by `parents` alone, nearest first; reads no file."""
    found: dict[str, None] = {}
    todo = [run_id]
    while todo:
        current = todo.pop(0)
        if current in runs and current not in found:
            found[current] = None
            todo += runs[current].parents
    return list(found)


def model_card(project: Project, run: Run) -> str:
    """A model card (Markdown with the hub's front matter) for what `run` made."""
    return lineage_text.card(project.name, walk(project, run.id))


def write_card(project: Project, run: Run) -> None:
    """README.md in the folder of a run that made a model."""
    (Path(run.path) / "README.md").write_text(model_card(project, run), encoding="utf-8")


def as_json(found: Lineage) -> dict[str, Any]:
    """The whole lineage as JSON values."""
    return {
        "root": found.root,
        "notes": list(found.notes),
        "problems": found.problems,
        "steps": {run_id: asdict(step) for run_id, step in found.steps.items()},
    }


def changed_settings(run: Run) -> dict[str, Any]:
    """The settings of a run that are not the command's defaults, in the command's order."""
    kind = CONFIGS.get(run.stage)
    if kind is None:
        return {name: value for name, value in run.config.items() if name not in NOT_SETTINGS}
    return {
        setting.name: run.config[setting.name]
        for setting in fields(kind)
        if setting.name in run.config
        and setting.name not in NOT_SETTINGS
        and _plain(run.config[setting.name]) != _default(setting)
    }


def _open(project: Project) -> tuple[AnyStore | None, tuple[str, ...]]:
    """The database, or why it was not asked; one that is missing is not made."""
    not_asked = "which runs brought the votes and completions was not looked up"
    if project.server is None and not project.database.exists():
        return None, (f"{project.database} is not there: {not_asked}",)
    try:
        store = project.store()
        store.value("SELECT 1")  # a server that is away says so now
        return store, ()
    except UserError as error:
        return None, (f"{error}; {not_asked}",)


def _step(run: Run, runs: Mapping[str, Run], store: AnyStore | None) -> Step:
    columns = _ids(run)
    origins: dict[str, list[str]] = {parent: ["parent"] for parent in run.parents}
    notes: list[str] = []
    votes = None
    if columns["vote"]:
        votes = _votes(store, columns["vote"], len(columns["annotator"]))
        for origin, count in votes.by_run.items():
            if origin != "people":
                origins.setdefault(origin, []).append(f"{count:,} votes")
        lost = len(votes.ids) - sum(votes.by_run.values())
        if votes.by_run and lost:
            notes.append(f"{lost} of its votes are no longer in the database")
    for kind in ("completion", "prompt") if store is not None else ():
        for origin, count in _brought(store, kind, columns[kind]).items():
            if origin != run.id:
                origins.setdefault(origin, []).append(f"{count:,} {kind}s")
    missing = [origin for origin in origins if origin not in runs]
    elsewhere = _elsewhere(store, missing, Path(run.path).parent)
    notes += [
        f"{origin} ran on another machine"
        if origin in elsewhere
        else f"{origin} is not among the runs any more"
        for origin in missing
    ]
    return Step(
        run, changed_settings(run), _inputs(run), votes, _weights(run),
        {origin: tuple(why) for origin, why in origins.items()}, tuple(notes),
    )  # fmt: skip


def _ids(run: Run) -> dict[str, list[str]]:
    """The ids in a run's frozen rows, each once, in order: prompts, completions, votes, annotators."""
    found: dict[str, dict[str, None]] = {"prompt": {}, "completion": {}, "vote": {}, "annotator": {}}
    for path in sorted((Path(run.path) / "data").glob("*.parquet")):
        names = set(pq.read_schema(path).names)
        wanted = names & {"prompt_id", "completion_id", "completion_ids", "vote_id", "annotator_id", "pairs"}
        for row in pq.read_table(path, columns=sorted(wanted)).to_pylist():
            found["completion"] |= dict.fromkeys(row.get("completion_ids") or ())
            for holder in (row, *(row.get("pairs") or ())):
                for kind, ids in found.items():
                    if holder.get(f"{kind}_id"):
                        ids[holder[f"{kind}_id"]] = None
    return {kind: list(ids) for kind, ids in found.items()}


def _votes(store: AnyStore | None, ids: Sequence[str], annotators: int) -> Votes:
    if store is None:
        return Votes(tuple(ids), annotators)
    rows = store.rows(
        "SELECT coalesce(v.run_id, 'people') AS run_id, n.kind, count(*) AS votes FROM vote v "
        "JOIN assignment a ON a.id = v.assignment_id JOIN annotator n ON n.id = a.annotator_id "
        "WHERE v.id IN (SELECT unnest(?::VARCHAR[])) GROUP BY ALL ORDER BY ALL",
        [list(ids)],
    )
    by_kind: dict[str, int] = {}
    by_run: dict[str, int] = {}
    for row in rows:
        by_kind[row["kind"]] = by_kind.get(row["kind"], 0) + row["votes"]
        by_run[row["run_id"]] = by_run.get(row["run_id"], 0) + row["votes"]
    return Votes(tuple(ids), annotators, by_kind, by_run)


def _brought(store: AnyStore | None, table: str, ids: Sequence[str]) -> dict[str, int]:
    """Run id -> how many of these prompts or completions it added."""
    if store is None or not ids:
        return {}
    rows = store.rows(
        f"SELECT run_id, count(*) AS rows FROM {table} "
        "WHERE id IN (SELECT unnest(?::VARCHAR[])) AND run_id IS NOT NULL GROUP BY run_id ORDER BY run_id",
        [list(ids)],
    )
    return {row["run_id"]: row["rows"] for row in rows}


def _elsewhere(store: AnyStore | None, ids: Sequence[str], folder: Path) -> set[str]:
    """Which of these runs the store has a record of, from another folder than this one."""
    if store is None or not ids:
        return set()
    wanted = "SELECT id, record ->> '$.path' AS path FROM run WHERE id IN (SELECT unnest(?::VARCHAR[]))"
    rows = store.rows(wanted, [list(ids)])
    return {str(row["id"]) for row in rows if Path(str(row["path"])).parent != folder}


def _inputs(run: Run) -> tuple[Input, ...]:
    """What run.json says went in, checked against what lies there now.

    Frozen rows are named after their Parquet file in the run's folder; an import names the files it read by path.
    """
    found = []
    for name, entry in run.files.items():
        frozen = Path(run.path) / "data" / f"{name}.parquet"
        kind: Literal["rows", "file"] = "file" if run.stage == "import" else "rows"
        path = Path(name) if kind == "file" else frozen
        if not path.is_file():
            state: State = "missing"
        else:
            now = file_hash(path) if kind == "file" else content_hash(pq.read_table(path))
            state = "verified" if now == entry.get("sha256") else "differs"
        found.append(Input(name, kind, str(entry.get("sha256", "")), entry.get("rows"), state, str(path)))
    return tuple(found)


def _weights(run: Run) -> Weights | None:
    """The weights of the artefact, so that a file met elsewhere can be traced to its run."""
    paths = sorted((Path(run.path) / str(run.artefact.get("path", "-"))).glob("*.safetensors"))
    if not paths:
        return None
    size = sum(path.stat().st_size for path in paths)
    hashes = [file_hash(path) for path in paths] if size <= HASHED else []
    joined = hashlib.sha256("".join(hashes).encode()).hexdigest() if len(hashes) > 1 else "".join(hashes)
    return Weights(tuple(path.name for path in paths), size, joined or None)


def _default(setting: Field[Any]) -> Any:
    return MISSING if setting.default is MISSING else _plain(setting.default)


def _plain(value: Any) -> Any:
    """As JSON would give it back."""
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value
