"""Writes a GGUF file of SmolLM2 as a Hugging Face folder with weights in f32: gguf_folder.py GGUF FOLDER

Both transformers and the engine load the folder. Needs torch, transformers, accelerate and gguf.
"""

import pathlib
import sys

import torch
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer


def main():
    gguf, folder = map(pathlib.Path, sys.argv[1:])
    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    # The file names its pre-tokenizer, `smollm`, which transformers does not read: each digit is a token.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.save_pretrained(folder)
    read = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # What was read from GGUF counts as quantized and is not saved: a new model takes over the weights.
    fields = read.config.to_dict()
    del fields["quantization_config"]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields), dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)


main()
