"""A tiny model with random weights, for checks of the server that need no text."""

import json
import random
import struct

# Sizes of the tiny model: a Llama whose words are w0, w1, ...
WIDTH, HEADS, INNER, LAYERS, WORDS, CONTEXT = 16, 4, 24, 2, 40, 64


def tensors(path, shapes):
    """Writes random tensors of these shapes as safetensors."""
    header, data, dice = {}, b"", random.Random(1)
    for name, shape in shapes.items():
        count = shape[0] * shape[-1] if len(shape) > 1 else shape[0]
        values = [1.0 if "norm" in name else dice.uniform(-0.6, 0.6) for _ in range(count)]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * count]}
        data += struct.pack(f"<{count}f", *values)
    text = json.dumps(header | {"__metadata__": {"format": "stackelberg-head"}}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def tiny(folder):
    """Writes a tiny model, and a reward that fits it; gives their paths."""
    layer = {"self_attn.q_proj": [WIDTH, WIDTH], "self_attn.k_proj": [WIDTH, WIDTH], "self_attn.v_proj": [WIDTH, WIDTH],
             "self_attn.o_proj": [WIDTH, WIDTH], "mlp.gate_proj": [INNER, WIDTH], "mlp.up_proj": [INNER, WIDTH],
             "mlp.down_proj": [WIDTH, INNER], "input_layernorm": [WIDTH], "post_attention_layernorm": [WIDTH]}
    shapes = {f"model.layers.{i}.{part}.weight": shape for i in range(LAYERS) for part, shape in layer.items()}
    shapes |= {"model.embed_tokens.weight": [WORDS, WIDTH], "model.norm.weight": [WIDTH], "lm_head.weight": [WORDS, WIDTH]}
    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
              "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "vocab_size": WORDS, "max_position_embeddings": CONTEXT,
              "rms_norm_eps": 1e-5, "rope_theta": 1000.0, "tie_word_embeddings": False, "eos_token_id": [2, 3]}
    tokenizer = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": {"type": "WhitespaceSplit"},
                 "post_processor": None, "decoder": None, "truncation": None, "padding": None,
                 "model": {"type": "WordLevel", "vocab": {f"w{i}": i for i in range(WORDS)}, "unk_token": "w0"}}
    template = "{% for message in messages %}w4 {{ message.content }} w5 {% endfor %}{% if add_generation_prompt %}w6{% endif %}"
    model = folder / "tiny"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(config))
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    (model / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "bos_token": "w1", "eos_token": "w2"}))
    tensors(model / "model.safetensors", shapes)
    head = folder / "head.safetensors"
    tensors(head, {"score.weight": [1, WIDTH]})
    return model, head
