"""`palate import FILE...`: prompts, demonstrations, preferences and rankings from files into the project.

    palate import pairs.jsonl                    what the rows are is seen from their columns, and said
    palate import pairs.jsonl --as prompts       only their prompts

All files are read before anything is written, and everything is written in one transaction. A row that can't
be used goes to `rejects.jsonl` in the run's folder with its line and the reason. The formats are in
`palate.data.formats`.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palate.config import ImportConfig, UserError, as_dict
from palate.data.importing import Count, Source, check_group_by, content_hash, insert, stage_files
from palate.data.readers import check_files
from palate.data.records import Run
from palate.data.staging import Outcome
from palate.project import Project
from palate.runs import ActiveRun, file_hash

MEMORY = "1GB"  # for the database while it takes the records; more is spilled to disk
# what a table's records are called on the screen; assignments follow from votes
_SHOWN = {"prompt": "prompts", "completion": "completions", "comparison": "comparisons", "vote": "votes", "annotator": "annotators"}  # fmt: skip


def run(project: Project, config: ImportConfig) -> Run:
    """Import the files; the run's record holds their hashes and what was new."""
    if not config.files:
        raise UserError("no files given: palate import FILE...")
    check_files(config.files)
    check_group_by(config.group_by)
    project.store().close()  # says so when another process owns the database, before anything is read
    hashes = [content_hash(path) for path in config.files]
    sources = _sources(project, config, hashes)
    with project.start("import", as_dict(config)) as run:
        staging = run.path / "staging"
        staging.mkdir()
        try:
            outcomes = _read(run, config, sources, staging)
            with project.store(MEMORY) as store:
                counts = insert(store, staging)
                demonstrations = store.value("SELECT count(*) FROM completion WHERE role = 'demonstration'")
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        _record(run, sources, hashes, outcomes, counts)
    _tell(run, sources, outcomes, counts)
    print(f"next: {_next(project, counts, demonstrations)}")
    return run.record


def _sources(project: Project, config: ImportConfig, hashes: Sequence[str]) -> list[Source]:
    """A file's rows are named after it; the same content under another name keeps its first name."""
    before: dict[str, str] = {}
    for past in project.runs():
        if past.stage == "import" and past.status == "done":
            for file in past.files.values():
                before.setdefault(str(file.get("content")), str(file.get("source")))
    names = [path.name for path in config.files]
    sources = []
    for path, sha in zip(config.files, hashes, strict=True):
        own = path.name if names.count(path.name) == 1 else f"{path.resolve().parent.name}/{path.name}"
        name = config.source or before.setdefault(sha, own)
        sources.append(Source(path, name, forced=config.source is not None))
    return sources


def _read(run: ActiveRun, config: ImportConfig, sources: list[Source], staging: Path) -> list[Outcome]:
    """Stage all files; without one usable row this is an error and nothing is imported."""
    rejects = run.path / "rejects.jsonl"
    kind = None if config.kind == "auto" else config.kind
    first: list[dict[str, Any]] = []
    with rejects.open("w", encoding="utf-8") as file:

        def keep(rows: list[dict[str, Any]]) -> None:
            first.extend(rows[: 1 - len(first)])
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

        outcomes = stage_files(sources, staging, run.id, kind, config.group_by, keep)
    if not any(outcome.rows > outcome.rejected for outcome in outcomes):
        why = f"{first[0]['file']}, line {first[0]['line']}: {first[0]['reason']}" if first else "no rows"
        raise UserError(f"nothing usable in {len(sources)} file(s), nothing imported; {why}")
    if not first:
        rejects.unlink()
    return outcomes


def _record(
    run: ActiveRun,
    sources: list[Source],
    hashes: list[str],
    outcomes: list[Outcome],
    counts: dict[str, Count],
) -> None:
    """What went in (path, hashes, rows) and what was new, for the lineage."""
    run.update(
        files={
            str(source.path.resolve()): {
                "sha256": file_hash(source.path),
                "content": sha,
                "source": source.name,
                "rows": outcome.rows,
                "rejected": outcome.rejected,
            }
            for source, sha, outcome in zip(sources, hashes, outcomes, strict=True)
        }
    )
    for table, count in counts.items():
        run.metrics(**{f"{table}_new": count.new, f"{table}_known": count.known})
    run.metrics(rows=sum(o.rows for o in outcomes), rejected=sum(o.rejected for o in outcomes))


def _tell(run: ActiveRun, sources: list[Source], outcomes: list[Outcome], counts: dict[str, Count]) -> None:
    for source, outcome in zip(sources, outcomes, strict=True):
        print(
            f"{source.path}: {outcome.rows:,} rows"
            + (f", {outcome.rejected:,} rejected" if outcome.rejected else "")
        )
        for (kind, columns), number in outcome.shapes.most_common():
            print(
                f"  looks like {kind}: {columns}" + (f" ({number:,} rows)" if number < outcome.rows else "")
            )
        if outcome.dropped:
            print(
                f"  not kept: {', '.join(sorted(outcome.dropped))} (they describe a pair, not a prompt or an answer)"
            )
        if outcome.ungrouped:
            print(f"  not matched by --group-by, so each a group of its own: {outcome.ungrouped:,}")
    print(f"{run.id}:{'new':>21}{'already there':>16}")
    for table, name in _SHOWN.items():
        if counts[table].new or counts[table].known:
            print(f"  {name:<14}{counts[table].new:>14,}{counts[table].known:>16,}")
    rejected = sum(outcome.rejected for outcome in outcomes)
    if rejected:
        with (run.path / "rejects.jsonl").open(encoding="utf-8") as file:
            example = json.loads(file.readline())
        print(f"{rejected:,} rejected, e.g. line {example['line']}: {example['reason']}")
        print(f"  all of them: {run.path / 'rejects.jsonl'}")


def _next(project: Project, counts: dict[str, Count], demonstrations: int) -> str:
    if counts["vote"].new or counts["vote"].known:
        return "palate reward (or palate stats, to see what the votes say)"
    if counts["comparison"].new or counts["comparison"].known:
        return "palate label, to rank the candidates"
    if demonstrations and project.latest("sft") is None:
        return "palate sft"
    return "palate sample, to get answers to rank"
