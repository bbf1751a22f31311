"""What a comparison shows: its prompt and answers, read in bulk, screened, and kept at hand.

Texts are read for many comparisons at once (the ones that will probably be drawn next), in the background. Screening happens here, before anything is served (`filters`).
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import duckdb

from palate.data.columns import TABLE
from palate.data.records import Comparison, Completion, Message, Prompt
from palate.data.store import Store
from palate.labeling import filters

AT_HAND = 2_000  # comparisons whose texts stay in memory
EVERY = 64  # so many contents are handed out between two looks ahead


@dataclass(frozen=True)
class Content:
    """A comparison with its texts, and which answers are shown."""

    comparison: Comparison
    prompt: Prompt
    completions: tuple[Completion, ...]  # in the comparison's canonical order
    shown: tuple[str, ...]  # completion ids without answers that repeat another one
    withheld: tuple[str, str] | None  # (identity | duplicate, detail): why it is not shown at all

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation."""
        return self.prompt.messages

    def texts(self) -> dict[str, str]:
        """Completion id -> text."""
        return {completion.id: completion.text for completion in self.completions}


class Shelf:
    """The contents that were read lately, and those that will probably be wanted soon.

    Reading and screening a few hundred contents takes longer than a vote, so that is done by a thread of its own;
    who needs one that is not there yet reads that one.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Content] = OrderedDict()
        self._reader = ThreadPoolExecutor(1, "palate-shelf")
        self._reading = False
        self._since = EVERY  # contents handed out since the last look ahead

    def close(self) -> None:
        """End the thread."""
        self._reader.shutdown(cancel_futures=True)

    def get(self, comparison_id: str) -> Content | None:
        """The content of a comparison; None when there is none, or its texts are missing."""
        with self._lock:
            found = self._kept.get(comparison_id)
            if found is not None:
                self._kept.move_to_end(comparison_id)
                return found
        for found in read(self._store, [comparison_id]):
            self.put(found)
        return found

    def ahead(self, soon: Callable[[], Iterable[str]]) -> None:
        """Read in the background what will be wanted soon; every so often, and never twice at a time."""
        self._since += 1
        if self._reading or self._since < EVERY:
            return
        with self._lock:
            wanted = [name for name in soon() if name not in self._kept]
        self._since = 0
        if wanted:
            self._reading = True
            self._reader.submit(self._read, wanted)

    def put(self, content: Content, new: bool = True) -> None:
        """Keep a content; the one that was used least lately goes. Unless `new`, one that is here already stays."""
        with self._lock:
            if new or content.comparison.id not in self._kept:
                self._kept[content.comparison.id] = content
            while len(self._kept) > AT_HAND:
                self._kept.popitem(last=False)

    def _read(self, wanted: Sequence[str]) -> None:
        try:
            for first in range(0, len(wanted), 64):
                for found in read(self._store, wanted[first : first + 64]):
                    self.put(found, new=False)  # meanwhile it may have been given out, and marked so
        except duckdb.Error:
            return  # the database is going down or being opened again: who needs a content reads it
        finally:
            self._reading = False


def read(store: Store, comparison_ids: Sequence[str]) -> list[Content]:
    """The contents of these comparisons, screened; one whose texts are missing is left out."""
    comparisons: list[Comparison] = _records(store, Comparison, comparison_ids)
    prompts: list[Prompt] = _records(store, Prompt, list({c.prompt_id for c in comparisons}))
    wanted = {name for c in comparisons for name in c.completion_ids}
    completions: list[Completion] = _records(store, Completion, list(wanted))
    texts = {completion.id: completion for completion in completions}
    questions = {prompt.id: prompt for prompt in prompts}
    return [
        content(c, questions[c.prompt_id], tuple(texts[name] for name in c.completion_ids))
        for c in comparisons
        if c.prompt_id in questions and all(name in texts for name in c.completion_ids)
    ]


def content(comparison: Comparison, prompt: Prompt, completions: tuple[Completion, ...]) -> Content:
    """A comparison and its texts, screened: repeated answers are left out, and if fewer than two remain or one
    says who wrote it, the whole is withheld. Gold questions and repeats are shown as they are."""
    shown = tuple(completion.id for completion in completions)
    if comparison.purpose in ("gold", "repeat"):
        return Content(comparison, prompt, completions, shown, None)
    for completion in completions:
        if leak := filters.identity_leak(completion.text):
            return Content(comparison, prompt, completions, shown, ("identity", leak))
    kept = filters.distinct([completion.text for completion in completions])
    if len(kept) < 2:
        return Content(comparison, prompt, completions, shown, ("duplicate", "the answers are the same"))
    return Content(comparison, prompt, completions, tuple(completions[i].id for i in kept), None)


def _records(store: Store, kind: type[Any], ids: Sequence[str]) -> list[Any]:
    sql = f"SELECT * FROM {TABLE[kind]} WHERE id IN (SELECT unnest(?))"
    return [_record(kind, row) for row in store.rows(sql, [list(ids)])]


def _record(kind: type, row: dict[str, Any]) -> Any:
    values = {f.name: row[f.name] for f in fields(kind)}
    for name in {"messages", "meta", "sampling"} & values.keys():
        values[name] = json.loads(values[name])
    for name in {"messages", "tags", "completion_ids"} & values.keys():
        values[name] = tuple(values[name])
    return kind(**values)
