"""Tiny models of transformers with random weights."""

import os

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}

import torch  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification  # noqa: E402

torch.set_num_threads(1)

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
IDS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
FAMILIES = {
    "llama": SIZES,
    "qwen2": SIZES,
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 4},
    "mistral": SIZES | {"sliding_window": 4},
    "gemma3_text": SIZES
    | {"sliding_window": 4, "head_dim": 8, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
}


def config(family, **fields):
    return AutoConfig.for_model(family, vocab_size=50, **IDS, **FAMILIES[family], **fields)


def policy(family="llama", seed=0):
    """A causal language model of 50 tokens."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config(family)).eval()
    with torch.no_grad():  # logits that differ
        model.get_output_embeddings().weight.mul_(20)
    return model


def reward(family="llama", seed=1, labels=1):
    """A reward model with the same tokens."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config(family, num_labels=labels)).eval()
    with torch.no_grad():
        model.score.weight.mul_(50)
    return model


def prompts():
    """Three prompts of 5, 3 and 4 tokens, padded on the left, and their mask."""
    ids = torch.tensor([[5, 6, 7, 8, 9], [0, 0, 11, 12, 13], [0, 21, 22, 23, 24]])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def tokenizer():
    """Words w3 to w49 as tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<end>": 1, "<begin>": 2} | {f"w{i}": i for i in range(3, 50)}
    found = Tokenizer(models.WordLevel(words, unk_token="w3"))
    found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=found, pad_token="<pad>", eos_token="<end>", bos_token="<begin>")
