#!/usr/bin/env python3
"""Reward against cost, of the finished runs of an experiment: bench/frontier.py FOLDER [FIGURE.svg]

Prints one line per setting: answers, tokens run and KL bound per answer, mean log-probability per token, diversity, coherence,
and each reward with its paired difference from best-of-8 (95 percent bootstrap interval over prompts, each the mean of its
seeds; not corrected for the number of comparisons). Draws the first held-out reward against tokens and against KL. Standard
library only.
"""

import collections
import html
import json
import math
import pathlib
import random
import re
import statistics
import sys

RESAMPLES = 4000
REFERENCE = "best-of-n samples 8"
COLOURS = ["#1b5a9e", "#8a4b00", "#0b6b49", "#a63a10", "#6a3d9a", "#5d5a52"]


def loaded(folder):
    """Of each setting the prompts, and of each prompt the values of its seeds by name. Settings that are not scored are left out."""
    settings = collections.defaultdict(lambda: collections.defaultdict(list))
    for run in sorted((folder / "runs").iterdir()):
        scores = sorted(run.glob("scores-*.jsonl"), key=lambda file: file.stat().st_mtime)
        if not scores:
            continue
        answers = {}
        for line in (run / "answers.jsonl").read_text().splitlines():
            answer = json.loads(line)
            answers[answer["id"]] = answer
        for line in scores[-1].read_text().splitlines():
            row = json.loads(line)
            answer = answers[row["id"]]
            kl = answer.get("kl_bound")
            values = {"tokens": answer.get("tokens_run") or row["tokens"], "KL": row["kl"] if kl is None else kl,
                      "log p": row["log_prob"], "diversity": row["diversity"], "coherence": row["coherence"]}
            settings[name(run.name)][row["id"]].append(values | row["rewards"])
    return settings


def name(folder):
    """The setting: the folder's name without seed and hash."""
    setting = re.sub(r"-s\d+-[0-9a-f]{8}$", "", folder)
    return re.sub(r"-(samples|block|value|keep)-", r" \1 ", setting)


def means(prompts, key):
    """The value of each prompt: the mean of its seeds."""
    found = {}
    for prompt, rows in prompts.items():
        values = [row[key] for row in rows if row[key] is not None]
        if values:
            found[prompt] = statistics.fmean(values)
    return found


def difference(one, other):
    """The mean paired difference and its interval."""
    differences = [one[prompt] - other[prompt] for prompt in one if prompt in other]
    dice = random.Random(1)
    draws = sorted(statistics.fmean(dice.choices(differences, k=len(differences))) for _ in range(RESAMPLES))
    return statistics.fmean(differences), draws[int(0.025 * RESAMPLES)], draws[int(0.975 * RESAMPLES) - 1]


def table(settings, rewards):
    print(f"{'setting':44} answers  tokens     KL  log p  diversity  coherence  " + "  ".join(f"{reward:>6} - {REFERENCE}" for reward in rewards))
    for setting in sorted(settings, key=lambda setting: statistics.fmean(means(settings[setting], "tokens").values())):
        prompts = settings[setting]
        mean = {key: statistics.fmean(means(prompts, key).values()) for key in ("tokens", "KL", "log p", "diversity", "coherence", *rewards)}
        parts = []
        for reward in rewards:
            gain, low, high = difference(means(prompts, reward), means(settings[REFERENCE], reward))
            parts.append(f"{mean[reward]:+.3f} {gain:+.3f} [{low:+.3f}, {high:+.3f}]")
        count = sum(len(rows) for rows in prompts.values())
        print(f"{setting:44} {count:7} {mean['tokens']:7.0f} {mean['KL']:6.2f} {mean['log p']:6.2f} {mean['diversity']:10.3f} {mean['coherence']:10.3f}  " + "  ".join(parts))


def ticks(low, high):
    """Round numbers in equal steps, at most six."""
    step = 10 ** math.floor(math.log10((high - low) / 5))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 5)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def figure(settings, reward, file):
    """Two charts, with a bar of the paired interval against best-of-8 at each point."""
    width, height, left, bottom, top = 420, 300, 56, 44, 28
    points = {}
    for setting, prompts in settings.items():
        of = means(prompts, reward)
        centre = statistics.fmean(means(settings[REFERENCE], reward).values())
        _, low, high = difference(of, means(settings[REFERENCE], reward))
        points[setting] = {"tokens": statistics.fmean(means(prompts, "tokens").values()), "KL": statistics.fmean(means(prompts, "KL").values()),
                           "y": statistics.fmean(of.values()), "low": centre + low, "high": centre + high}
    least, most = min(point["low"] for point in points.values()), max(point["high"] for point in points.values())
    least, most = least - 0.05 * (most - least), most + 0.05 * (most - least)
    order = sorted(points, key=lambda setting: (not setting.startswith(("base", "best-of-n")), setting))
    line = [setting for setting in order if setting.startswith(("base", "best-of-n"))]
    others = [setting for setting in order if setting not in line]
    colour = {setting: COLOURS[0] for setting in line} | {setting: COLOURS[1 + i % (len(COLOURS) - 1)] for i, setting in enumerate(others)}
    parts = []
    for panel, (key, title) in enumerate((("tokens", "tokens run per answer"), ("KL", "KL from the base policy, bound in nats"))):
        origin = panel * (width + 20)
        limit = max(point[key] for point in points.values()) * 1.05
        x = lambda value: origin + left + value / limit * (width - left - 12)
        y = lambda value: top + (most - value) / (most - least) * (height - top - bottom)
        for value in ticks(least, most):
            parts.append(f'<line x1="{origin + left}" x2="{origin + width - 12}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#dedad0"/>'
                         f'<text x="{origin + left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
        for value in ticks(0, limit):
            parts.append(f'<text x="{x(value):.1f}" y="{height - bottom + 16}" text-anchor="middle">{value:g}</text>')
        parts.append(f'<text x="{origin + left}" y="16">{html.escape(reward)}, held out</text>'
                     f'<text x="{origin + (left + width) / 2}" y="{height - 8}" text-anchor="middle">{title}</text>')
        way = " ".join(f"{x(points[s][key]):.1f},{y(points[s]['y']):.1f}" for s in sorted(line, key=lambda s: points[s][key]))
        parts.append(f'<polyline points="{way}" fill="none" stroke="{COLOURS[0]}" stroke-width="1.5"/>')
        for setting in order:
            point = points[setting]
            a, b = x(point[key]), y(point["y"])
            parts.append(f'<line x1="{a:.1f}" x2="{a:.1f}" y1="{y(point["low"]):.1f}" y2="{y(point["high"]):.1f}" stroke="{colour[setting]}"/>'
                         f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{colour[setting]}"><title>{html.escape(setting)}</title></circle>')
    legend = [("best-of-n: 0 (base), " + ", ".join(sorted((s.split()[-1] for s in line if s != "base"), key=int)), COLOURS[0])]
    legend += [(setting.replace("blockwise samples 8 block", "blockwise 8 x"), colour[setting]) for setting in others]
    for i, (text, paint) in enumerate(legend):
        a, b = left + (i % 2) * (width + 20), height + 18 + 20 * (i // 2)
        parts.append(f'<circle cx="{a}" cy="{b - 4}" r="4" fill="{paint}"/><text x="{a + 10}" y="{b}">{html.escape(text)}</text>')
    total = height + 20 + 20 * ((len(legend) + 1) // 2)
    file.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * width + 20} {total}" font-family="sans-serif" font-size="12" fill="#1e1d1a">'
                    f'<rect width="100%" height="100%" fill="#fdfcf9"/>{"".join(parts)}</svg>\n')


def main():
    if len(sys.argv) not in (2, 3):
        print(__doc__.strip().splitlines()[0], file=sys.stderr)
        return 2
    settings = loaded(pathlib.Path(sys.argv[1]))
    first = next(iter(next(iter(settings.values())).values()))[0]
    rewards = list(first)[5:]
    table(settings, rewards)
    if len(sys.argv) == 3:
        figure(settings, rewards[1], pathlib.Path(sys.argv[2]))
    return 0


sys.exit(main())
