"""The journal: what is appended comes back, and what a crash or a full disk leaves never harms the rest."""

import gzip
import os
import resource
import stat
import subprocess
import sys
import zlib
from datetime import datetime
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data import journal
from palate.data.journal import Damage, Journal
from palate.data.records import Annotator, Assignment, Comparison, Completion, Prompt, Vote

ROOT = Path(__file__).parents[2]


def entries(folder: Path) -> tuple[list[dict[str, object]], list[Damage]]:
    damage: list[Damage] = []
    return list(journal.read(folder, damage)), damage


def wrote(folder: Path, *numbers: int) -> None:
    opened = Journal(folder)
    opened.append([{"kind": "vote", "id": f"v{number}"} for number in numbers])
    opened.close()


def test_every_kind_of_record_comes_back_as_it_was(tmp_path: Path) -> None:
    prompt = Prompt(
        ({"role": "user", "content": "Grüße ✓\n\u2028"},), tags=("a",), meta={"n": [1, {"x": None}]}
    )
    first, second = (
        Completion(prompt.id, text, model="m", sampling={"temperature": 0.5}, seed=3)
        for text in ("one", "two")
    )
    comparison = Comparison(prompt.id, (first.id, second.id), reserved_for="anna", repeats="c0")
    anna = Annotator("Anna", "rule", "lead", {"x": 1})
    moment = datetime(2026, 11, 21, 4, 0, 0, 123456)
    assignment = Assignment(comparison.id, anna.id, (second.id, first.id), "done", moment)
    vote = Vote(
        assignment.id, "ranked", ((first.id,), (second.id,)), 2, {"helpful": {first.id: 4}}, "why", ("unsafe",),
        "better", 1.5, 0.5, 3, None, "v0", moment,
    )  # fmt: skip
    records = [prompt, first, second, comparison, anna, assignment, vote]
    opened = Journal(tmp_path / "j")
    opened.append([journal.line(record) for record in records])
    opened.close()
    found, damage = entries(tmp_path / "j")
    assert [journal.record(entry) for entry in found] == records
    assert damage == []


def test_the_folder_is_its_owners_alone_and_files_are_json_lines(tmp_path: Path) -> None:
    wrote(tmp_path / "j", 1)
    wrote(tmp_path / "j", 2)
    assert sorted(p.name for p in (tmp_path / "j").iterdir()) == ["000001.jsonl", "000002.jsonl"]
    assert stat.S_IMODE((tmp_path / "j").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "j" / "000001.jsonl").stat().st_mode) == 0o600
    text = (tmp_path / "j" / "000001.jsonl").read_bytes()
    rest = b'"kind":"vote","id":"v1"}'
    assert text == b'{"crc":"%08x",%s\n' % (zlib.crc32(rest), rest)
    assert orjson.loads(text)["id"] == "v1"


def test_a_new_file_after_so_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "FILE_BYTES", 200)
    opened = Journal(tmp_path)
    seen = set()
    for number in range(20):
        seen.add(opened.file)
        opened.append([{"kind": "vote", "id": f"v{number}"}])
    opened.close()
    assert len(seen) == len(journal.files(tmp_path)) > 3
    assert [entry["id"] for entry in entries(tmp_path)[0]] == [f"v{number}" for number in range(20)]


def test_a_file_in_which_nothing_was_written_goes_away(tmp_path: Path) -> None:
    opened = Journal(tmp_path)
    assert opened.file.exists()
    opened.close()
    assert list(tmp_path.iterdir()) == []
    assert entries(tmp_path / "none") == ([], [])


def test_a_torn_last_line_is_dropped_and_told(tmp_path: Path) -> None:
    wrote(tmp_path, 1, 2)
    path = tmp_path / "000001.jsonl"
    whole = path.read_bytes()
    for cut in range(len(whole.splitlines(keepends=True)[0]) + 1, len(whole)):
        path.write_bytes(whole[:cut])
        found, damage = entries(tmp_path)
        assert [entry["id"] for entry in found] == ["v1"]
        assert damage == [Damage("000001.jsonl", 2, torn=True)]
    wrote(tmp_path, 3)  # the next start goes on in a file of its own
    assert [entry["id"] for entry in entries(tmp_path)[0]] == ["v1", "v3"]


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_one_wrong_byte_costs_its_own_lines_and_is_reported(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    folder = tmp_path_factory.mktemp("j")
    wrote(folder, 1, 2, 3, 4)
    path = folder / "000001.jsonl"
    data = bytearray(path.read_bytes())
    place %= len(data)
    if data[place] == value:
        return
    data[place] = value
    path.write_bytes(bytes(data))
    found, damage = entries(folder)
    length = len(data) // 4
    hit = {place // length, place // length + 1} if place % length == length - 1 else {place // length}
    assert [entry["id"] for entry in found] == [f"v{n + 1}" for n in range(4) if n not in hit]
    assert damage
    assert {problem.file for problem in damage} == {"000001.jsonl"}


def test_a_full_disk_refuses_and_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands for the disk: a write beyond it fails as one on a full disk does, after a part is written."""
    script = f"""
import resource, signal
from pathlib import Path
from palate.data.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
opened = Journal(Path({str(tmp_path)!r}))
opened.append([{{"kind": "vote", "id": "v1"}}])
size = opened.file.stat().st_size
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
for attempt in range(3):
    try:
        opened.append([{{"kind": "vote", "id": "lost" * 50}}])
        raise SystemExit("it was written")
    except OSError:
        assert opened.file.stat().st_size == size, opened.file.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
opened.append([{{"kind": "vote", "id": "v2"}}])
opened.close()
"""
    assert resource.RLIMIT_FSIZE is not None
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=60)
    found, damage = entries(tmp_path)
    assert [entry["id"] for entry in found] == ["v1", "v2"]
    assert damage == []


def test_after_a_failed_write_that_cannot_be_taken_back_a_new_file_follows(tmp_path: Path) -> None:
    opened = Journal(tmp_path)
    opened.append([{"kind": "vote", "id": "v1"}])
    first = opened.file
    os.close(opened._fd)  # as a device that is gone
    with pytest.raises(OSError, match="Bad file descriptor"):
        opened.append([{"kind": "vote", "id": "v2"}])
    opened._fd = -1
    opened.append([{"kind": "vote", "id": "v3"}])
    opened.close()
    assert opened.file != first
    assert [entry["id"] for entry in entries(tmp_path)[0]] == ["v1", "v3"]


def test_a_packed_file_holds_the_same_and_is_read_once(tmp_path: Path) -> None:
    wrote(tmp_path, 1, 2)
    wrote(tmp_path, 3)
    original = (tmp_path / "000001.jsonl").read_bytes()
    packed = journal.pack(tmp_path / "000001.jsonl")
    assert packed.name == "000001.jsonl.gz"
    assert stat.S_IMODE(packed.stat().st_mode) == 0o600
    assert gzip.decompress(packed.read_bytes()) == original
    assert [entry["id"] for entry in entries(tmp_path)[0]] == ["v1", "v2", "v3"]
    (tmp_path / "000001.jsonl").write_bytes(original)  # ended between the two steps
    assert [entry["id"] for entry in entries(tmp_path)[0]] == ["v1", "v2", "v3"]
    wrote(tmp_path, 4)
    assert journal.files(tmp_path)[-1].name == "000003.jsonl"


def test_a_damaged_packed_file_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    wrote(tmp_path, *range(5000))
    wrote(tmp_path, 5000)
    packed = journal.pack(tmp_path / "000001.jsonl")
    data = packed.read_bytes()
    packed.write_bytes(data[: len(data) // 2])
    found, damage = entries(tmp_path)
    assert found[-1]["id"] == "v5000"
    assert 0 < len(found) < 5001
    assert damage[-1].file == "000001.jsonl.gz"


def test_values_that_json_has_no_words_for_do_not_stop_a_vote(tmp_path: Path) -> None:
    opened = Journal(tmp_path)
    opened.append(
        [{"kind": "vote", "id": "v", "rationale": "half \ud83d", "big": 2**70, "nan": float("nan")}]
    )
    opened.close()
    found, damage = entries(tmp_path)
    assert damage == []
    assert found[0]["id"] == "v"
