#!/usr/bin/env python3
"""Makes the tiny checkpoints beside it: one for each family, random weights, with what transformers makes of them.

    pip install torch==2.6.0 transformers==4.57.6 gguf==0.19.0 numpy
    python3 crates/engine/tests/families/make.py

Each folder has config.json and model.safetensors (bf16), the same weights as model.gguf, score.safetensors (the head of
its sequence classifier) and expected.json: tokens, and in f32 the last hidden state, logits of the last three positions
and the score of the text.
"""

import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import gguf
import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent
TOKENS = 40
COMMON = dict(
    vocab_size=80, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=None,
)
LLAMA3 = dict(
    rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
LONG = dict(type="longrope", short_factor=[1.0, 1.1, 1.3, 1.8], long_factor=[1.0, 2.0, 3.0, 4.0])

# name: (family of transformers, of GGUF, what differs from COMMON). GGUF knows Mistral as a Llama, without a window.
FAMILIES = {
    "llama": ("Llama", "LLAMA", dict(rope_theta=5e5, rope_scaling=LLAMA3, tie_word_embeddings=False)),
    "mistral": ("Mistral", None, dict(head_dim=16, sliding_window=9)),
    "qwen2": ("Qwen2", "QWEN2", dict(tie_word_embeddings=True, rope_theta=1e6)),
    "qwen2-yarn": ("Qwen2", "QWEN2", dict(rope_scaling=YARN)),
    "qwen3": ("Qwen3", "QWEN3", dict(head_dim=16, rope_theta=1e6, tie_word_embeddings=True)),
    "gemma2": ("Gemma2", "GEMMA2", dict(head_dim=16, query_pre_attn_scalar=16, sliding_window=9,
                                       attn_logit_softcapping=5.0, final_logit_softcapping=3.0)),
    # As the largest: GGUF does not store this scale.
    "gemma2-scaled": ("Gemma2", None, dict(head_dim=16, query_pre_attn_scalar=24, final_logit_softcapping=None,
                                           attn_logit_softcapping=None)),
    "gemma3": ("Gemma3", "GEMMA3", dict(head_dim=16, query_pre_attn_scalar=16, sliding_window=9, num_hidden_layers=6,
                                       rope_scaling=dict(rope_type="linear", factor=8.0))),
    "phi3": ("Phi3", "PHI3", dict(head_dim=None, hidden_size=64, partial_rotary_factor=0.5, sliding_window=20,
                                  rope_scaling=LONG, original_max_position_embeddings=128)),
    "smollm3": ("SmolLM3", "SMOLLM3", dict(num_hidden_layers=4, rope_theta=5e6)),
    "olmo2": ("Olmo2", "OLMO2", dict()),
    "gpt2": ("GPT2", "GPT2", dict(vocab_size=80, n_embd=32, n_layer=2, n_head=4, n_positions=64, n_inner=None,
                                  bos_token_id=1, eos_token_id=2)),
}


def config_of(family, differs):
    name = {"Gemma3": "Gemma3TextConfig"}.get(family, f"{family}Config")
    fields = dict(differs) if family == "GPT2" else {**COMMON, **differs}
    if fields.get("head_dim", 1) is None:
        del fields["head_dim"]
    return getattr(transformers, name)(**fields, attn_implementation="eager")


def randomise(model, seed):
    """Weights that bf16 can hold, so that the files and what is expected agree. Norms and biases too are random."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1 and "norm" in name or "ln_" in name and name.endswith("weight"):
            usual = 0.0 if "Gemma" in type(model).__name__ else 1.0
            parameter.data = usual + 0.2 * noise
        else:
            parameter.data = 0.2 * noise if parameter.dim() == 1 else 0.25 * noise
        parameter.data = parameter.data.bfloat16().float()


def permute(weights, heads):
    """Rows of q or k as GGUF has them where rotation is interleaved."""
    rows = weights.shape[0]
    return weights.reshape(heads, 2, rows // heads // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def write_gguf(path, family, arch_name, config, state):
    arch = gguf.MODEL_ARCH[arch_name]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", heads)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    if arch_name == "GPT2":
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_theta)
        writer.add_rope_dimension_count(int(head_dim * getattr(config, "partial_rotary_factor", 1.0)))
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if family in ("Gemma2", "Gemma3", "Phi3"):
        writer.add_sliding_window(config.sliding_window)
    if family == "Gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    tensors = {}
    scaling = config.to_dict().get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(scaling["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    if kind == "llama3":
        tensors["rope_freqs.weight"] = llama3_factors(config, head_dim)
    if kind == "longrope":
        original = config.original_max_position_embeddings
        factor = config.max_position_embeddings / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(factor) / np.log(original))))
        for name in ("short", "long"):
            tensors[f"rope_factors_{name}.weight"] = np.array(scaling[f"{name}_factor"], dtype=np.float32)
    names = gguf.get_tensor_name_map(arch, layers)
    for name, tensor in state.items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        numbers = tensor.float().numpy()
        if family in ("Gemma2", "Gemma3") and name.endswith("norm.weight"):
            numbers = numbers + 1
        if family in ("Llama", "Mistral", "SmolLM3") and ("q_proj" in name or "k_proj" in name):
            numbers = permute(numbers, heads if "q_proj" in name else kv_heads)
        if family == "GPT2" and numbers.ndim == 2 and ".h." in name:
            numbers = numbers.T
        to = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert to, name
        tensors[to] = numbers
    for name, numbers in tensors.items():
        numbers = np.ascontiguousarray(numbers, dtype=np.float32)
        if numbers.ndim == 1 or "position_embd" in name:
            writer.add_tensor(name, numbers)
        else:
            bits = (numbers.view(np.uint32) >> 16).astype(np.uint16)
            writer.add_tensor(name, bits.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama3_factors(config, head_dim):
    """What each frequency is divided by."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1.0 / config.rope_theta ** (torch.arange(0, head_dim, 2).float() / head_dim)
    return (plain / scaled).numpy()


def make(name, seed):
    family, arch, differs = FAMILIES[name]
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    config = config_of(family, differs)
    language, classifier = {
        "GPT2": ("GPT2LMHeadModel", "GPT2ForSequenceClassification"),
        "Gemma3": ("Gemma3ForCausalLM", "Gemma3TextForSequenceClassification"),
    }.get(family, (f"{family}ForCausalLM", f"{family}ForSequenceClassification"))
    model = getattr(transformers, language)(config).eval().float()
    randomise(model, seed)
    state = {k: v for k, v in model.state_dict().items() if not k.endswith((".attn.bias", ".attn.masked_bias"))}
    if config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    save_file({k: v.bfloat16().contiguous() for k, v in state.items()}, folder / "model.safetensors")
    config.architectures = [language]
    (folder / "config.json").write_text(json.dumps(config.to_diff_dict(), indent=1, sort_keys=True) + "\n")
    if arch:
        write_gguf(folder / "model.gguf", family, arch, config, state)

    tokens = torch.randint(3, config.vocab_size, (1, TOKENS), generator=torch.Generator().manual_seed(seed + 1))
    with torch.no_grad():
        out = model(tokens, output_hidden_states=True)
    expected = {
        "tokens": tokens[0].tolist(),
        "hidden": out.hidden_states[-1][0, -1].tolist(),
        "logits": out.logits[0, -3:].tolist(),
    }
    if hasattr(transformers, classifier):
        expected["score"] = score(classifier, config, state, tokens, seed, folder)
        expected["classifier"] = classifier
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name}: {size // 1024} KiB, score {expected.get('score')}")


def score(classifier, config, state, tokens, seed, folder):
    """The score of the text by the sequence classifier of the same weights; its head goes into a file of its own."""
    config.num_labels = 1
    scorer = getattr(transformers, classifier)(config).eval().float()
    body = {k: v for k, v in state.items() if not k.startswith("lm_head")}
    missing = scorer.load_state_dict(body, strict=False).missing_keys
    assert [k for k in missing if not k.endswith((".attn.bias", ".attn.masked_bias"))] == ["score.weight"], missing
    scorer.score.weight.data = 0.3 * torch.randn(1, config.hidden_size, generator=torch.Generator().manual_seed(seed))
    save_file({"score.weight": scorer.score.weight.data}, folder / "score.safetensors")
    with torch.no_grad():
        return scorer(tokens).logits[0, 0].item()


MODERN = dict(num_hidden_layers=4, local_attention=12, vocab_size=320, max_position_embeddings=128,
              bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
DEBERTA = dict(relative_attention=True, pos_att_type="p2c|c2p")
# Encoders that classify: name: (family of transformers, its configuration, its tokenizer)
ENCODERS = {
    "bert": ("Bert", dict(hidden_act="gelu"), "words"),
    "roberta": ("Roberta", dict(type_vocab_size=1, pad_token_id=3, max_position_embeddings=68), "words"),
    "distilbert": ("DistilBert", dict(dim=32, hidden_dim=40, n_layers=2, n_heads=4), "words"),
    "electra": ("Electra", dict(embedding_size=16), "single"),
    # As version 3 is: buckets, no positions but relative ones, no types.
    "deberta": ("DebertaV2", dict(**DEBERTA, position_buckets=8, position_biased_input=False, share_att_key=True,
                                  norm_rel_ebd="layer_norm"), "unigram"),
    # The other choices.
    "deberta-v2": ("DebertaV2", dict(**DEBERTA, max_relative_positions=16, embedding_size=16, type_vocab_size=2), "words"),
    "modernbert": ("ModernBert", dict(**MODERN, classifier_pooling="mean"), "bpe"),
    "modernbert-biased": ("ModernBert", dict(**MODERN, attention_bias=True, norm_bias=True, classifier_bias=True), "bpe"),
}
WORDS = [f"w{i}" for i in range(80)]
TEXTS = ["w5 w6 w7", "w70", "", " ".join(f"w{7 * i % 75 + 4}" for i in range(40))]
PAIRS = [["w9 w8", "w5 w6 w7"], [" ".join(TEXTS[3].split()[:15]), " ".join(TEXTS[3].split()[15:])], ["", "w70"]]


def words(pair="w1 $A w2 $B:1 w2:1"):
    """A tokenizer of words."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="w1 $A w2", pair=pair, special_tokens=[("w1", 1), ("w2", 2)])
    return tokenizer


def unigram():
    """One as DeBERTa has: pieces with scores; words from 60 on are made of two."""
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    pieces = ["\u2581", "w", *"0123456789", *(f"\u2581w{i}" for i in range(60))]
    scored = [(piece, 0.0) for piece in special] + [(piece, -2.0 - len(piece) / 10) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=3))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return bracketed(tokenizer, special)


def bpe():
    """One as ModernBERT has: pairs of bytes."""
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=310, special_tokens=special, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([" ".join(WORDS)], trainer)
    return bracketed(tokenizer, special)


def bracketed(tokenizer, special):
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    return tokenizer


TOKENIZERS = {"words": words, "single": lambda: words(None), "unigram": unigram, "bpe": bpe}


def make_encoder(name, seed):
    """The same for a classifier of two labels over an encoder, of texts and of pairs of them."""
    family, differs, kind = ENCODERS[name]
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    fields = dict(vocab_size=80, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
                  max_position_embeddings=64, pad_token_id=0, id2label={0: "bad", 1: "good"})
    if family == "DistilBert":
        fields = dict(vocab_size=80, max_position_embeddings=64, pad_token_id=0, id2label=fields["id2label"])
    config = getattr(transformers, f"{family}Config")(**{**fields, **differs}, attn_implementation="eager")
    model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval().float()
    randomise(model, seed)
    if family == "DebertaV2":
        # Else its attention is flat, and no score far from another.
        for parameter in model.parameters():
            parameter.data *= 4 if parameter.dim() == 2 else 1
    state = {k: v.bfloat16().contiguous() for k, v in model.state_dict().items() if not k.endswith("position_ids")}
    if name == "deberta":
        # As many are stored, with a table that old files have.
        state = {k: v.half() for k, v in state.items()} | {"deberta.embeddings.position_ids": torch.arange(64)[None]}
    save_file(state, folder / "model.safetensors")
    config.architectures = [type(model).__name__]
    said = config.to_diff_dict() | ({"pos_att_type": differs["pos_att_type"]} if family == "DebertaV2" else {})
    (folder / "config.json").write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")
    tokenizer = TOKENIZERS[kind]()
    tokenizer.save(str(folder / "tokenizer.json"))

    def logits(*text):
        encoding = tokenizer.encode(*text)
        kinds = {"token_type_ids": torch.tensor([encoding.type_ids])} if getattr(config, "type_vocab_size", 0) > 1 else {}
        with torch.no_grad():
            return model(torch.tensor([encoding.ids]), **kinds).logits[0].tolist()

    expected = {"texts": TEXTS, "logits": [logits(text) for text in TEXTS]}
    if kind != "single":
        expected |= {"pairs": PAIRS, "pair_logits": [logits(*pair) for pair in PAIRS]}
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")
    size = sum(f.stat().st_size for f in folder.iterdir()) // 1024
    print(f"{name}: {size} KiB, {[len(tokenizer.encode(text).ids) for text in TEXTS]} tokens, {expected['logits']}")


if __name__ == "__main__":
    for i, name in enumerate(ENCODERS):
        make_encoder(name, 1000 + i)
    for i, name in enumerate(FAMILIES):
        make(name, 10 * i)
