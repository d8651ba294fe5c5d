#!/usr/bin/env python3
"""Measures the gain and the cost of computing rewards less often: --score-every N and --entropy-gate NATS.

    cargo build --release && python3 bench/gates.py [REWARD] [PROMPTS]

Each setting answers MT-bench's questions (greedy, 64 tokens, raw, strength 4 in standard deviations). The output has the
reward, the paired gain over the base policy with its standard error, the fraction of tokens whose candidates were scored, and
tokens/s at batch size 1. Only the standard library is needed.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
REWARD = sys.argv[1] if len(sys.argv) > 1 else "harmless-minilm"
COUNT = int(sys.argv[2]) if len(sys.argv) > 2 else 40
GATES = [["--score-every", "8"], ["--score-every", "4"], ["--score-every", "2"], [], ["--entropy-gate", "1"]]
GUIDED = ["--shaping", "raw", "--strength", "4", "--no-skip"]


def answers(folder, number, more, prompts=None):
    out = folder / f"{number}.jsonl"
    command = [ROOT / "target/release/stackelberg", "generate", "--prompts", prompts or folder / "prompts.jsonl", "--out", out,
               "--reward", REWARD, "--max-new-tokens", "64", "--batch-size", "1", *more]
    subprocess.run(command, check=True, capture_output=True)
    return [json.loads(line) for line in out.read_text().splitlines()]


def main():
    git = lambda *args: subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    print(f"command: bench/gates.py {REWARD} {COUNT}")
    print(f"commit:  {git('rev-parse', '--short', 'HEAD')}{' with changes' if git('status', '--short') else ''}")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        base = answers(folder, "base", ["--method", "base"], "mt-bench")[:COUNT]
        asked = [json.dumps({"id": line["id"], "prompt": line["prompt"]}) for line in base]
        (folder / "prompts.jsonl").write_text("\n".join(asked) + "\n")
        rows = {line["id"]: line["reward"] for line in base}
        print(f"base: reward {sum(rows.values()) / len(rows):+.3f}")
        for number, gate in enumerate(GATES):
            found = answers(folder, number, [*GUIDED, *gate])
            gains = [line["reward"] - rows[line["id"]] for line in found]
            mean = sum(gains) / len(gains)
            error = (sum((g - mean) ** 2 for g in gains) / (len(gains) - 1) / len(gains)) ** 0.5
            tokens, seconds = sum(line["tokens"] for line in found), sum(line["elapsed"] for line in found)
            calls = sum(line["reward_calls"] for line in found)
            print(f"{' '.join(gate) or 'every token':20} gain {mean:+.3f} (se {error:.3f}) | {calls / tokens:.2f} of the "
                  f"tokens scored | {tokens / seconds:.1f} tokens/s", flush=True)


if __name__ == "__main__":
    main()
