"""Makes a causal reward model out of SmolLM2-135M itself, for the bench: the GGUF file as a Hugging Face
folder with a head as its score. Needs gguf, numpy, safetensors and tokenizers from PyPI.

    python bench/reward_model.py MODEL.gguf OUT_FOLDER rewards/harmless.safetensors
"""

import json
import os
import sys

import numpy
from gguf import GGUFReader, dequantize
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

PARTS = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}


def unpermuted(weight, heads):
    """GGUF interleaves the two halves of each rotary head; this puts them back."""
    return weight.reshape(heads, weight.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def main(gguf, out, head):
    reader = GGUFReader(gguf)
    field = lambda key: reader.fields[key].contents()
    llama = lambda key: field(f"llama.{key}")
    heads, kv_heads = llama("attention.head_count"), llama("attention.head_count_kv")
    tensors = {}
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        if tensor.name == "token_embd.weight":
            name = "model.embed_tokens.weight"
        elif tensor.name == "output_norm.weight":
            name = "model.norm.weight"
        else:
            _, layer, part, _ = tensor.name.split(".")
            if part in ("attn_q", "attn_k"):
                weight = unpermuted(weight, heads if part == "attn_q" else kv_heads)
            name = f"model.layers.{layer}.{PARTS[part]}.weight"
        tensors[name] = numpy.ascontiguousarray(weight)
    tensors["score.weight"] = load_file(head)["score.weight"]
    os.makedirs(out, exist_ok=True)
    save_file(tensors, f"{out}/model.safetensors")

    config = {
        "architectures": ["LlamaForSequenceClassification"], "num_labels": 1, "tie_word_embeddings": True,
        "hidden_size": llama("embedding_length"), "intermediate_size": llama("feed_forward_length"),
        "num_hidden_layers": llama("block_count"), "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "vocab_size": len(field("tokenizer.ggml.tokens")),
        "max_position_embeddings": llama("context_length"), "rope_theta": llama("rope.freq_base"),
        "rms_norm_eps": llama("attention.layer_norm_rms_epsilon"), "eos_token_id": 2,
    }
    with open(f"{out}/config.json", "w") as file:
        json.dump(config, file, default=float)

    tokens = field("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in field("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    split = [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.ByteLevel()
    kinds = field("tokenizer.ggml.token_type")
    special = [AddedToken(t, special=True, normalized=False) for t, kind in zip(tokens, kinds) if kind == 3]
    tokenizer.add_special_tokens(special)
    tokenizer.save(f"{out}/tokenizer.json")


main(*sys.argv[1:4])
