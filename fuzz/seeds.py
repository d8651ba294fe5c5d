"""Whole inputs for the targets to begin with, from the tiny checkpoints of the engine's tests: seeds.py FOLDER"""

import json, pathlib, re, struct, sys

HERE = pathlib.Path(__file__).resolve().parent
FAMILIES = re.findall(r'"([a-z0-9-]+)",', (HERE / "src/lib.rs").read_text().split("FAMILIES")[1].split("];")[0])
FROM = HERE.parent / "crates/engine/tests/families"


def write(target, name, content):
    folder = pathlib.Path(sys.argv[1], target)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def entry(key, kind, value):
    return text("tokenizer.ggml." + key) + struct.pack("<I", kind) + value


def texts(values):
    return struct.pack("<IQ", 8, len(values)) + b"".join(map(text, values))


def tokenizer(kind):
    """Metadata of a tokenizer of this kind, and how many they are."""
    tokens = ["<unk>", "<s>", "</s>", "a", "b", "ab", "▁", "w", "5", "<0x21>"]
    entries = [entry("model", 8, text(kind)), entry("tokens", 9, texts(tokens)), entry("bos_token_id", 4, b"\1\0\0\0")]
    entries.append(entry("token_type", 9, struct.pack("<IQ10i", 5, 10, 2, 3, 3, *[1] * 6, 6)))
    if kind == "gpt2":
        entries += [entry("merges", 9, texts(["a b"])), entry("pre", 8, text("qwen2"))]
    else:
        entries.append(entry("scores", 9, struct.pack("<IQ10f", 6, 10, *range(0, -10, -1))))
    return b"".join(entries), len(entries)


def gguf_header(data):
    """Where the header ends: behind what describes the last tensor."""
    at = 8
    tensors, entries = struct.unpack_from("<QQ", data, at)
    at += 16
    widths = {0: 1, 1: 1, 7: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 10: 8, 11: 8, 12: 8}

    def skip(kind, at):
        if kind == 8:
            return at + 8 + struct.unpack_from("<Q", data, at)[0]
        if kind == 9:
            of, length = struct.unpack_from("<IQ", data, at)
            at += 12
            for _ in range(length):
                at = skip(of, at)
            return at
        return at + widths[kind]

    for _ in range(entries):
        at = skip(8, at)
        at = skip(struct.unpack_from("<I", data, at)[0], at + 4)
    for _ in range(tensors):
        at = skip(8, at)
        at += 4 + 8 * struct.unpack_from("<I", data, at)[0] + 12
    return at


for number, family in enumerate(FAMILIES):
    first = bytes([number])
    write("config", family, first + (FROM / family / "config.json").read_bytes())
    weights = (FROM / family / "model.safetensors").read_bytes()
    end = 8 + struct.unpack_from("<Q", weights)[0]
    write("safetensors", family, first + weights[8:end])
    write("safetensors", family + "-length", bytes([number + 128]) + weights[:end])
    if (FROM / family / "tokenizer.json").is_file():
        write("tokenizer", family, (FROM / family / "tokenizer.json").read_bytes())
    if (FROM / family / "model.gguf").is_file():
        whole = (FROM / family / "model.gguf").read_bytes()
        header = whole[: gguf_header(whole)]
        write("gguf", family, first + header)
        for kind in ["gpt2", "llama"]:
            more, n = tokenizer(kind)
            tensors, entries = struct.unpack_from("<QQ", header, 8)
            counts = struct.pack("<QQ", tensors, entries + n)
            write("gguf", f"{family}-{kind}", first + header[:8] + counts + more + header[24:])

for number, template in enumerate([
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m.content | trim }}{{ eos_token }}\n{% endfor %}",
    "{% if messages[0].role == 'system' %}{% set s = messages[0].content %}{% set messages = messages[1:] %}{% endif %}"
    "{{ bos_token }}{% for m in messages %}{% if loop.last and m.content.startswith(' ') %}{{ m.content.split('</think>')[-1]"
    ".lstrip('\\n') }}{% else %}{{ raise_exception('no') }}{% endif %}{% endfor %}",
    "{% set ns = namespace(x=0) %}{% for m in messages[::-1] %}{% set ns.x = ns.x + loop.index0 %}{{ m | tojson }}"
    "{% if loop.index > 1 %}{% break %}{% endif %}{% endfor %}{{ '%s' % ns.x }}{{ strftime_now is defined }}",
    "{% macro f(m, n=2) %}{{ m.content.upper()[:n] ~ ' ' * n }}{% endmacro %}{% for m in messages %}{{ f(m, n=3) }}{% endfor %}",
]):
    write("template", str(number), template.encode())

word = json.loads((FROM / "bert/tokenizer.json").read_text())
for name, model in {
    "bpe": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "w": 3}, "merges": [["a", "b"]], "unk_token": "a", "byte_fallback": True},
    "unigram": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["w", -1.0], ["5", -2.0]]},
    "wordpiece": {"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "##", "max_input_chars_per_word": 9, "vocab": {"a": 0, "w": 1, "##5": 2}},
}.items():
    parts = {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " +"}, "content": "▁"}]},
             "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
             "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}}
    write("tokenizer", name, json.dumps({**word, **parts, "post_processor": None, "model": model}).encode())
