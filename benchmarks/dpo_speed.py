"""Seconds of DPO training: `palate dpo` against TRL's DPOTrainer, on the same pairs, model, LoRA and steps.

    python benchmarks/dpo_speed.py [--quick]

Cases: `k2` (one pair per prompt, as `default` and `best`), `k4` (rankings of four, six pairs each: one tree for us, six rows for
TRL), `k4_32k` (the same with a vocabulary of 32,000, against TRL's default), `k4_100m` (97M weights, one step). Eight prompts a
step, LoRA of rank 16 on all linear layers. Losses of the first step are compared too. Seconds cover the reference's
log-probabilities and the optimiser steps, not imports or tokenization. TRL runs as a newcomer gets it on a CPU
(`default`: bf16 autocast, gradient checkpointing) and in its best setting for this machine (`best`: the fastest of
bf16 or float32 without checkpointing, reference computed beforehand or not). A CPU without bfloat16 emulates it, some twenty
times slower: there `default` is float32 too, which favours the peer, and the bfloat16 settings are left out. `memory` is peak memory, peer / ours.
"""

import math
import sys
import tempfile
import time
from itertools import combinations
from typing import Any, NamedTuple

import preference_pairs as shared
from common import arguments, finish, has_bfloat16, in_turn, medians, tell

BATCH = 8  # prompts a step
PROMPT, COMPLETION = 70, 49  # mean tokens
PEERS: dict[str, dict[str, bool]] = {
    "default": {},
    "default_fp32": {"bf16": False},
    "bf16": {"gradient_checkpointing": False},
    "bf16_precomputed": {"gradient_checkpointing": False, "precompute_ref_log_probs": True},
    "fp32": {"gradient_checkpointing": False, "bf16": False},
    "fp32_precomputed": {"gradient_checkpointing": False, "bf16": False, "precompute_ref_log_probs": True},
}


class Case(NamedTuple):
    """What is measured."""

    k: int
    prompts: int
    vocabulary: int
    large: bool
    peers: tuple[str, ...]


CASES = {
    "k2": Case(2, 96, 4096, False, ("default", "bf16", "bf16_precomputed", "fp32", "fp32_precomputed")),
    "k4": Case(4, 64, 4096, False, ("default", "bf16_precomputed", "fp32_precomputed")),
    "k4_32k": Case(4, 16, 32_000, False, ("default",)),
    "k4_100m": Case(4, 8, 16_000, True, ("default", "bf16_precomputed", "fp32_precomputed")),
}


def peers_of(case: Case) -> list[str]:
    """The settings of TRL that this machine is asked to run; its default first."""
    if has_bfloat16():
        return list(case.peers)
    return ["default_fp32", *(side for side in case.peers if side.startswith("fp32"))]


def ours(model: Any, rows: list[dict[str, Any]]) -> dict[str, float]:
    """The functions `palate dpo` calls, from the moment its rows are encoded."""
    from dataclasses import replace

    from palate.hardware import probe
    from palate.models import lora
    from palate.rl import dpo
    from palate.rl.objective import Objective
    from palate.sequences import EncodedTree
    from palate.training import batches, token_budget
    from palate.tree import TreeForward

    hardware = probe("cpu", "auto")
    trees = [EncodedTree(row["prompt"], row["completions"], 0, 0) for row in rows]
    k = len(rows[0]["completions"])
    pairs = [{"winner": i, "loser": j, "tie": False, "weight": 1.0} for i, j in combinations(range(k), 2)]
    start = time.perf_counter()
    steps = batches(len(rows), BATCH, 1, seed=0)
    budget = token_budget(model.config, hardware)
    plain = TreeForward.of(model, hardware)
    objective = Objective(beta=0.1)
    known = dpo.prepare(plain, [{"pairs": pairs}] * len(rows), trees, steps, budget, objective)
    forward = replace(plain, model=lora(model, 16, 32, seed=0))
    history = dpo.optimise(forward, known, steps, 1e-4, objective, budget, lambda *_, **__: None)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "steps": len(history), "first_loss": history[0]["loss"]}


def peer(
    model: Any, rows: list[dict[str, Any]], vocabulary: int, settings: dict[str, bool]
) -> dict[str, float]:
    """TRL's trainer on the same token ids, spelled as words."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    spent = [0.0]

    class Timed(DPOTrainer):  # type: ignore[misc] # the reference pass happens while the trainer is built
        def _precompute_ref_logps(self, *more: Any) -> Any:
            start = time.perf_counter()
            result = super()._precompute_ref_logps(*more)
            spent.append(time.perf_counter() - start)
            return result

    texts = [
        {
            "prompt": shared.words(row["prompt"]),
            "chosen": " " + shared.words(better[:-1]),  # the trainer adds eos itself
            "rejected": " " + shared.words(worse[:-1]),
        }
        for row in rows
        for better, worse in combinations(row["completions"], 2)
    ]
    each = len(texts) // len(rows)
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder, use_cpu=True, per_device_train_batch_size=BATCH, gradient_accumulation_steps=each, num_train_epochs=1, learning_rate=1e-4,
            save_strategy="no", disable_tqdm=True, logging_steps=1, report_to="none", **settings,
        )  # fmt: skip
        trainer = Timed(
            model, args=config, train_dataset=Dataset.from_list(texts), processing_class=shared.tokenizer(vocabulary),
            peft_config=shared.lora_config("CAUSAL_LM"),
        )  # fmt: skip
        first = trainer.train_dataset[0]
        assert first["prompt_ids"] + first["chosen_ids"] == rows[0]["prompt"] + rows[0]["completions"][0]
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start + sum(spent)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"seconds": seconds, "steps": trainer.state.global_step, "first_loss": losses[0]}


def main() -> None:
    """Every case, every side in turn, and the ratios."""
    given = arguments("DPO: palate against TRL")
    if given.side:
        case = CASES[given.case]
        prompts = 2 * BATCH if given.quick else case.prompts
        model = shared.tiny_llama(case.vocabulary, case.large and not given.quick)
        rows = shared.random_rankings(prompts, case.k, PROMPT, COMPLETION, case.vocabulary)
        mine = given.side == "ours"
        tell(ours(model, rows) if mine else peer(model, rows, case.vocabulary, PEERS[given.side]))
        return
    ratios: dict[str, float] = {}
    told: dict[str, dict[str, Any]] = {"ours": {}, "peer": {}}
    best_settings = {}
    for name in [given.case] if given.case else CASES:
        case = CASES[name]
        peers = peers_of(case)
        flags = ["--case", name, *(["--quick"] if given.quick else [])]
        found = in_turn(__file__, ["ours", *peers], 1 if case.large else given.repeats, *flags)
        sides = {side: medians(runs) for side, runs in found.items()}
        best = min(peers, key=lambda side: sides[side]["seconds"])
        prefix = "" if name == "k2" else f"{name.replace('_32k', '')}_"
        after = "_32k" if name.endswith("_32k") else ""
        for label, side in (("default", peers[0]), ("best", best)):
            if label == "best" and len(peers) == 1:
                continue
            key = f"{prefix}{label}{after}"
            ratios[key] = sides[side]["seconds"] / sides["ours"]["seconds"]
            told["ours"][key], told["peer"][key] = sides["ours"], sides[side]
        if name == "k2":
            ratios["memory"] = sides[peers[0]]["peak_rss_mb"] / sides["ours"]["peak_rss_mb"]
            ratios["memory_best"] = sides[best]["peak_rss_mb"] / sides["ours"]["peak_rss_mb"]
        best_settings[name] = best
        if len({round(side["steps"]) for side in sides.values()}) > 1:
            sys.exit(f"{name}: the sides did not take the same number of steps")
        if max(abs(side["first_loss"] - math.log(2)) for side in sides.values()) > 5e-3:
            sys.exit(f"{name}: a side's first loss is not ln 2")
    finish(
        "dpo_speed", ratios, told["ours"], told["peer"],
        {"batch": BATCH, "prompt": PROMPT, "completion": COMPLETION, "best_settings": best_settings,
         "lora": "rank 16, all linear", "repeats": given.repeats},
    )  # fmt: skip


if __name__ == "__main__":
    main()
