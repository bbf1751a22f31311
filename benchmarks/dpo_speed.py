"""Seconds of DPO training: `palate dpo` against TRL's DPOTrainer, on the same pairs, model, LoRA and steps.

    python benchmarks/dpo_speed.py [--quick]

One pair per prompt, eight pairs a step, LoRA of rank 16 on all linear layers. Seconds cover the reference's
log-probabilities and the optimiser steps, not imports or tokenization. TRL runs as a newcomer gets it on a CPU
(`default`: bf16 autocast, gradient checkpointing) and in its best setting for this machine (`best`: the fastest of
bf16 or float32 without checkpointing, reference computed beforehand or not). `memory` is peak memory, peer / ours.
"""

import sys
import tempfile
import time
from typing import Any

import preference_pairs as shared
from common import arguments, finish, in_turn, medians, tell

PAIRS, BATCH, VOCABULARY = 96, 8, 4096
PROMPT, COMPLETION = 70, 49  # mean tokens
PEERS: dict[str, dict[str, bool]] = {
    "default": {},
    "bf16": {"gradient_checkpointing": False},
    "bf16_precomputed": {"gradient_checkpointing": False, "precompute_ref_log_probs": True},
    "fp32": {"gradient_checkpointing": False, "bf16": False},
    "fp32_precomputed": {"gradient_checkpointing": False, "bf16": False, "precompute_ref_log_probs": True},
}


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
    pair = {"winner": 0, "loser": 1, "tie": False, "weight": 1.0}
    start = time.perf_counter()
    steps = batches(len(rows), BATCH, 1, seed=0)
    budget = token_budget(model.config, hardware)
    plain = TreeForward.of(model, hardware)
    objective = Objective(beta=0.1)
    known = dpo.prepare(plain, [{"pairs": [pair]}] * len(rows), trees, steps, budget, objective)
    forward = replace(plain, model=lora(model, 16, 32, seed=0))
    history = dpo.optimise(forward, known, steps, 1e-4, objective, budget, lambda *_, **__: None)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "steps": len(history), "first_loss": history[0]["loss"]}


def peer(model: Any, rows: list[dict[str, Any]], settings: dict[str, bool]) -> dict[str, float]:
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
            "chosen": " " + shared.words(row["completions"][0][:-1]),  # the trainer adds eos itself
            "rejected": " " + shared.words(row["completions"][1][:-1]),
        }
        for row in rows
    ]
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder, use_cpu=True, per_device_train_batch_size=BATCH, num_train_epochs=1, learning_rate=1e-4,
            save_strategy="no", disable_tqdm=True, logging_steps=1, report_to="none", **settings,
        )  # fmt: skip
        trainer = Timed(
            model, args=config, train_dataset=Dataset.from_list(texts), processing_class=shared.tokenizer(VOCABULARY),
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
    """Every side in turn, and the ratios."""
    given = arguments("DPO: palate against TRL")
    pairs = 2 * BATCH if given.quick else PAIRS
    if given.side:
        model = shared.tiny_llama(VOCABULARY)
        rows = shared.random_rankings(pairs, 2, PROMPT, COMPLETION, VOCABULARY)
        tell(ours(model, rows) if given.side == "ours" else peer(model, rows, PEERS[given.side]))
        return
    found = in_turn(__file__, ["ours", *PEERS], given.repeats, *(["--quick"] if given.quick else []))
    mine = medians(found["ours"])
    theirs = {side: medians(found[side]) for side in PEERS}
    best = min((side for side in PEERS if side != "default"), key=lambda side: theirs[side]["seconds"])
    if theirs["default"]["seconds"] < theirs[best]["seconds"]:
        best = "default"
    finish(
        "dpo_speed",
        {
            "default": theirs["default"]["seconds"] / mine["seconds"],
            "best": theirs[best]["seconds"] / mine["seconds"],
            "memory": theirs["default"]["peak_rss_mb"] / mine["peak_rss_mb"],
            "memory_best": theirs[best]["peak_rss_mb"] / mine["peak_rss_mb"],
        },
        {"default": mine},
        {**theirs, "best": theirs[best]},
        {
            "pairs": pairs, "batch": BATCH, "prompt": PROMPT, "completion": COMPLETION, "best_setting": best,
            "model": f"Llama 6 x 256, vocabulary {VOCABULARY}", "lora": "rank 16, all linear", "repeats": given.repeats,
        },
    )  # fmt: skip
    if len({round(side["steps"]) for side in [mine, *theirs.values()]}) > 1:
        sys.exit("the sides did not take the same number of steps")


if __name__ == "__main__":
    main()
