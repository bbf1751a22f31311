"""Shared by all tests: quiet libraries, no network, the real people's data when it lies beside the checkout."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from palate import environment
from palate.data.records import Annotator, Assignment, Comparison, Completion, Prompt, Vote
from palate.project import Project

os.environ.setdefault("HF_HUB_OFFLINE", "1")
environment.prepare()

ROOT = Path(__file__).parents[1]
Make = Callable[..., Project]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser test that fails is run once more; the summary names it (RERUN), and a second failure fails.

    A real browser on two busy cores now and then takes longer than any wait foresees. Nothing else is run again.
    """
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real people's judgements; its files are never part of the repository."""
    folder = Path(os.environ.get("PALATE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder} (set PALATE_SHARED_DATA)")
    return folder


CHATML = (
    "{%- for m in messages -%}{{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of causal language models with random weights, as the hub has them.

    `gpt2`: no chat template, no pad token. `qwen2`: ChatML, pad, grouped-query attention, stop token that is not
    the tokenizer's eos. `llama`: no template, a bos that the tokenizer adds by itself.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
        Qwen2Config,
        Qwen2ForCausalLM,
    )

    def tokenizer(special: list[str], add_bos: str | None = None, **named: str) -> PreTrainedTokenizerFast:
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        bpe.train_from_iterator(
            ["the key is under the mat", "where is the red ball", "a cat sat down"], trainer
        )
        if add_bos:
            bpe.post_processor = processors.TemplateProcessing(
                single=f"{add_bos} $A", special_tokens=[(add_bos, bpe.token_to_id(add_bos))]
            )
        return PreTrainedTokenizerFast(tokenizer_object=bpe, **named)

    end, pad, turn = "<|endoftext|>", "<|pad|>", "<|im_end|>"
    tokenizers = {
        "gpt2": tokenizer([end], bos_token=end, eos_token=end),
        "qwen2": tokenizer(
            [end, pad, "<|im_start|>", turn], eos_token=end, pad_token=pad, chat_template=CHATML
        ),
        "llama": tokenizer(["<s>", "</s>"], add_bos="<s>", bos_token="<s>", eos_token="</s>"),
    }
    shared = {"vocab_size": 400, "max_position_embeddings": 512}
    small = {
        **shared,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    torch.manual_seed(0)
    built = {
        "gpt2": GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=400, n_positions=512)),
        "qwen2": Qwen2ForCausalLM(Qwen2Config(num_key_value_heads=2, **small)),
        "llama": LlamaForCausalLM(LlamaConfig(**small)),
    }
    root = tmp_path_factory.mktemp("models")
    for name, model in built.items():
        model.generation_config.eos_token_id = tokenizers[name].eos_token_id
        model.save_pretrained(root / name)
        tokenizers[name].save_pretrained(root / name)
    return {name: root / name for name in built}


@pytest.fixture
def ranked_project(tiny_models: dict[str, Path], tmp_path: Path) -> Make:
    """make(name, prompts, held_out): `mat` wins over `ball` over two tied `cat`s; shorter always wins."""

    def make(name: str = "llama", prompts: int = 24, held_out: int = 6) -> Project:
        project = Project.create(tmp_path / "project", base=str(tiny_models[name]))
        rule = Annotator("rule", kind="rule")
        asked = [
            Prompt(
                ({"role": "user", "content": f"where is {i}?"},), split="test" if i < held_out else "train"
            )
            for i in range(prompts)
        ]
        with project.store() as store:
            store.add_prompts(asked)
            store.add_annotators([rule])
            for i, prompt in enumerate(asked):
                texts = [f"the mat {i}", f"the red ball {i}", f"a cat {i} sat down", f"a cat sat down {i}"]
                made = [Completion(prompt.id, text, finish_reason="stop") for text in texts]
                ids = [c.id for c in made]
                comparison = Comparison(prompt.id, tuple(sorted(ids)))
                assignment = Assignment(comparison.id, rule.id, comparison.completion_ids)
                store.add_completions(made)
                store.add_comparisons([comparison])
                store.add_assignments([assignment])
                tiers = ((ids[0],), (ids[1],), (ids[2], ids[3]))
                store.add_votes([Vote(assignment.id, "ranked", tiers, strength=i % 4)])
        return project

    return make
