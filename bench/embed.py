"""The sentence embedder side by side with Python's: the same texts, one machine, in turns.

    cargo build --release --workspace --examples
    python3 bench/embed.py --model FOLDER [--texts 2000] [--rounds 3]

Needs sentence-transformers, torch and transformers. FOLDER is a folder of the BERT family, such as
all-MiniLM-L6-v2. The texts are words of one paragraph, shuffled with a fixed seed, 10 to 200 a text.
"""

import argparse
import json
import platform
import random
import subprocess
import time

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

PARAGRAPH = """A leader moves first and knows that the follower will answer as well as it can. The baker mixes
flour, water, salt and yeast, waits two hours and shapes twelve loaves before sunrise; nobody asks why the oven
was built beside the river. In 1969 three astronauts left the launch pad at Cape Kennedy with about 2,800 tonnes
of fuel. Photosynthesis turns carbon dioxide into sugar, while fermentation does roughly the opposite. Please
explain, step by step, how interest compounds over thirty years, what inflation takes away, and whether an
emergency fund should come before paying down debts. "I'd rather not," she said; the committee's decision
(unanimous, surprisingly) stood. Überraschung, déjà vu, naïve: words travel."""


def texts(count):
    words, chance = PARAGRAPH.split(), random.Random(0)
    return [" ".join(chance.choices(words, k=chance.randint(10, 200))) for _ in range(count)]


def by_hand(model, tokenizer, texts, most, batch=32):
    """transformers and mean pooling, sorted by length, as its users write it."""
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    found = [None] * len(texts)
    with torch.inference_mode():
        for start in range(0, len(texts), batch):
            part = order[start : start + batch]
            inputs = tokenizer([texts[i] for i in part], padding=True, truncation=True, max_length=most,
                               return_tensors="pt")
            hidden = model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1).float()
            pooled = (hidden * mask).sum(1) / mask.sum(1)
            pooled = torch.nn.functional.normalize(pooled)
            for i, row in zip(part, pooled):
                found[i] = row.numpy()
    return np.stack(found)


def ours(binary, folder, lines):
    run = subprocess.run([binary, folder], input=lines, capture_output=True, text=True, check=True)
    found = np.array([json.loads(line) for line in run.stdout.splitlines()])
    return found, json.loads(run.stderr.splitlines()[-1])["embed_s"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--texts", type=int, default=2000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--binary", default="target/release/examples/embed")
    arguments = arguments.parse_args()

    some = texts(arguments.texts)
    lines = "".join(json.dumps(text) + "\n" for text in some)
    library = SentenceTransformer(arguments.model, device="cpu")
    model = AutoModel.from_pretrained(arguments.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    tokens = sum(min(len(ids), library.max_seq_length) for ids in tokenizer(some)["input_ids"])
    print(f"python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{len(some)} texts, {tokens} tokens")
    library.encode(some[:32])

    seconds = {"stackelberg": [], "sentence-transformers": [], "transformers": []}
    for _ in range(arguments.rounds):
        found, took = ours(arguments.binary, arguments.model, lines)
        seconds["stackelberg"].append(took)
        began = time.perf_counter()
        expected = library.encode(some)
        seconds["sentence-transformers"].append(time.perf_counter() - began)
        began = time.perf_counter()
        also = by_hand(model, tokenizer, some, library.max_seq_length)
        seconds["transformers"].append(time.perf_counter() - began)
    for name, took in seconds.items():
        best = min(took)
        rounds = ", ".join(f"{s:.2f}" for s in took)
        print(f"{name:<22} {best:7.2f} s  {tokens / best:8.0f} tokens/s  (rounds: {rounds})")
    print(f"largest difference from sentence-transformers: {np.abs(found - expected).max():.2e}")
    print(f"of its own two Python ways:                    {np.abs(also - expected).max():.2e}")


if __name__ == "__main__":
    main()
