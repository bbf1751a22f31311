"""PPO: episodes a second and memory against TRL 1.12's PPOTrainer, the last release that has one.

`episodes`: the fine-tuned built-in model with LoRA on all linear layers, the same prompts, 64 episodes a rollout (one answer
to each prompt), at most 64 tokens, 2 minibatches, 2 epochs, the same reward (a reward run; for TRL merged into a
sequence-classification model), the same learning rate (of our value's adapter five times that, as `palate ppo` has it; TRL's value trains whole). `episodes_k4`: ours with four answers to each of a quarter of the
prompts. `reward`: the mean score of the last rollouts, start 0; every repeat has a seed of its own. `memory`: a random Llama of 106M weights, 16 episodes, peak
memory above the interpreter with its libraries. `memory_vs_sft`: our LoRA fine-tuning of it on as many tokens at once.

    python benchmarks/ppo_speed.py [--quick] [--repeats 3]

TRL runs in an environment of its own, made at the first call; it runs as it is best on this CPU: float32 or bfloat16,
whichever is faster (float32 alone where the CPU has no bfloat16), without gradient checkpointing.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from common import arguments, finish, has_bfloat16, in_turn, medians, own_environment, peak_bytes, tell

EPISODES, TOKENS, MINIBATCHES, EPOCHS, RATE, KL = 64, 64, 2, 2, 1e-3, 0.05
RANK = 16
FIRST_SEED = 10  # how the value's head starts was chosen on seeds 0 to 5
LAST = 3  # rollouts that `reward` is the mean of
PEER = "trl==1.12.0"
BIG = {
    "vocab_size": 16_000, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12,
    "num_attention_heads": 12, "num_key_value_heads": 12, "max_position_embeddings": 1024,
}  # fmt: skip


def main() -> None:
    given = arguments(__doc__.splitlines()[0])
    given.seed += FIRST_SEED
    if given.side:
        steps = 3 if given.quick else 12
        {"ours": ours, "ours_k4": ours, "trl": trl, "trl_bf16": trl, "sft": sft}[given.side](given, steps)
        return
    peer = own_environment("trl-1.12.0", PEER)
    quick = ["--quick"] if given.quick else []
    python = {"trl": peer, "trl_bf16": peer}
    peers = ["trl", "trl_bf16"] if has_bfloat16() else ["trl"]
    with tempfile.TemporaryDirectory() as place:
        prepare(Path(place), given.quick)
        speed = in_turn(
            __file__, ["ours", "ours_k4", *peers], given.repeats, "--folder", place, "--case", "small", *quick,
            python=python,
        )  # fmt: skip
        memory = in_turn(
            __file__, ["ours", "trl", "sft"], 1, "--folder", place, "--case", "big", *quick, python=python
        )
    fast = {side: medians(runs) for side, runs in speed.items()}
    big = {side: medians(runs) for side, runs in memory.items()}
    best = min(peers, key=lambda side: fast[side]["seconds_per_episode"])
    cost = {side: one["seconds_per_episode"] for side, one in fast.items()}
    ratios = {
        "episodes": cost[best] / cost["ours"],
        "episodes_k4": cost[best] / cost["ours_k4"],
        "memory": big["trl"]["memory_mb"] / big["ours"]["memory_mb"],
        "memory_vs_sft": big["sft"]["memory_mb"] / big["ours"]["memory_mb"],
    }
    finish(
        "ppo_speed", ratios,
        {"episodes": fast["ours"], "episodes_k4": fast["ours_k4"], "memory": big["ours"], "memory_vs_sft": big["ours"]},
        {"episodes": fast[best], "episodes_k4": fast[best], "memory": big["trl"], "memory_vs_sft": big["sft"]},
        {"episodes_per_rollout": EPISODES, "tokens": TOKENS, "repeats": given.repeats, "quick": given.quick, "peer": PEER, "peer_side": best},
        rewards={side: [run["reward"] for run in runs] for side, runs in speed.items()},
    )  # fmt: skip


def prepare(folder: Path, quick: bool) -> None:
    """A fine-tuned model, a reward on it, the same reward as a classifier; and a large random model."""
    from one_hour import start
    from transformers import LlamaConfig, LlamaForCausalLM

    from palate.builtin import __path__ as builtin
    from palate.config import RewardConfig, SimulateConfig
    from palate.hardware import probe
    from palate.labeling import simulate
    from palate.models import load, save_model
    from palate.reward import train as reward
    from palate.reward.model import RewardModel

    project = start(folder / "project", 40 if quick else 300, 4, 0, quick)
    simulate.run(project, SimulateConfig(project.folder, "vivid"))
    reward.run(project, RewardConfig(project.folder, learning_curve=False))
    with project.store() as store:
        rows = store.rows(
            "SELECT messages FROM prompt WHERE source = 'ideas.jsonl' AND split = 'train' ORDER BY id"
        )
    (folder / "prompts.json").write_text(json.dumps([json.loads(row["messages"]) for row in rows]))
    start_model, judge = project.folder / "runs/sft-1/model", project.folder / "runs/reward-1/reward"
    (folder / "small").symlink_to(start_model)
    (folder / "small_reward").symlink_to(judge)
    _classifier(folder / "small_classifier", start_model, judge)

    torch.manual_seed(0)
    size = {**BIG, "hidden_size": 96, "intermediate_size": 128, "num_hidden_layers": 2} if quick else BIG
    loaded = load(None, str(Path(builtin[0])), probe("cpu", "float32"))
    loaded.model = LlamaForCausalLM(LlamaConfig(**size, bos_token_id=1, eos_token_id=2, pad_token_id=0))
    loaded.model.lm_head.weight.data[2] = 0  # a random model's end token comes by chance
    save_model(loaded, folder / "big")
    big = load(None, str(folder / "big"), probe("cpu", "float32"))
    RewardModel.new(big, "lora", 512, 0, RANK).save(folder / "big_reward")
    _classifier(folder / "big_classifier", folder / "big", folder / "big_reward")


def _classifier(target: Path, base: Path, judge: Path) -> None:
    """The reward as TRL takes it: one merged model; its score is ours up to a constant."""
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    causal = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    merged = PeftModel.from_pretrained(causal, str(judge)).merge_and_unload()
    model = AutoModelForSequenceClassification.from_pretrained(str(base), num_labels=1, dtype=torch.float32)
    model.model.load_state_dict(merged.model.state_dict())
    scale = json.loads((judge / "reward.json").read_text())["std"]
    model.score.weight.data.copy_(load_file(judge / "head.safetensors")["weight"] / scale)
    model.config.pad_token_id = 0
    model.save_pretrained(str(target))
    AutoTokenizer.from_pretrained(str(base)).save_pretrained(str(target))


def settings(given: Any, steps: int) -> tuple[int, int, int]:
    """(episodes of a rollout, rollouts, tokens)."""
    if given.case == "big":
        return 16, 2, 48
    return (16, steps, 16) if given.quick else (EPISODES, steps, TOKENS)


def ours(given: Any, steps: int) -> None:
    """The loop of `palate ppo` without the run around it."""
    from palate.config import PpoConfig
    from palate.hardware import probe
    from palate.models import load
    from palate.rl.guards import Guard
    from palate.rl.ppo import Ppo
    from palate.rl.ppo_train import VALUE_TIMES
    from palate.rl.rewards import OnBase, Part, Rewards
    from palate.rl.roles import POLICY, VALUE, Roles

    episodes, rollouts, tokens = settings(given, steps)
    bare = psutil.Process().memory_info().rss
    prompts = json.loads((given.folder / "prompts.json").read_text())
    loaded = load(None, str(given.folder / given.case), probe("cpu", "auto"))
    config = PpoConfig(
        steps=rollouts, batch_size=episodes, k=4 if given.side == "ours_k4" else 1, minibatches=MINIBATCHES,
        ppo_epochs=EPOCHS, max_new_tokens=tokens, value_warmup=0, target_kl=None, guard="off", kl=KL, seed=given.seed,
    )  # fmt: skip
    judge = given.folder / f"{given.case}_reward"
    roles = Roles.adapters(loaded, RANK, given.seed, judge, config.value_layers)
    rewards = Rewards((Part("reward", 1.0),), (OnBase(),))
    ppo = Ppo(
        roles, rewards, prompts, config, {POLICY: RATE, VALUE: VALUE_TIMES * RATE}, Guard("off", 5, None)
    )
    began = time.perf_counter()
    history = ppo.optimise(lambda *_, **__: None)
    seconds = time.perf_counter() - began
    scores = [row["reward"] for row in history[-LAST:]]
    told(seconds, episodes * rollouts, sum(scores) / len(scores), bare)


def trl(given: Any, steps: int) -> None:
    """TRL's trainer, with four models."""
    import copy

    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    from palate.sequences import Encoder

    episodes, rollouts, tokens = settings(given, steps)
    bare = psutil.Process().memory_info().rss
    place, case = given.folder, given.case
    tokenizer = AutoTokenizer.from_pretrained(str(place / case), padding_side="left")
    encoder = Encoder(tokenizer, [2])
    prompts = json.loads((place / "prompts.json").read_text())
    data = Dataset.from_dict({"input_ids": [encoder.prompt(prompt) for prompt in prompts]})
    judge = AutoModelForSequenceClassification.from_pretrained(
        str(place / f"{case}_classifier"), dtype=torch.float32
    )
    policy = AutoModelForCausalLM.from_pretrained(str(place / case), dtype=torch.float32)
    shift = json.loads((place / f"{case}_reward" / "reward.json").read_text())
    torch.manual_seed(given.seed)  # of the adapter, too
    with tempfile.TemporaryDirectory() as scratch:
        trainer = PPOTrainer(
            args=PPOConfig(
                output_dir=scratch, use_cpu=True, bf16=given.side == "trl_bf16", gradient_checkpointing=False,
                per_device_train_batch_size=episodes, gradient_accumulation_steps=1,
                num_mini_batches=MINIBATCHES, num_ppo_epochs=EPOCHS, total_episodes=episodes * rollouts,
                response_length=tokens, stop_token_id=encoder.stop_ids[0], temperature=1.0, learning_rate=RATE,
                missing_eos_penalty=1.0, kl_coef=KL, num_sample_generations=0, save_strategy="no", report_to="none",
                logging_steps=1, disable_tqdm=True, seed=given.seed,
            ),
            processing_class=tokenizer, model=policy, ref_model=None, reward_model=judge, value_model=copy.deepcopy(judge),
            train_dataset=data, eval_dataset=data.select(range(min(8, len(data)))),
            peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"),
        )  # fmt: skip
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
    found = [row["objective/scores"] for row in trainer.state.log_history if "objective/scores" in row][
        -LAST:
    ]
    # the penalty of what did not end is part of TRL's score; ours is told without it, and shifted by the mean
    told(seconds, episodes * rollouts, sum(found) / max(1, len(found)) - shift["mean"] / shift["std"], bare)


def sft(given: Any, steps: int) -> None:
    """Our LoRA fine-tuning of the large model, as `palate sft --method lora` does it."""
    from palate.config import SftConfig
    from palate.hardware import probe
    from palate.models import load, lora
    from palate.sft.dataset import Row
    from palate.sft.fitting import fit

    episodes, _, tokens = settings(given, steps)
    bare = psutil.Process().memory_info().rss
    loaded = load(None, str(given.folder / given.case), probe("cpu", "auto"))
    prompts = json.loads((given.folder / "prompts.json").read_text())[:episodes]
    generator = torch.Generator().manual_seed(0)
    rows = []
    for prompt in prompts:
        ids = loaded.encoder.prompt(prompt)
        answer = torch.randint(3, 4000, (tokens,), generator=generator).tolist()
        rows.append(Row([*ids, *answer], [-100] * len(ids) + answer, 0, False))
    model = lora(loaded.model, RANK, 2 * RANK, 0)
    began = time.perf_counter()
    fit(model, loaded, rows, SftConfig(method="lora", epochs=2, batch_size=episodes), lambda *_: None)
    told(time.perf_counter() - began, 2 * episodes, 0.0, bare)


def told(seconds: float, episodes: int, reward: float, bare: int) -> None:
    """Figures of a side; memory is the peak above the interpreter with its libraries."""
    tell({
        "seconds_per_episode": seconds / episodes, "episodes_per_second": episodes / seconds, "reward": reward,
        "memory_mb": (peak_bytes() - bare) / 1e6,
    })  # fmt: skip


if __name__ == "__main__":
    main()
