"""`palate recover`, `palate backup`, `palate restore`: what they do is in `palate.data`, here it is told."""

from pathlib import Path

from palate.config import BackupConfig, RecoverConfig, RestoreConfig, UserError
from palate.data import backup, journal, recovery
from palate.data.remote import RemoteStore
from palate.data.store import Store
from palate.project import Project


def run_recover(project: Project, config: RecoverConfig) -> None:
    """Put a damaged database right and say what was done."""
    for line in recovery.told(recovery.recover(project.own_database(), config.dry_run), config.dry_run):
        print(line)


def run_backup(project: Project, config: BackupConfig) -> None:
    """Back up here, or through the server that owns the database."""
    with project.store() as store:
        if isinstance(store, RemoteStore):
            made = store.post("backups", {})
            print(f"made:    {made['file']} with {made['votes']:,} votes, by the running server")
            return
        assert isinstance(store, Store)
        done = backup.backup(store, backup.folder_of(project.database))
    packed = backup.pack_journal(done, journal.folder_of(project.database))
    gone = backup.prune(backup.folder_of(project.database), config.keep, config.days)
    size = done.file.stat().st_size / 1e6
    print(f"made:    {done.file} with {done.votes:,} votes, {size:,.1f} MB; read again and compared")
    if gone or packed:
        print(f"         {len(gone)} older backups removed, {len(packed)} files of the journal compressed")


def run_restore(project: Project, config: RestoreConfig) -> None:
    """Put a backup back, with every vote that was given since."""
    target = project.own_database()
    source = _source(project, config.backup)
    if config.to is not None:
        target = config.to / project.database.name
        marker = config.to / "palate.yaml"
        if marker.exists() and not config.force:
            raise UserError(f"{config.to} holds a project already: choose another folder, or --force")
    done = recovery.restore(source, target, journal.folder_of(project.database), config.force)
    if config.to is not None and not marker.exists():
        marker.write_bytes((project.folder / "palate.yaml").read_bytes())
    print(f"did:     put {source} in the place of {target}")
    for line in recovery.told(done):
        print(line)


def _source(project: Project, name: str) -> Path:
    folder = backup.folder_of(project.database)
    made = backup.backups(folder)
    if name == "latest" and made:
        return made[-1].file
    for candidate in (Path(name), folder / name, folder / f"{name}.duckdb"):
        if candidate.is_file():
            return candidate
    known = ", ".join(one.file.stem for one in made[-5:]) or "none yet"
    raise UserError(f"there is no backup '{name}'; in {folder} there are: {known}")
