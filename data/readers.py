"""Files to rows: JSONL, JSON, CSV and Parquet, each also as .gz, read as a stream.

The content decides what a file is, not its name. A row that can't be read is handed on with the reason and
does not stop the file; a file that can't be read at all is a UserError. It does not know what the columns
mean: that is `palate.data.formats`.

    for line, row in rows(Path("pairs.jsonl.gz")): ...
"""

import codecs
import csv
import gzip
import io
import json
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from palate.config import UserError

Format = Literal["jsonl", "json", "csv", "parquet"]
Advance = Callable[[int], object]  # told how many bytes of the file were taken since the last call
MAX_ROW = 32 << 20  # bytes; a longer row is no text that anybody can rank
LISTS = ("data", "rows", "examples", "records", "items", "train")  # where a JSON object keeps its rows
_BLOCK = 1 << 20
_OTHER = {  # formats that are recognised in order to say what to do
    b"PK\x03\x04": "a zip or Excel file: save its table as CSV",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it first, or use .gz",
    b"\xfd7zXZ": "compressed with xz: unpack it first, or use .gz",
    b"BZh": "compressed with bzip2: unpack it first, or use .gz",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
}


class Unreadable(NamedTuple):
    """A row that is no row: why, and its text as far as there is one."""

    reason: str
    raw: str


# a JSONL line stays bytes until it is parsed by `parse_line`, perhaps in another process
Payload = bytes | dict[str, Any] | Unreadable


def check_files(files: tuple[Path, ...]) -> None:
    """The errors that can be told before anything is read."""
    for path in files:
        if not path.exists():
            raise UserError(f"{path} does not exist")
        if path.is_dir():
            raise UserError(f"{path} is a folder: name its files, e.g. palate import {path}/*.jsonl")
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty")


def rows(path: Path, advance: Advance = lambda _: None) -> Iterator[tuple[int, Payload]]:
    """(line, row) of a file; for Parquet the row's number. Blank lines are skipped."""
    found = sniff(path)
    if found == "parquet":
        yield from _parquet(path, advance)
        return
    with opened(path, advance) as handle:
        if found == "jsonl":
            yield from _lines(handle)
        elif found == "csv":
            yield from _csv(path, handle)
        else:
            yield from _json(path, handle)


def parse_line(payload: Payload) -> dict[str, Any] | Unreadable:
    """The row of a JSONL line; other payloads pass through."""
    if not isinstance(payload, bytes):
        return payload
    try:
        row = json.loads(payload)
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (byte 0x{payload[error.start]:02x} at column {error.start + 1}): save the file as UTF-8"
        return Unreadable(reason, payload[:2000].decode("utf-8", "replace"))
    except json.JSONDecodeError as error:
        reason = f"not JSON ({error.msg} at character {error.pos + 1})"
        return Unreadable(reason, payload[:2000].decode("utf-8", "replace").rstrip())
    except RecursionError:
        return Unreadable("JSON nested too deeply", payload[:2000].decode("utf-8", "replace"))
    if not isinstance(row, dict):
        return Unreadable(f"a JSON {type(row).__name__}, not an object with columns", str(row)[:2000])
    return row


@contextmanager
def opened(path: Path, advance: Advance = lambda _: None) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked when it is gzip (by content), with damage told in one line."""
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        counted = io.BufferedReader(_Counted(raw, advance), _BLOCK)
        handle = gzip.GzipFile(fileobj=counted) if packed else counted
        try:
            yield handle  # type: ignore[misc]
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{path} is a damaged gzip file ({error}): fetch or pack it again") from error


class _Counted(io.RawIOBase):
    """A raw file that tells how many bytes were read from it."""

    def __init__(self, raw: BinaryIO, advance: Advance) -> None:
        self._raw, self._advance = raw, advance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._raw.read(len(buffer))
        buffer[: len(block)] = block
        self._advance(len(block))
        return len(block)


def sniff(path: Path) -> Format:
    """What a file holds, by its first bytes; the name only helps when these could be several things."""
    with opened(path) as handle:
        head = handle.read(1 << 16)
    for magic, what in _OTHER.items():
        if head.startswith(magic):
            raise UserError(f"{path} is {what}")
    if head.startswith(b"PAR1"):
        return "parquet"
    if b"\x00" in head:
        raise UserError(f"{path} holds binary data: expected JSONL, JSON, CSV or Parquet")
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not text:
        raise UserError(f"{path} holds only blank lines" if head else f"{path} is empty")
    name = path.name.lower().removesuffix(".gz")
    if text[:1] == b"[":
        return "json"
    if text[:1] == b"{":
        # one object per line, or one object over several lines
        first = parse_line(text.split(b"\n", 1)[0])
        alone = isinstance(first, dict) and any(isinstance(first.get(key), list) for key in LISTS)
        one_per_line = isinstance(first, dict) and not alone
        return "jsonl" if one_per_line or not name.endswith(".json") else "json"
    if name.endswith((".csv", ".tsv")):
        return "csv"
    if name.endswith((".jsonl", ".ndjson")):
        return "jsonl"  # a damaged first line does not condemn the file
    start = text.split(b"\n", 1)[0][:60].decode("utf-8", "replace")
    raise UserError(f"{path} is neither JSONL, JSON, CSV nor Parquet; it begins with {start!r}")


def _lines(handle: BinaryIO) -> Iterator[tuple[int, Payload]]:
    number = 0
    while line := handle.readline(MAX_ROW):
        number += 1
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if len(line) == MAX_ROW and not line.endswith(b"\n"):
            while (rest := handle.readline(MAX_ROW)) and not rest.endswith(b"\n"):
                pass
            reason = f"longer than {MAX_ROW >> 20} MB"
            yield number, Unreadable(reason, line[:200].decode("utf-8", "replace") + "...")
        elif not line.isspace():
            yield number, line


def _csv(path: Path, handle: BinaryIO) -> Iterator[tuple[int, Payload]]:
    csv.field_size_limit(MAX_ROW)
    text = io.TextIOWrapper(handle, encoding="utf-8-sig", errors="surrogateescape", newline="")
    first = text.readline()
    delimiter = max(",;\t|", key=first.count)
    header = next(csv.reader([first], delimiter=delimiter, skipinitialspace=True))
    header = [name.strip() for name in header]
    if "" in header or len(set(header)) < len(header):
        raise UserError(f"{path}: the first line must name each column once, it reads {first.strip()[:80]!r}")
    reader = csv.reader(text, delimiter=delimiter)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num + 1, Unreadable(f"not CSV ({error})", "")
            continue
        line = reader.line_num + 1  # the header's line was taken before
        if not any(cells):
            continue
        if len(cells) != len(header):
            reason = f"{len(cells)} cells, but the header names {len(header)} columns"
            yield line, Unreadable(reason, delimiter.join(cells)[:2000])
        elif damage := _not_utf8(delimiter.join(cells)):
            yield line, damage
        else:
            yield line, {name: cell or None for name, cell in zip(header, cells, strict=True)}


def _not_utf8(text: str) -> Unreadable | None:
    """The complaint when decoding had to smuggle bytes through as surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        byte = ord(text[error.start]) - 0xDC00
        raw = text[:2000].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return Unreadable(f"not UTF-8 (byte 0x{byte:02x}): save the file as UTF-8", raw)
    return None


def _json(path: Path, handle: BinaryIO) -> Iterator[tuple[int, Payload]]:
    text = _Text(path, handle)
    text.more()
    text.skip(codecs.BOM_UTF8.decode())
    if text.peek() == "[":
        text.take(1)
        for line, value in text.values():
            yield line, value if isinstance(value, dict) else _no_object(value)
        return
    whole = text.value()
    listed = next((whole[key] for key in LISTS if isinstance(whole.get(key), list)), [whole])
    for number, value in enumerate(listed, 1):
        yield number, value if isinstance(value, dict) else _no_object(value)


def _no_object(value: Any) -> Unreadable:
    return Unreadable(f"a JSON {type(value).__name__}, not an object with columns", str(value)[:2000])


class _Text:
    """Decoded JSON text, read on as far as the next value needs: an array of any length takes little memory."""

    def __init__(self, path: Path, handle: BinaryIO) -> None:
        self._path, self._handle = path, handle
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._json = json.JSONDecoder()
        self._buffer, self._at, self._line, self._ended = "", 0, 1, False

    def more(self) -> None:
        """Read another block, as large as what is there already (a long value is not parsed again and again)."""
        block = self._handle.read(max(_BLOCK, len(self._buffer) - self._at))
        self._ended = not block
        try:
            new = self._utf8.decode(block, final=self._ended)
        except UnicodeDecodeError as error:
            raise self._error(f"not UTF-8 ({error.reason}): save the file as UTF-8") from error
        self._buffer, self._at = self._buffer[self._at :] + new, 0

    def peek(self) -> str:
        """The next character that is not white space, or nothing at the end."""
        while True:
            rest = self._buffer[self._at : self._at + 4096]
            self.take(len(rest) - len(rest.lstrip(" \t\r\n")))
            if self._at < len(self._buffer):
                if not self._buffer[self._at].isspace():
                    return self._buffer[self._at]
            elif self._ended:
                return ""
            else:
                self.more()

    def take(self, n: int) -> None:
        """Go on by n characters."""
        self._line += self._buffer.count("\n", self._at, self._at + n)
        self._at += n

    def skip(self, text: str) -> None:
        """Go past `text` when it comes next."""
        if self._buffer.startswith(text, self._at):
            self.take(len(text))

    def values(self) -> Iterator[tuple[int, Any]]:
        """(line, value) of the array whose bracket was taken."""
        while (character := self.peek()) != "]":
            if character == "":
                raise self._error("the list is not closed, the file may be cut")
            line = self._line
            yield line, self.value(MAX_ROW)
            if self.peek() == ",":
                self.take(1)
            elif self.peek() not in ("]", ""):
                raise self._error("expected ',' or ']' after a row")

    def value(self, longest: int | None = None) -> Any:
        """The next JSON value, of at most `longest` characters."""
        self.peek()
        while True:
            try:
                value, end = self._json.raw_decode(self._buffer, self._at)
                if end < len(self._buffer) or self._ended:
                    self.take(end - self._at)
                    return value
            except (ValueError, RecursionError) as error:
                cut = "Unterminated" in str(error) or getattr(error, "pos", 0) >= len(self._buffer) - 8
                too_long = longest is not None and len(self._buffer) - self._at > longest
                if self._ended or not cut or too_long:
                    raise self._error(f"not valid JSON ({str(error).split(':')[0]})") from error
            self.more()

    def _error(self, what: str) -> UserError:
        return UserError(f"{self._path}, in the row that begins at line {self._line}: {what}")


def _parquet(path: Path, advance: Advance) -> Iterator[tuple[int, Payload]]:
    with tempfile.TemporaryDirectory() as folder:
        plain = path
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        if packed:  # Parquet is read from its end: it must be unpacked first
            plain = Path(folder) / "unpacked.parquet"
            with opened(path) as source, plain.open("wb") as target:
                shutil.copyfileobj(source, target, _BLOCK)
        number = 0
        size = path.stat().st_size
        try:
            file = pq.ParquetFile(plain)
            total = max(1, file.metadata.num_rows)
            for batch in file.iter_batches(batch_size=1_000):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
                advance(size * batch.num_rows // total)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} is a damaged Parquet file ({str(error).splitlines()[0]})") from error
