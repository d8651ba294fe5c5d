#!/usr/bin/env python3
"""Makes the tiny adapters beside it: base models with random weights, adapters of PEFT, and the weights that PEFT merges.

    pip install torch==2.15.0 transformers==5.24.0 peft==0.21.2
    python3 crates/registry/tests/adapters/make.py

Each folder has base/ (config.json, model.safetensors), adapter/ as `save_pretrained` writes it, and merged.safetensors: the
state of the model after `merge_and_unload`.
"""

import json
import os
import shutil
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

HERE = Path(__file__).parent
COMMON = dict(
    vocab_size=24, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=False,
)
# name: (family of transformers, what differs from COMMON, the adapter, whether it is a reward model)
CASES = {
    "llama": ("Llama", {}, dict(r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "down_proj", "lm_head", "embed_tokens"],
                                rank_pattern={"layers.1.self_attn.q_proj": 2}, alpha_pattern={"layers.1.self_attn.q_proj": 3}), False),
    "gpt2": ("GPT2", dict(n_embd=16, n_layer=2, n_head=4, n_positions=64, vocab_size=24, bos_token_id=1, eos_token_id=2),
             dict(r=3, lora_alpha=5, fan_in_fan_out=True, target_modules=["c_attn", "c_proj"]), False),
    "reward": ("Qwen2", {}, dict(r=2, lora_alpha=4, target_modules="all-linear", task_type="SEQ_CLS"), True),
}


def main():
    for name, (family, differs, lora, rewards) in CASES.items():
        torch.manual_seed(len(name))
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        config = getattr(transformers, f"{family}Config")(**(differs if family == "GPT2" else COMMON | differs))
        base = getattr(transformers, f"{family}LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM")(config).float()
        base.save_pretrained(folder / "base")
        if rewards:
            base = getattr(transformers, f"{family}ForSequenceClassification").from_pretrained(folder / "base", num_labels=1)
        model = get_peft_model(base, LoraConfig(**lora))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.copy_(0.3 * torch.randn_like(parameter))
        model.save_pretrained(folder / "adapter", save_embedding_layers=False)
        settings = folder / "adapter" / "adapter_config.json"
        read = json.loads(settings.read_text()) | {"base_model_name_or_path": "../base"}
        settings.write_text(json.dumps(read, indent=2) + "\n")
        merged = {key: value.contiguous().clone() for key, value in model.merge_and_unload().state_dict().items()}
        save_file(merged, folder / "merged.safetensors")
        for extra in [*folder.rglob("README.md"), *folder.rglob("generation_config.json")]:
            extra.unlink()


main()
