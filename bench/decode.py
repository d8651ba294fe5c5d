"""Tokens per second of decoding, side by side in one run, and what a run costs besides. Keeps the raw
figures in bench/runs/. The causal reward model is made by bench/reward_model.py.

    python bench/decode.py [REWARD_MODEL_FOLDER]
"""

import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BINARY = f"{ROOT}/target/release/stackelberg"
PROMPTS = ["How do I bake bread at home?", "Tell me about the moon.", "What should I say to a sad friend?"]
ROUNDS, TOKENS = 3, 128


def run(*arguments):
    """Wall seconds and peak memory (MB) of one run."""
    began = time.time()
    process = subprocess.Popen([BINARY, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, arguments
    return time.time() - began, usage.ru_maxrss / 1024


def rate(folder, name, *arguments):
    """Tokens per second over the prompts, each with `TOKENS` new tokens, loading left out."""
    out = f"{folder}/{name}.jsonl"
    if os.path.exists(out):
        os.remove(out)
    _, memory = run("generate", "--prompts", f"{folder}/prompts.json", "--max-new-tokens", str(TOKENS),
                    "--no-eos", "--out", out, *arguments)
    answers = [json.loads(line) for line in open(out)]
    tokens, seconds = sum(a["tokens"] for a in answers), sum(a["elapsed"] for a in answers)
    return tokens / seconds, memory, sum(a["skipped"] for a in answers) / tokens


def main():
    say = lambda *words: (print(*words), print(*words, file=record))
    git = lambda *words: subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    path = f"{ROOT}/bench/runs/{datetime.date.today()}-decode.txt"
    modes = {"base": ["--method", "base"], "args, head": [], "args, head, no skip": ["--no-skip"]}
    if len(sys.argv) > 1:
        modes["args, causal reward model"] = ["--reward", sys.argv[1]]
    with open(path, "w") as record, tempfile.TemporaryDirectory() as folder:
        say("command: bench/decode.py" + (" REWARD_MODEL" if len(sys.argv) > 1 else ""))
        say("commit: ", git("rev-parse", "--short", "HEAD") + (" with changes" if git("diff", "HEAD") else ""))
        say("machine:", os.cpu_count(), "cores,", platform.machine(), "| model smollm2-135m, bf16, all threads")
        with open(f"{folder}/prompts.json", "w") as file:
            json.dump([{"id": str(i), "prompt": p} for i, p in enumerate(PROMPTS)], file)
        run("generate", "Hi", "--max-new-tokens", "1")  # the model is downloaded and in the page cache
        start, memory = zip(*[run("generate", "Hi", "--max-new-tokens", "1", "--method", "base") for _ in range(5)])
        say(f"load, one token, exit: {statistics.median(start):.2f} s (all: {[round(s, 2) for s in start]})")
        say(f"binary: {os.path.getsize(BINARY) / 1e6:.1f} MB")
        rates = {name: [] for name in modes}
        for _ in range(ROUNDS):
            for name, arguments in modes.items():
                rates[name].append(rate(folder, "out", *arguments))
        base = statistics.median(r for r, _, _ in rates["base"])
        say(f"\ntokens per second, {len(PROMPTS)} prompts of {TOKENS} new tokens, median of {ROUNDS} rounds (all)")
        for name, found in rates.items():
            median = statistics.median(r for r, _, _ in found)
            each = ", ".join(f"{r:.1f}" for r, _, _ in found)
            peak, skipped = max(m for _, m, _ in found), found[0][2]
            say(f"{name:28s} {median:6.1f} ({each}) | {median / base:.2f} of base | peak {peak:.0f} MB"
                f" | skipped {skipped:.3f}")


main()
