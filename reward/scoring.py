"""`palate reward score`: rewards of the rows of files, of standard input, or of all completions of the project.

    palate reward score answers.jsonl --out scored.jsonl
    cat answers.jsonl | palate reward score - | head
    palate reward score --comparisons

Rows are read, scored and written batch by batch, so a stream of any length takes the memory of one batch. A row keeps
its columns and gains `reward` and its standard deviation `reward_std` where the run knows it, or `rewards` and
`rewards_std` where it holds several completions. A row that can't be scored ends it with
one sentence; what was written until then is whole rows. Not here: the models (scorers.py).
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
from tqdm import tqdm

from palate.config import RewardScoreConfig, UserError
from palate.data import readers
from palate.data.columns import batches
from palate.data.formats_item import BadRow, as_text, conversation, first, missing, prompt_of, split_answer
from palate.data.records import Message
from palate.hardware import probe
from palate.project import Project
from palate.reward.scorers import Scorer, open_scorer

_UNSCORED = """
SELECT m.id, p.messages, m.text, m.finish_reason
FROM completion m JOIN prompt p ON p.id = m.prompt_id
WHERE m.id IN (SELECT unnest(completion_ids) FROM comparison)
  AND m.id NOT IN (SELECT completion_id FROM score WHERE run_id = ?)
ORDER BY p.id, m.id
"""
_MANY = {"reward": "rewards", "reward_std": "rewards_std"}  # of a row that holds several completions
Row = dict[str, Any]


def run(project: Project, config: RewardScoreConfig) -> None:
    """Score what was asked for; notes go to standard error, so that standard output holds nothing but rows."""
    if bool(config.files) == config.comparisons:
        raise UserError(
            "name files to score, or - for standard input, or --comparisons for the project's completions"
        )
    if config.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, got {config.batch_size}")
    files = tuple(file for file in config.files if str(file) != "-")
    if len(files) < len(config.files) - 1:
        raise UserError("standard input (-) can be read once")
    readers.check_files(files)
    if config.out is not None and config.out.resolve() in {file.resolve() for file in files}:
        raise UserError(f"--out {config.out} is one of the files to score: choose another name")
    scorer, name = open_scorer(
        project, config.reward, probe(config.device, config.dtype), config.max_length, config.pessimism
    )
    if config.comparisons:
        count = score_comparisons(project, scorer, name, config.batch_size)
        print(f"made {count} scores by {name} in the table score", file=sys.stderr)
        return
    with output(config.out) as out:
        count = sum(_score_file(file, scorer, config.batch_size, out) for file in config.files)
    where = f" into {config.out}" if config.out else ""
    print(f"scored {count} rows by {name}{where}", file=sys.stderr)
    if scorer.cut:
        print(
            f"{scorer.cut} texts were longer than the model takes and were cut: --max-length", file=sys.stderr
        )


def scored(rows: list[tuple[str, Row]], scorer: Scorer) -> list[Row]:
    """The rows with their rewards; `rows` are (where it stands, row), for the sentence about a bad one."""
    prompts: list[tuple[Message, ...]] = []
    texts: list[str] = []
    parts: list[tuple[Row, int | None]] = []
    for place, row in rows:
        try:
            prompt, answers, several = _read(row)
        except BadRow as error:
            raise UserError(f"{place}: {error}") from error
        prompts += [prompt] * len(answers)
        texts += answers
        parts.append((row, len(answers) if several else None))
    found = scorer.score_with_sd(prompts, texts)
    columns = {"reward": iter(found[0])}
    if found[1] is not None:
        columns["reward_std"] = iter(found[1])
    return [
        {**row, **{name: next(values) for name, values in columns.items()}}
        if count is None
        else {
            **row,
            **{_MANY[name]: [next(values) for _ in range(count)] for name, values in columns.items()},
        }
        for row, count in parts
    ]


def score_comparisons(project: Project, scorer: Scorer, run_id: str, batch_size: int) -> int:
    """Rewards of the project's completions that have none by this run yet; stored batch by batch."""
    with project.store() as store:
        rows = store.rows(_UNSCORED, [run_id])
    new = 0
    with tqdm(total=len(rows), unit="completion", disable=None, file=sys.stderr, leave=False) as bar:
        for some in batches(rows, batch_size):
            prompts = [json.loads(row["messages"]) for row in some]
            found, sds = scorer.score_with_sd(
                prompts, [row["text"] for row in some], [row["finish_reason"] for row in some]
            )
            table = pa.table(
                {
                    "completion_id": [row["id"] for row in some],
                    "run_id": [run_id] * len(some),
                    "mean": pa.array(found, pa.float64()),
                    "std": pa.nulls(len(some), pa.float64()) if sds is None else pa.array(sds, pa.float64()),
                }
            )
            with project.store() as store:
                new += store.add_table("score", table)
            bar.update(len(some))
    return new


def _score_file(file: Path, scorer: Scorer, batch_size: int, out: TextIO) -> int:
    name = "standard input" if str(file) == "-" else str(file)
    count = 0
    with tqdm(unit="row", desc=name, disable=None, file=sys.stderr, leave=False) as bar:
        for some in batches(_rows(file, name), batch_size):
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in scored(list(some), scorer))
            out.flush()
            count += len(some)
            bar.update(len(some))
    return count


def _rows(file: Path, name: str) -> Iterator[tuple[str, Row]]:
    payloads = _lines(sys.stdin) if str(file) == "-" else readers.rows(file)
    for line, payload in payloads:
        row = readers.parse_line(payload)
        if isinstance(row, readers.Unreadable):
            raise UserError(f"{name}, row {line}: {row.reason}")
        yield f"{name}, row {line}", row


def _lines(stream: TextIO) -> Iterator[tuple[int, readers.Payload]]:
    for line, text in enumerate(stream, 1):
        if text.strip():
            yield line, text.encode("utf-8", "surrogateescape")


def _read(row: Row) -> tuple[tuple[Message, ...], list[str], bool]:
    """(prompt, answers, whether the row holds a list of them)."""
    if not missing(row.get("messages")) and missing(row.get("prompt")):
        messages, answer = split_answer(conversation(row["messages"], "messages"), "messages")
        return prompt_of({"prompt": messages}), [answer], False
    several = first(row, "completions", "responses")
    if several is not None:
        if not isinstance(several, list) or not several:
            raise BadRow("completions must be a list of answers, with one at least")
        return prompt_of(row), [as_text(one, "a completion") for one in several], True
    return (
        prompt_of(row),
        [as_text(first(row, "completion", "response", "answer", "output"), "completion")],
        False,
    )


@contextmanager
def output(file: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that appears when it is whole."""
    if file is None:
        yield sys.stdout
        return
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=file.parent if file.parent.is_dir() else None, delete=False
    ) as part:
        try:
            yield part  # type: ignore[misc]
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise
    shutil.move(part.name, file)
