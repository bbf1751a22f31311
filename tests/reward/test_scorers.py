"""Reward models of others: the right token is scored whatever the pad token, and no score depends on its batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    Qwen2Config,
    Qwen2ForSequenceClassification,
)

from palate.config import UserError
from palate.hardware import probe
from palate.reward.scorers import Classifier

SMALL = {
    "vocab_size": 420,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
QUESTION = [{"role": "user", "content": "where is the key?"}]
TEXTS = ["under the mat", "a cat sat down " * 9, "", "the red ball"]


def classifier(name: str, tokenizers: dict[str, Path], folder: Path, labels: int = 1) -> Path:
    """A folder as the hub has it: random weights with one label, a tokenizer that may have no pad token."""
    torch.manual_seed(0)
    more: dict[str, Any] = {"num_labels": labels, "pad_token_id": None}
    model: Any
    if name == "llama":
        model = LlamaForSequenceClassification(LlamaConfig(**SMALL, **more))
    elif name == "qwen2":
        model = Qwen2ForSequenceClassification(Qwen2Config(**SMALL, num_key_value_heads=2, **more))
    elif name == "gpt2":
        model = GPT2ForSequenceClassification(
            GPT2Config(vocab_size=420, n_embd=32, n_layer=2, n_head=4, **more)
        )
    else:
        model = BertForSequenceClassification(BertConfig(**SMALL, **{**more, "pad_token_id": 0}))
    model.eval().save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizers["gpt2" if name == "bert" else name]).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "bert"])
def test_scores_are_those_of_the_model_on_each_row_alone(
    name: str, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    folder = classifier(name, tiny_models, tmp_path / name)
    scorer = Classifier(str(folder), probe("cpu", "float32"))
    together = scorer.score([QUESTION] * 4, TEXTS)
    assert len(set(together)) == 4
    assert [scorer.score([QUESTION], [text])[0] for text in TEXTS] == pytest.approx(together, abs=1e-5)
    assert scorer.score([QUESTION] * 4, TEXTS[::-1]) == pytest.approx(together[::-1], abs=1e-5)

    tokenizer = scorer._tokenizer  # the plain computation: one row, no padding, the last token
    if tokenizer.chat_template is not None:
        turns = [*QUESTION, {"role": "assistant", "content": TEXTS[0]}]
        ids = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)[
            "input_ids"
        ]
    elif name == "bert":
        ids = tokenizer(QUESTION[0]["content"], TEXTS[0])["input_ids"]
    else:
        ids = [*tokenizer("where is the key?\n\nunder the mat")["input_ids"], tokenizer.eos_token_id]
    model = scorer._model
    if name != "bert":
        model.config.pad_token_id = None
    with torch.no_grad():
        assert model(input_ids=torch.tensor([ids])).logits.item() == pytest.approx(together[0], abs=1e-5)


def test_long_texts_are_cut_to_what_the_model_takes_and_counted(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    folder = classifier("llama", tiny_models, tmp_path / "llama")
    scorer = Classifier(str(folder), probe("cpu", "float32"), max_length=16)
    assert len(scorer.score([QUESTION] * 2, ["the mat " * 12_500, "mat"])) == 2
    assert scorer.cut >= 1


def test_refused(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    hardware = probe("cpu", "float32")
    two = classifier("llama", tiny_models, tmp_path / "two", labels=2)
    with pytest.raises(UserError, match=r"has 2 labels; a reward model has one \(num_labels 1\)"):
        Classifier(str(two), hardware)
    with pytest.raises(UserError, match="is no model for sequence classification .*LlamaForCausalLM"):
        Classifier(str(tiny_models["llama"]), hardware)
    with pytest.raises(UserError, match="neither a reward run of this project nor a model that loads"):
        Classifier("nobody/nothing", hardware)
