#!/usr/bin/env python3
"""Analyses single steps: reads the traces of an experiment's runs (`traces` in its file).

    python3 bench/steps.py FOLDER                  # the experiment's folder, standard library only

The output has, for each setting and over the traced steps: the range of the candidates' rewards; the number of candidates
above the threshold; a linear fit of the shaped reward to the reward (slope times strength is the equivalent strength of
`raw`); and the fraction of a token's gain over the policy's mean reward that remains after 1, 2, 4 and 8 tokens.
"""

import json
import math
import random
import statistics
import sys
from collections import defaultdict
from pathlib import Path

AHEAD = (1, 2, 4, 8)


def mass(logits, temperature):
    weights = [math.exp((l - max(logits)) / temperature) for l in logits]
    return [w / sum(weights) for w in weights]


def line(pairs):
    """Slope and R^2 of a linear fit; None if x is constant."""
    mx, my = (statistics.fmean(p[i] for p in pairs) for i in (0, 1))
    xx = sum((x - mx) ** 2 for x, _ in pairs)
    yy = sum((y - my) ** 2 for _, y in pairs)
    xy = sum((x - mx) * (y - my) for x, y in pairs)
    return (xy / xx, xy * xy / (xx * yy)) if xx > 0 and yy > 0 else None


def texts(folders):
    """The steps of every traced text, in order."""
    for folder in folders:
        by_id = defaultdict(list)
        for step in map(json.loads, (folder / "trace.jsonl").read_text().splitlines()):
            by_id[step["id"]].append(step)
        yield from by_id.values()


def persistence(steps, temperature):
    """For one text: pairs (gain of a token, change of the policy's mean reward) by the number of tokens after it."""
    gains, means = [], []
    for step in steps:
        p, r = mass(step["logits"], temperature), step["rewards"]
        means.append(sum(a * b for a, b in zip(p, r)))
        gains.append(r[step["candidates"].index(step["chosen"])] - means[-1])
    return {h: [(gains[t], means[t + h] - means[t]) for t in range(len(steps) - h)] for h in AHEAD}


def interval(of_texts):
    """The slope over all texts, with a 95 percent bootstrap interval over texts."""
    slope = lambda chosen: line([pair for text in chosen for pair in text])[0]
    rng = random.Random(0)
    draws = sorted(slope(rng.choices(of_texts, k=len(of_texts))) for _ in range(1000))
    return f"{slope(of_texts):+.2f} [{draws[25]:+.2f}, {draws[974]:+.2f}]"


def main():
    settings = defaultdict(list)
    for folder in sorted(Path(sys.argv[1], "runs").iterdir()):
        if folder.name.startswith("args-") and (folder / "trace.jsonl").exists():
            settings[folder.name.rsplit("-", 2)[0]].append(folder)
    print("setting | steps | range of rewards, median | standard deviation under the policy, median | rewarded by the "
          "threshold, of the candidates: median | slope of s over r, median | its R2 | "
          + " | ".join(f"left after {h}" for h in AHEAD))
    for name, folders in settings.items():
        temperature = json.loads((folders[0] / "run.json").read_text())["settings"]["temperature"]
        ranges, deviations, rewarded, slopes, fits, left = [], [], [], [], [], defaultdict(list)
        for steps in texts(folders):
            if any(not step.get("rewards") for step in steps):
                continue
            for step in steps:
                p, r = mass(step["logits"], 1.0), step["rewards"]
                mean = sum(a * b for a, b in zip(p, r))
                ranges.append(max(r) - min(r))
                deviations.append(math.sqrt(sum(a * (b - mean) ** 2 for a, b in zip(p, r))))
                if step.get("threshold") is not None:
                    rewarded.append(sum(b >= step["threshold"] - 1e-9 for b in r))
                fit = line(list(zip(r, step["shaped"])))
                if fit:
                    slopes.append(fit[0])
                    fits.append(fit[1])
            for h, pairs in persistence(steps, temperature or 1.0).items():
                left[h].append(pairs)
        if not ranges:
            continue
        median = statistics.median
        print(f"{name} | {len(ranges)} | {median(ranges):.2f} | {median(deviations):.2f} | "
              f"{median(rewarded) if rewarded else '-'} | {median(slopes):.2f} | {median(fits):.2f} | "
              + " | ".join(interval(left[h]) for h in AHEAD))


if __name__ == "__main__":
    main()
