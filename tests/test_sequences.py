"""Messages become the same ids in every stage, and every answer ends with a token that stops."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from palate.config import UserError
from palate.sequences import EncodedTree, Encoder

USER = {"role": "user", "content": "where is the key"}
SYSTEM = {"role": "system", "content": "be kind"}
NAMES = ("gpt2", "qwen2", "llama")


@pytest.fixture
def encoders(tiny_models: dict[str, Path]) -> dict[str, Encoder]:
    return {name: Encoder(AutoTokenizer.from_pretrained(tiny_models[name])) for name in NAMES}


def test_rendered_prompts(encoders: dict[str, Encoder]) -> None:
    def shown(name: str) -> str:
        return str(encoders[name].tokenizer.decode(encoders[name].prompt([SYSTEM, USER])))

    assert shown("gpt2") == "System:\nbe kind\n\nUser:\nwhere is the key\n\nAssistant:\n"
    assert (
        shown("llama") == "<s>System:\nbe kind\n\nUser:\nwhere is the key\n\nAssistant:\n"
    )  # one bos, not two
    assert shown("qwen2") == (
        "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nwhere is the key<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_stop_token_is_what_the_template_writes_after_an_answer(encoders: dict[str, Encoder]) -> None:
    def token(name: str) -> str:
        return str(encoders[name].tokenizer.convert_ids_to_tokens(encoders[name].stop_id))

    assert [token(name) for name in NAMES] == ["<|endoftext|>", "<|im_end|>", "</s>"]
    qwen2 = encoders["qwen2"]
    assert qwen2.tokenizer.convert_ids_to_tokens(list(qwen2.stop_ids)) == ["<|endoftext|>", "<|im_end|>"]
    assert Encoder(qwen2.tokenizer, [7]).stop_ids == tuple(sorted({*qwen2.stop_ids, 7}))


@pytest.mark.parametrize("name", NAMES)
def test_prompt_and_completion_concatenate_to_the_template(encoders: dict[str, Encoder], name: str) -> None:
    encoder = encoders[name]
    answer = {"role": "assistant", "content": "under the mat"}
    ids = encoder.prompt([USER]) + encoder.completion(answer["content"])
    assert encoder.prefix_problem() is None
    whole = encoder.render([USER, answer], generation_prompt=False)
    assert whole.startswith(encoder.tokenizer.decode(ids))
    assert encoder.decode(encoder.completion("under the mat")) == "under the mat"


@pytest.mark.parametrize("name", NAMES)
def test_padding_is_never_a_stop_token(encoders: dict[str, Encoder], name: str) -> None:
    assert encoders[name].pad_id not in encoders[name].stop_ids


def test_completion_keeps_special_tokens_as_text(encoders: dict[str, Encoder]) -> None:
    encoder = encoders["qwen2"]
    text = "fine<|im_end|>\n<|im_start|>user"
    ids = encoder.completion(text, finish_reason="length")
    assert encoder.stop_id not in ids
    assert encoder.decode(ids) == text
    assert encoder.completion(text) == [*ids, encoder.stop_id]


def test_tree_cuts_and_counts(encoders: dict[str, Encoder]) -> None:
    encoder = encoders["gpt2"]
    prompt, short, long = encoder.prompt([USER]), encoder.completion("a"), encoder.completion("cat " * 40)
    assert encoder.tree([USER], ["a"], None, 400) == EncodedTree(prompt, [short], 0, 0)
    total = len(prompt) + len(short)
    assert encoder.tree([USER], ["a"], None, total - 3) == EncodedTree(prompt[3:], [short], 3, 0)
    kept = min(len(prompt), 8)
    assert encoder.tree([USER], ["a", "cat " * 40], None, 32) == EncodedTree(
        prompt[-kept:], [short, long[: 32 - kept]], len(prompt) - kept, 1
    )


def test_cut_prompt_keeps_its_bos(encoders: dict[str, Encoder]) -> None:
    encoder = encoders["llama"]
    prompt, short = encoder.prompt([USER]), encoder.completion("a")
    tree = encoder.tree([USER], ["a"], None, len(prompt))
    assert tree.prompt == [prompt[0], *prompt[len(short) + 1 :]]


def test_template_hash_tells_templates_apart(
    encoders: dict[str, Encoder], tiny_models: dict[str, Path]
) -> None:
    assert len({encoder.template_hash for encoder in encoders.values()}) == 3
    again = Encoder(AutoTokenizer.from_pretrained(tiny_models["qwen2"]))
    assert again.template_hash == encoders["qwen2"].template_hash


def test_template_that_hides_the_prompt_is_named(tiny_models: dict[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["qwen2"])
    tokenizer.chat_template = (
        "{{ messages[0]['content'] }}{% if messages|length > 1 %} A: {{ messages[1]['content'] }}{% endif %}"
        "{% if add_generation_prompt %} Q: {% endif %}"
    )
    encoder = Encoder(tokenizer)
    assert "differently" in str(encoder.prefix_problem())
    assert encoder.stop_id == tokenizer.eos_token_id


def test_refused_roles_are_one_sentence(tiny_models: dict[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["qwen2"])
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    )
    with pytest.raises(UserError, match=r"refuses the roles \(system, user\): no system"):
        Encoder(tokenizer).prompt([SYSTEM, USER])


def test_nothing_that_ends_an_answer(tiny_models: dict[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["gpt2"])
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="set eos_token"):
        Encoder(tokenizer)
