"""`palate sample`: k different completions for each prompt, and one comparison over them.

Several models and temperatures take turns within a prompt, so that the answers to rank differ. Exact duplicates
and empty answers are sampled again, a few times. Everything is stored chunk by chunk with its model, settings and
seed; Ctrl-C keeps the finished chunks. It does not choose which comparison is worth a vote.

    palate sample -k 4 --models sft-1 dpo-1 --temperature 0.7 1.0
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from palate.config import POLICIES, SampleConfig, UserError, as_dict
from palate.data.records import Comparison, Completion, Message, Run, digest
from palate.generation import Sampled, sample
from palate.hardware import probe
from palate.models import is_run, load
from palate.project import Project
from palate.served_model import ServedModel, is_address

ROUNDS = 4  # the first pass, and up to three more for duplicates and empty answers
MIN_CHARACTERS = 2  # shorter answers are not worth ranking
BATCHES_PER_CHUNK = 4  # what Ctrl-C may lose at most

Writers = dict[str, Callable[..., list[list[Sampled]]]]  # by model: palate.generation.sample, or a server's

_PROMPTS = """
SELECT p.id, p.messages
FROM prompt p LEFT JOIN (SELECT prompt_id, count(*) AS n FROM comparison GROUP BY prompt_id) c ON c.prompt_id = p.id
WHERE (? = 'all' OR p.split = ?) AND (? IS NULL OR p.source = ?)
ORDER BY coalesce(c.n, 0), p.id
LIMIT ?
"""


@dataclass(frozen=True)
class Arm:
    """One way to sample: which model at which temperature."""

    model: str
    temperature: float


@dataclass(frozen=True)
class Task:
    """One prompt to answer."""

    id: str
    messages: tuple[Message, ...]


def run(project: Project, config: SampleConfig) -> Run:
    """Sample, store, and say what came of it."""
    if not 2 <= config.k <= 9:
        raise UserError(f"-k {config.k}: a comparison takes 2 to 9 completions")
    if any(not 2 <= size <= config.k for size in config.rank):
        raise UserError(f"--rank takes 2 to -k ({config.k}), got {' '.join(map(str, config.rank))}")
    models = config.models or (_latest_model(project),)
    arms = [Arm(model, temperature) for temperature in config.temperature for model in models]
    tasks = _choose_prompts(project, config)
    parents = [model for model in models if is_run(project, model)]
    with project.start("sample", as_dict(config), parents, config.seed) as active:
        active.freeze("prompts", pa.table({"prompt_id": [task.id for task in tasks]}))
        hardware = probe(config.device, config.dtype)
        local = {model: load(project, model, hardware) for model in models if not is_address(model)}
        if local:
            active.update(template_hash=next(iter(local.values())).encoder.template_hash)
        writers: Writers = {model: partial(sample, loaded) for model, loaded in local.items()}
        writers |= {model: ServedModel(model).sample for model in models if is_address(model)}
        names = ", ".join(models)
        print(
            f"{active.id}: {config.k} completions for each of {len(tasks)} prompts from {names} ({hardware})"
        )

        counts: Counter[str] = Counter()
        start = time.perf_counter()
        size = max(1, BATCHES_PER_CHUNK * config.batch_size // config.k)
        with tqdm(total=len(tasks) * config.k, unit="completion", disable=None) as bar:
            for first in range(0, len(tasks), size):
                chunk = tasks[first : first + size]
                answers = _answer(writers, arms, chunk, config, first, active.id, counts, bar.update)
                _save(project, chunk, answers, active.id, counts, config.rank)
        active.metrics(**_figures(counts, time.perf_counter() - start))
    _report(active.record, config, counts)
    return active.record


def _answer(
    writers: Writers,
    arms: list[Arm],
    tasks: list[Task],
    config: SampleConfig,
    first: int,
    run_id: str,
    counts: Counter[str],
    progress: Callable[[int], object],
) -> list[list[Completion]]:
    """Up to k different completions for each task; what is missing after the last round stays missing."""
    found: list[dict[str, Completion]] = [{} for _ in tasks]
    # slot j of prompt i belongs to arm i * k + j, in turn, also when there are more arms than k
    slots = [
        [arms[((first + i) * config.k + j) % len(arms)] for j in range(config.k)] for i in range(len(tasks))
    ]
    for attempt in range(ROUNDS):
        again: list[list[Arm]] = [[] for _ in tasks]
        tell = progress if attempt == 0 else None  # the bar counts slots, not attempts
        for i, arm, seed, drawn in _draw(writers, tasks, slots, config, (first, attempt), tell):
            text = drawn.text.strip()
            counts["tokens"] += len(drawn.token_ids)
            counts["sampled"] += 1
            if len(text) < MIN_CHARACTERS or text in found[i]:
                counts["empty" if len(text) < MIN_CHARACTERS else "duplicates"] += 1
                again[i].append(arm)
                continue
            settings = {
                "temperature": arm.temperature,
                "top_p": config.top_p,
                "max_new_tokens": config.max_new_tokens,
            }
            found[i][text] = Completion(
                tasks[i].id, drawn.text, arm.model, settings, seed, drawn.finish_reason,
                meta={"tokens": len(drawn.token_ids)}, run_id=run_id,
            )  # fmt: skip
        slots = again
        if not any(slots):
            break
    return [list(answers.values()) for answers in found]


def _draw(
    writers: Writers,
    tasks: list[Task],
    slots: list[list[Arm]],
    config: SampleConfig,
    place: tuple[int, int],
    progress: Callable[[int], object] | None,
) -> Iterator[tuple[int, Arm, int, Sampled]]:
    """(task, arm, seed, completion) for every slot; one call samples the prompts that want equally many of an arm."""
    calls: dict[tuple[Arm, int], list[int]] = {}
    for i, wanted in enumerate(slots):
        for arm, n in Counter(wanted).items():
            calls.setdefault((arm, n), []).append(i)
    for (arm, n), members in calls.items():
        seed = int(digest(config.seed, place, arm.model, arm.temperature, n)[:12], 16)
        rows = writers[arm.model](
            [tasks[i].messages for i in members], n, arm.temperature, config.top_p,
            config.max_new_tokens, seed, config.batch_size, progress,
        )  # fmt: skip
        for i, row in zip(members, rows, strict=True):
            for drawn in row:
                yield i, arm, seed, drawn


def _save(
    project: Project,
    tasks: list[Task],
    answers: list[list[Completion]],
    run_id: str,
    counts: Counter[str],
    sizes: Sequence[int],
) -> None:
    """One transaction: the completions of a chunk and their comparisons; the file is closed again at once."""
    completions = [completion for row in answers for completion in row]
    comparisons = [
        Comparison(task.id, tuple(c.id for c in shown), strategy="random", propensity=1.0, run_id=run_id)
        for task, row in zip(tasks, answers, strict=True)
        for shown in _sets(row, sizes)
    ]
    with project.store() as store:
        new, new_comparisons = store.add_all(completions, comparisons)
    counts["known"] += len(completions) - new
    counts["new_comparisons"] += new_comparisons
    counts["completions"] += new
    counts["stopped"] += sum(c.finish_reason == "stop" for c in completions)
    counts["kept"] += len(completions)
    counts["prompts"] += len(tasks)
    counts["without_comparison"] += len(tasks) - len({one.prompt_id for one in comparisons})


def _sets(row: Sequence[Completion], sizes: Sequence[int]) -> Iterator[tuple[Completion, ...]]:
    """What is shown together of a prompt's completions: all of them, or every subset of these sizes."""
    for size in sorted(set(sizes)) or ([len(row)] if len(row) >= 2 else []):
        yield from combinations(row, size)


def _choose_prompts(project: Project, config: SampleConfig) -> list[Task]:
    """Prompts of the split, those without a comparison first."""
    limit = config.limit if config.limit is not None else 2**62
    with project.store() as store:
        some = [config.split, config.split, config.source, config.source, limit]
        rows = store.rows(_PROMPTS, some)
        if not rows:
            sources = [str(r["source"]) for r in store.rows("SELECT DISTINCT source FROM prompt ORDER BY 1")]
            where = f" from source '{config.source}' (known: {', '.join(sources)})" if config.source else ""
            raise UserError(
                f"there are no prompts in split '{config.split}'{where}; palate import FILE brings some"
            )
    return [Task(str(row["id"]), tuple(json.loads(row["messages"]))) for row in rows]


def _latest_model(project: Project) -> str:
    latest = project.latest("sft", *POLICIES)
    return project.base if latest is None else latest.id


def _figures(counts: Counter[str], seconds: float) -> dict[str, Any]:
    kept = max(1, counts["kept"])
    return {
        "prompts": counts["prompts"],
        "completions": counts["completions"],
        "comparisons": counts["new_comparisons"],
        "duplicates": counts["duplicates"],
        "empty": counts["empty"],
        "stop_rate": round(counts["stopped"] / kept, 4),
        "mean_tokens": round(counts["tokens"] / max(1, counts["sampled"]), 1),
        "tokens_per_second": round(counts["tokens"] / max(seconds, 1e-9)),
    }


def _report(record: Run, config: SampleConfig, counts: Counter[str]) -> None:
    figures = record.metrics
    print(
        f"made {figures['completions']} completions and {figures['comparisons']} comparisons "
        f"({figures['mean_tokens']} tokens each, {figures['stop_rate']:.0%} ended by themselves, "
        f"{figures['tokens_per_second']} tokens/s)"
    )
    if counts["known"]:
        print(f"{counts['known']} completions were known already; another --seed gives new ones")
    short = counts["prompts"] * config.k - counts["kept"]
    if short:
        print(
            f"{short} completions are missing: after {ROUNDS} rounds the model still repeated itself "
            f"({counts['duplicates']} times) or wrote nothing ({counts['empty']} times); raise --temperature"
        )
    if counts["without_comparison"]:
        print(
            f"{counts['without_comparison']} prompts have no comparison: fewer than two different completions"
        )
    if figures["stop_rate"] < 0.9:
        print("many completions were cut by --max-new-tokens: raise it, or train longer so that answers end")
    print("next: palate label")
