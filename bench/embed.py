"""Compares the speed of the sentence embedder with Python libraries: the same texts on one machine, alternating.

    cargo build --release --workspace --examples
    python3 bench/embed.py --model FOLDER [--texts 2000] [--rounds 3]

Needs sentence-transformers, torch and transformers. FOLDER is the folder of a model of the BERT family, such as
all-MiniLM-L6-v2. Times are those of embedding, with the model already loaded. The texts are 10 to 200 words of one
paragraph, shuffled with a fixed seed.
"""

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import time

import numpy as np
import sentence_transformers
import torch
import transformers
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
    """transformers with mean pooling, on texts sorted by length, as its users write it."""
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


def processor():
    """CPU seconds of this process and of the children that it waited for."""
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in own)


def busy():
    """CPU seconds of all processes (Linux)."""
    with open("/proc/stat") as file:
        user, nice, system = map(int, file.readline().split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def timed(name, work, raw):
    """Runs `work`, which returns its result and, if it measures them itself, its seconds."""
    began, before, all_before = time.perf_counter(), processor(), busy()
    found, seconds = work()
    wall = time.perf_counter() - began
    own = processor() - before
    others = (busy() - all_before - own) / wall
    raw[name].append({"seconds": seconds or wall, "processor_s": own, "cores_of_others": others})
    print(name, json.dumps({key: round(value, 3) for key, value in raw[name][-1].items()}), flush=True)
    return found


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
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "crates", "Cargo.lock"]).returncode
    print(f"command: bench/embed.py | texts {len(some)}, rounds {arguments.rounds}")
    print(f"commit:  {commit.stdout.strip()}{' with changes' if changed else ''}")
    print(f"machine: {os.cpu_count()} x {cpu()} | model {os.path.basename(arguments.model.rstrip('/'))}")
    print(f"python {platform.python_version()}, torch {torch.__version__} ({torch.get_num_threads()} threads), "
          f"transformers {transformers.__version__}, sentence-transformers {sentence_transformers.__version__}")
    print(f"{len(some)} texts, {tokens} tokens, none longer than {library.max_seq_length}\n")
    library.encode(some[:32])

    print("raw figures, round by round (cores_of_others: how many cores other programs kept busy meanwhile)")
    raw = {"stackelberg": [], "sentence-transformers": [], "transformers": []}
    for _ in range(arguments.rounds):
        found = timed("stackelberg", lambda: ours(arguments.binary, arguments.model, lines), raw)
        expected = timed("sentence-transformers", lambda: (library.encode(some), None), raw)
        also = timed("transformers", lambda: (by_hand(model, tokenizer, some, library.max_seq_length), None), raw)

    print(f"\nmedians over {arguments.rounds} rounds; stackelberg's processor time includes loading\n")
    print(f"{'':22} {'seconds':>8} {'tokens/s':>9} {'processor s':>12}")
    for name, rounds in raw.items():
        seconds, used = (statistics.median(one[key] for one in rounds) for key in ("seconds", "processor_s"))
        print(f"{name:22} {seconds:8.2f} {tokens / seconds:9.0f} {used:12.2f}")
    print(f"\nlargest difference from sentence-transformers: {np.abs(found - expected).max():.2e}")
    print(f"between the two Python ways:                   {np.abs(also - expected).max():.2e}")


def cpu():
    with open("/proc/cpuinfo") as file:
        return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "?")


if __name__ == "__main__":
    main()
