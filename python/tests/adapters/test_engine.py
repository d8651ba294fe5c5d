"""The adapters of transformers against our own engine: the same model in f32, the same rewards, the same tokens."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import tiny  # noqa: F401  (sets the threads of torch)
import torch
from engines import value_head
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import stackelberg
from stackelberg.transformers import ArgsLogitsProcessor, ValueLogitsProcessor

ROOT = pathlib.Path(__file__).resolve().parents[3]
FOLDER = ROOT / "target" / "adapters"
PROMPTS = ["The weather today is", "I met an old friend in the", "Once upon a time, there was a little girl who lived in"]
MOST = 20
GUIDED = {
    "default": ({}, {}),
    "raw": ({"shaping": "raw", "strength": 1.5}, {"rule": "raw", "strength": 1.5}),
    "hard": ({"shaping": "hard", "beta": 0.5, "bound": 2.0}, {"rule": "hard", "beta": 0.5, "bound": 2.0}),
    "srs": ({"shaping": "srs", "strength": 0.5, "bound": 12.0, "alpha": 1.5}, {"strength": 0.5, "bound": 12.0, "alpha": 1.5}),
}


def vowels(prompts, answers):
    """Texts of few letters e and many o are good."""
    return [2.0 * answer.count("o") - 1.0 * answer.count("e") + 0.3 * answer.count(",") for answer in answers]


@pytest.fixture(scope="session")
def folder():
    """The default model as a folder of Hugging Face in f32, written once."""
    found = FOLDER / "smollm2-135m"
    if not found.is_dir():
        with stackelberg.Policy() as policy:
            gguf = policy._policy.path
        partial = FOLDER / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        subprocess.run([sys.executable, ROOT / ".ci" / "gguf_folder.py", gguf, partial], check=True, env=os.environ)
        partial.rename(found)
    return found


@pytest.fixture(scope="session")
def model(folder):
    torch.set_num_threads(2)
    yield AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer(folder):
    found = AutoTokenizer.from_pretrained(folder, padding_side="left")
    found.pad_token = "<|im_end|>"
    return found


def ours(policy, guidance):
    """Tokens of our engine, greedy."""
    answers = policy.generate(PROMPTS, guidance=guidance, max_tokens=MOST, prompt_format="raw")
    assert all(answer.steered > 0 for answer in answers)
    return [answer.token_ids for answer in answers]


def theirs(model, tokenizer, guide, **options):
    """Tokens of transformers, greedy, all prompts in one batch with padding on the left."""
    inputs = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    assert not inputs["attention_mask"].all()
    ends = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    found = model.generate(
        **inputs, **options, logits_processor=[guide], do_sample=False, max_new_tokens=MOST, eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
    )
    rows = [row[inputs["input_ids"].shape[1] :] for row in found.tolist()]
    return [row[: min([row.index(end) for end in ends if end in row], default=MOST)] for row in rows]


@pytest.mark.parametrize("settings", GUIDED.values(), ids=GUIDED)
def test_a_function_as_reward(folder, model, tokenizer, settings):
    guidance, rule = settings
    with stackelberg.Policy(folder, dtype="f32", threads=2) as policy:
        expected = ours(policy, {"method": "args", "reward": vowels, **guidance})
    ends = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    guide = ArgsLogitsProcessor(vowels, tokenizer=tokenizer, eos_token_id=ends, **rule)
    assert theirs(model, tokenizer, guide) == expected


def test_a_reward_model(folder, model, tokenizer):
    path = FOLDER / "reward-135m"
    if not path.is_dir():
        reward = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)
        torch.manual_seed(0)
        reward.score.weight.data.copy_(torch.randn(1, reward.config.hidden_size) * 0.05)
        reward.save_pretrained(FOLDER / "partial-reward")
        tokenizer.save_pretrained(FOLDER / "partial-reward")
        (FOLDER / "partial-reward").rename(path)
    with stackelberg.Policy(folder, dtype="f32", threads=2, rewards={"r": str(path)}) as policy:
        expected = ours(policy, {"method": "args", "reward": "r", "bound": 4.0})
    reward = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
    guide = ArgsLogitsProcessor(reward, pad_token_id=tokenizer.pad_token_id, bound=4.0)
    assert theirs(model, tokenizer, guide) == expected


def test_a_value_head(folder, model, tokenizer, tmp_path):
    file = tmp_path / "value.safetensors"
    value_head(file)
    with stackelberg.Policy(folder, dtype="f32", threads=2) as policy, pytest.warns(UserWarning, match="does not state"):
        expected = ours(policy, {"method": "cd", "value": file, "strength": 0.5})
    ends = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    guide = ValueLogitsProcessor(file, model, strength=0.5, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    assert theirs(model, tokenizer, guide) == expected
    assert theirs(model, tokenizer, guide, custom_generate=guide.branch_and_commit) == expected
