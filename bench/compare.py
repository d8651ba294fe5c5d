"""Compares outputs of `stackelberg generate`, paired by prompt: the mean reward, its difference from the first
file with a 95 percent bootstrap interval, and the mean log-probability per token under the base policy.

    python bench/compare.py BASE.jsonl OTHER.jsonl...
"""

import json
import random
import sys


def load(path):
    return {answer["id"]: answer for answer in map(json.loads, open(path))}


def interval(differences):
    draw, n = random.Random(0), len(differences)
    means = sorted(sum(draw.choices(differences, k=n)) / n for _ in range(2000))
    return means[50], means[1949]


def main(paths):
    base = load(paths[0])
    print(f"{'':24}{'n':>4}{'reward':>9}{'gain':>8}  95% interval    {'log-prob':>9}{'tokens':>8}{'steered':>9}")
    for path in paths:
        answers = load(path)
        ids = [i for i in base if i in answers]
        mean = lambda key: sum(answers[i][key] for i in ids) / len(ids)
        gains = [answers[i]["reward"] - base[i]["reward"] for i in ids]
        low, high = interval(gains)
        steered = mean("steered") / mean("tokens")
        print(f"{path.split('/')[-1]:24}{len(ids):4}{mean('reward'):+9.3f}{sum(gains) / len(ids):+8.3f}"
              f"  [{low:+.3f}, {high:+.3f}]{mean('mean_log_prob'):9.2f}{mean('tokens'):8.0f}{steered:9.2f}")


main(sys.argv[1:])
