"""Compares value heads trained with several shapings, at equal strength and at equal KL.

    python bench/controlled_decoding.py ROLLOUTS PROMPTS WORK

ROLLOUTS is a dataset of `stackelberg rollout`, PROMPTS a file of other prompts, and WORK a folder for heads and
answers, in which a stopped run is resumed. Answers of 64 tokens are sampled at temperature 1 from the fused
scores; the base policy has strength 0. The KL of an answer is the sum over steps of the KL between the softmax of
the fused scores and the softmax of the log-probabilities, over the candidates. Intervals are paired 95 percent
bootstrap intervals over prompts. The table is printed to standard output.
"""

import json
import math
import os
import random
import subprocess
import sys

BINARY = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "target/release/stackelberg")
SHAPINGS = ["raw", "srs", "minmax", "meanstd", "srs-std"]
RUNS = [("base", "raw", ["--strength", "0"])] \
    + [(f"{s} strength {x}", s, ["--strength", x]) for x in "248" for s in SHAPINGS] \
    + [(f"{s} budget {x}", s, ["--kl-budget", x]) for x in ("0.1", "0.3") for s in SHAPINGS]
KLS = [4, 8, 16]  # nats per answer, for the last table


def softmax(scores):
    masses = [math.exp(score - max(scores)) for score in scores]
    return [mass / sum(masses) for mass in masses]


def step_kl(step):
    pairs = zip(softmax(step["fused"]), softmax(step["log_probs"]))
    return sum(q * math.log(q / p) for q, p in pairs if q > 0)


def answers(work, name, head, flags, prompts):
    """By prompt: reward, KL in nats, mean log-probability per token under the base policy."""
    path = os.path.join(work, name.replace(" ", "-"))
    if not os.path.exists(path + ".json"):
        for end in (".jsonl", ".trace"):
            if os.path.exists(path + end):
                os.remove(path + end)
        subprocess.run([BINARY, "generate", "--prompts", prompts, "--method", "cd", "--value", head, "--temperature",
                        "1", "--seed", "1", "--max-new-tokens", "64", "--out", path + ".jsonl", "--trace",
                        path + ".trace", *flags], check=True, stderr=subprocess.DEVNULL)
        kl = {}
        with open(path + ".trace") as trace:
            for step in map(json.loads, trace):
                kl[step["id"]] = kl.get(step["id"], 0.0) + step_kl(step)
        os.remove(path + ".trace")
        with open(path + ".jsonl") as lines:
            found = {a["id"]: [a["reward"], kl[a["id"]], a["mean_log_prob"]] for a in map(json.loads, lines)}
        with open(path + ".json", "w") as out:
            json.dump(found, out)
    with open(path + ".json") as lines:
        return json.load(lines)


def mean(numbers):
    return sum(numbers) / len(numbers)


def interval(ids, statistic):
    draws = random.Random(0)
    found = sorted(statistic(draws.choices(ids, k=len(ids))) for _ in range(2000))
    return f"[{found[50]:+.3f}, {found[1949]:+.3f}]"


def gain_at(runs, base, kl, ids):
    """Gain over the base policy at this KL, interpolated linearly between the neighbouring strengths."""
    points = sorted((mean([run[i][1] for i in ids]), mean([run[i][0] - base[i][0] for i in ids])) for run in runs)
    for (k0, g0), (k1, g1) in zip(points, points[1:]):
        if k0 <= kl <= k1:
            return g0 + (g1 - g0) * (kl - k0) / (k1 - k0)
    return points[-1][1]


def main():
    rollouts, prompts, work = sys.argv[1:]
    os.makedirs(work, exist_ok=True)
    heads = {shaping: os.path.join(work, f"{shaping}.safetensors") for shaping in SHAPINGS}
    for shaping, head in heads.items():
        if not os.path.exists(head):
            done = subprocess.run([BINARY, "train", "value", rollouts, "--shaping", shaping, "--alpha", "1.5", "--out", head], check=True,
                                  capture_output=True, text=True)
            print(shaping, done.stdout.splitlines()[1])
    found = {name: answers(work, name, heads[shaping], flags, prompts) for name, shaping, flags in RUNS}
    base, ids = found["base"], sorted(found["base"])
    print(f"\n{len(ids)} prompts; KL in nats an answer; log p: mean base log-probability per token")
    print(f"{'':20} reward    gain {'':21} KL   log p")
    for name, run in found.items():
        gain = mean([run[i][0] - base[i][0] for i in ids])
        between = interval(ids, lambda drawn: mean([run[i][0] - base[i][0] for i in drawn]))
        reward, kl, log_p = (mean([run[i][column] for i in ids]) for column in range(3))
        print(f"{name:20} {reward:+.3f}  {gain:+.3f} {between:18} {kl:6.2f}  {log_p:+.2f}")
    print("\ngain at equal KL, between the strengths")
    for kl in KLS:
        for shaping in SHAPINGS:
            runs = [base] + [found[f"{shaping} strength {x}"] for x in "248"]
            between = interval(ids, lambda drawn: gain_at(runs, base, kl, drawn))
            print(f"KL {kl:3} {shaping:8} {gain_at(runs, base, kl, ids):+.3f} {between}")


if __name__ == "__main__":
    main()
