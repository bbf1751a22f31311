"""`palate export FILE`: preferences or votes in a file for other tools; `palate import` reads both back.

palate export preferences.jsonl                 TRL's conversational prompt, chosen, rejected
palate export votes.parquet --what votes        every vote, with its answers in the order shown
"""

from palate.config import ExportConfig, UserError
from palate.data.export import export_preferences, export_votes
from palate.project import Project


def run_export(project: Project, config: ExportConfig) -> int:
    """Write the file; returns how many rows it holds."""
    kind = "" if config.annotators == "all" else f"{config.annotators} "
    with project.store() as store:
        write = export_preferences if config.what == "preferences" else export_votes
        rows = write(store, config.file, config.annotators)
        if not rows:
            config.file.unlink()
            raise UserError(
                f"there are no {kind}{config.what} to export: rank some with palate label, or import some"
            )
        ties = store.value(
            "SELECT count(*) FROM current_vote WHERE verdict = 'tie' AND (? = 'all' OR annotator_kind = ?)",
            [config.annotators, config.annotators],
        )
    print(f"wrote {rows:,} {kind}{config.what} to {config.file}")
    if config.what == "preferences" and ties:
        print(f"left out: ties ({ties:,}), which have no chosen and rejected; `--what votes` keeps them")
    return rows
