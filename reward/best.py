"""Best of n: sample n answers to a prompt and keep the one that scores highest.

    palate reward best -n 16                        # held-out prompts of the project, by the latest reward run
    best.of(loaded, scorer, prompts, n=16)          # the same for any prompts, in Python

The bar that a trained policy has to beat at the same distance: best of n moves at most log n - (n - 1) / n nats away
from the model (Stiennon et al. 2020, https://arxiv.org/abs/2009.01325, appendix G.3; an upper bound, Beirami et al. 2024,
https://arxiv.org/abs/2401.01879).
"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tqdm import tqdm

from palate.config import RewardBestConfig, UserError
from palate.data import readers
from palate.data.columns import batches
from palate.data.formats_item import BadRow, prompt_of
from palate.data.records import Message
from palate.generation import sample
from palate.hardware import probe
from palate.models import Loaded, load
from palate.project import Project
from palate.reward.scorers import Scorer, open_scorer
from palate.reward.scoring import output

AT_ONCE = 16  # prompts between two writes
BATCH = 128  # completions generated at once


@dataclass(frozen=True)
class Best:
    """The answer that scored highest, and all rewards in the order of sampling."""

    text: str
    reward: float
    rewards: tuple[float, ...]


def of(
    loaded: Loaded,
    scorer: Scorer,
    prompts: Sequence[Sequence[Message]],
    n: int = 16,
    temperature: float = 1.0,
    max_new_tokens: int = 96,
    seed: int = 0,
) -> list[Best]:
    """The best of n samples for each prompt; of equal ones the first."""
    if n < 1:
        raise UserError(f"n must be at least 1, got {n}")
    drawn = sample(loaded, prompts, n, temperature, 1.0, max_new_tokens, seed, BATCH)
    found = []
    for messages, answers in zip(prompts, drawn, strict=True):
        rewards = scorer.score(
            [messages] * n, [answer.text for answer in answers], [answer.finish_reason for answer in answers]
        )
        top = max(range(n), key=lambda i: rewards[i])
        found.append(Best(answers[top].text, rewards[top], tuple(rewards)))
    return found


def kl_bound(n: int) -> float:
    """Nats that best of n is away from the model, at most."""
    return math.log(n) - (n - 1) / n


def run(project: Project, config: RewardBestConfig) -> None:
    """Write prompt, best completion and its reward per prompt; figures go to standard error."""
    if config.n < 1:
        raise UserError(f"-n must be at least 1, got {config.n}")
    prompts = _prompts(project, config)
    hardware = probe(config.device, config.dtype)
    scorer, judge = open_scorer(project, config.reward, hardware, None, config.pessimism)
    latest = project.latest("sft")
    ref = config.model or (latest.id if latest else project.base)
    loaded = load(project, ref, hardware)
    print(
        f"best of {config.n} by {judge}, answers of {ref}, {len(prompts)} prompts ({hardware})",
        file=sys.stderr,
    )
    tops: list[float] = []
    every: list[float] = []
    with (
        output(config.out) as out,
        tqdm(total=len(prompts), unit="prompt", disable=None, file=sys.stderr, leave=False) as bar,
    ):
        for number, some in enumerate(batches(prompts, AT_ONCE)):
            seed = config.seed * 1_000_003 + number  # the same for the same prompts in the same order
            for messages, found in zip(
                some,
                of(loaded, scorer, some, config.n, config.temperature, config.max_new_tokens, seed),
                strict=True,
            ):
                row = {
                    "prompt": list(messages),
                    "completion": found.text,
                    "reward": found.reward,
                    "rewards": found.rewards,
                }
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
                tops.append(found.reward)
                every += found.rewards
            out.flush()
            bar.update(len(some))
    print(
        f"mean reward {sum(every) / len(every):+.2f}, of the best {sum(tops) / len(tops):+.2f}; "
        f"at most {kl_bound(config.n):.2f} nats from {ref}",
        file=sys.stderr,
    )


def _prompts(project: Project, config: RewardBestConfig) -> list[tuple[Message, ...]]:
    """From the file, or the held-out prompts of the project."""
    if config.prompts is None:
        with project.store() as store:
            rows = store.rows("SELECT messages FROM prompt WHERE split = 'test' ORDER BY id")
        found = [tuple(json.loads(row["messages"])) for row in rows]
        if not found:
            raise UserError("there are no held-out (test) prompts here: name a file of prompts")
        return found[: config.limit]
    readers.check_files((config.prompts,))
    found = []
    for line, payload in readers.rows(config.prompts):
        row = readers.parse_line(payload)
        try:
            if isinstance(row, readers.Unreadable):
                raise BadRow(row.reason)
            found.append(prompt_of(row))
        except BadRow as error:
            raise UserError(f"{config.prompts}, row {line}: {error}") from error
    if not found:
        raise UserError(f"{config.prompts} holds no prompts")
    return found[: config.limit]
