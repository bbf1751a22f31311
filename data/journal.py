"""The journal: a second record of every vote, beside the database, from which the database can be rebuilt.

A folder of append-only files with one JSON object per line; `jq` reads them. Each line carries the CRC-32 of the
rest of it. Each file is self-contained: before the first vote that needs them it holds the prompt, completions,
comparison, annotator and assignment. Files are begun at each start and after 64 MB, and are never rewritten.

    journal = Journal(folder)
    journal.append([line(vote)])        # on disk when it returns
"""

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import IO, Any, cast

import orjson

from palate.data.columns import TABLE, Record
from palate.data.records import Annotator, Assignment, Comparison, Completion, Prompt, Vote

FILE_BYTES = 64 * 1024 * 1024
_NEW = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)
_NAME = re.compile(r"(\d{6,})\.jsonl(\.gz)?")
_VOTE = re.compile(rb'.{18}"kind":"vote","id":"([0-9A-Za-z_-]+)"')
_HEAD = len(b'{"crc":"00000000",')
_KINDS = {TABLE[kind]: kind for kind in (Prompt, Completion, Comparison, Annotator, Assignment, Vote)}


@dataclass(frozen=True)
class Damage:
    """A line that can't be read. `torn`: the end of a file whose writer was killed in the middle of it."""

    file: str
    line: int
    torn: bool


def folder_of(database: Path) -> Path:
    """Where the journal of a database lies: beside it."""
    return database.parent / "votes.journal"


class Journal:
    """Appends to one new file of the folder. Not for several threads at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = -1
        self._size = 0
        self._begin()

    @property
    def file(self) -> Path:
        """The file that the next lines go to; another one than before means that it holds nothing yet."""
        if self._fd < 0 or self._size >= FILE_BYTES:
            self._begin()
        return self._file

    def append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write all lines and wait until they are on disk, or raise OSError and leave none of them behind."""
        assert self.file  # a new one is begun when it is time
        data = memoryview(b"".join(map(encode, lines)))
        try:
            written = 0
            while written < len(data):
                written += os.write(self._fd, data[written:])
            _sync(self._fd)
        except OSError:
            self._take_back()
            raise
        self._size += len(data)

    def close(self) -> None:
        """End the file; one that holds nothing goes away."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            if self._size == 0:
                self._file.unlink(missing_ok=True)

    def _begin(self) -> None:
        self.close()
        number = max(
            (int(found.group(1)) for found in map(_named, self.folder.iterdir()) if found), default=0
        )
        self._file = self.folder / f"{number + 1:06}.jsonl"
        self._fd = os.open(self._file, _NEW | os.O_EXCL | os.O_APPEND, 0o600)
        self._size = 0
        sync_folder(self.folder)

    def _take_back(self) -> None:
        """Cut off what a failed write left. Where even that fails, what is left is a torn end: a new file follows.

        After a failed fsync the same holds: which of its pages are on disk is not known any more.
        """
        try:
            os.ftruncate(self._fd, self._size)
            _sync(self._fd)
        except OSError:
            os.close(self._fd)
            self._fd = -1


def line(record: Record) -> dict[str, Any]:
    """A record as a line of the journal: what it is, its id, then its fields."""
    return as_line(TABLE[type(record)], {field.name: getattr(record, field.name) for field in fields(record)})


def as_line(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table of records as a line of the journal; an annotator's own `kind` is `annotator_kind` there."""
    renamed = {"annotator_kind" if name == "kind" else name: value for name, value in row.items()}
    return {"kind": table, "id": renamed.pop("id"), **renamed}


def record(entry: Mapping[str, Any]) -> Record:
    """The record that a line holds. Fields that this version doesn't know are left out."""
    kind = _KINDS[entry["kind"]]
    values = {field.name: entry[field.name] for field in fields(kind) if field.name in entry}
    if kind is Annotator:
        values["kind"] = entry["annotator_kind"]
    if kind is Vote:  # older lines don't have it, nor do older rows that were appended
        values["adjudicated"] = bool(values.get("adjudicated"))
    for name in ("leased_until", "created_at"):
        if values.get(name) is not None:
            values[name] = datetime.fromisoformat(values[name])
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = tuple(tuple(part) if isinstance(part, list) else part for part in value)
    made = kind(**values)
    assert isinstance(made, Record)
    return made


def encode(entry: Mapping[str, Any]) -> bytes:
    """A line with its checksum and its end."""
    try:
        body = orjson.dumps(entry)
    except TypeError:  # half a surrogate pair, or an integer of more than 64 bits
        body = json.dumps(entry, separators=(",", ":"), default=str).encode()
    rest = body[1:]
    return b'{"crc":"%08x",%s\n' % (zlib.crc32(rest), rest)


def read(folder: Path, damage: list[Damage] | None = None) -> Iterator[dict[str, Any]]:
    """Every line of every file, oldest first. Lines that can't be read are left out and added to `damage`."""
    for path in files(folder):
        yield from map(parse, lines_of(path, damage))


def parse(raw: bytes) -> dict[str, Any]:
    """A whole line's record, without the checksum."""
    try:
        entry: dict[str, Any] = orjson.loads(raw)
    except orjson.JSONDecodeError:  # written by the slower encoder
        entry = json.loads(raw)
    del entry["crc"]
    return entry


def lines_of(path: Path, damage: list[Damage] | None = None) -> Iterator[bytes]:
    """Every line of a file as its bytes, checked but not parsed."""
    damage = [] if damage is None else damage
    number = 0
    with _open(path) as source:
        try:
            for number, raw in enumerate(source, 1):
                if _whole(raw):
                    yield raw
                else:
                    damage.append(Damage(path.name, number, torn=not raw.endswith(b"\n")))
        except (EOFError, zlib.error, gzip.BadGzipFile):  # a packed file that was damaged: its rest is lost
            damage.append(Damage(path.name, number + 1, torn=False))


def vote_ids(paths: Sequence[Path], damage: list[Damage] | None = None) -> set[str]:
    """The ids of all votes in these files, without parsing the lines."""
    found = set()
    for path in paths:
        for raw in lines_of(path, damage):
            if match := _VOTE.match(raw):
                found.add(match.group(1).decode())
    return found


def files(folder: Path) -> list[Path]:
    """The journal's files, oldest first. A file that stands there twice, packed and not, is read unpacked."""
    if not folder.is_dir():
        return []
    numbers: dict[int, Path] = {}
    for path in sorted(folder.iterdir(), reverse=True):
        if found := _named(path):
            numbers[int(found.group(1))] = path
    return [numbers[number] for number in sorted(numbers)]


def pack(path: Path) -> Path:
    """Compress a file that is not written to any more; the original goes once the packed one is on disk and right."""
    packed = path.with_name(path.name + ".gz")
    part = packed.with_name(packed.name + ".part")
    with (
        path.open("rb") as source,
        open(os.open(part, _NEW | os.O_TRUNC, 0o600), "wb") as out,
    ):
        with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=6, mtime=0) as target:
            while block := source.read(1 << 20):
                target.write(block)
        out.flush()
        os.fsync(out.fileno())
    with path.open("rb") as source, gzip.open(part) as check:
        while block := source.read(1 << 20):
            if check.read(len(block)) != block:
                raise OSError(f"{part} does not hold what {path} holds; the original stays")
    os.replace(part, packed)
    sync_folder(path.parent)
    path.unlink()
    return packed


def sync_folder(folder: Path) -> None:
    """Make a new, renamed or removed name in the folder last."""
    if os.name == "nt":  # folders can't be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _whole(raw: bytes) -> bool:
    return raw.endswith(b"\n") and raw[:_HEAD] == b'{"crc":"%08x",' % zlib.crc32(raw[_HEAD:-1])


def _named(path: Path) -> re.Match[str] | None:
    return _NAME.fullmatch(path.name)


def _open(path: Path) -> IO[bytes]:
    plain = open(path, "rb")  # noqa: SIM115  the caller closes it
    return cast(IO[bytes], gzip.GzipFile(fileobj=plain)) if path.suffix == ".gz" else plain


_sync = getattr(os, "fdatasync", os.fsync)
