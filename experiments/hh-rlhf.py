#!/usr/bin/env python3
"""Makes the files of preference pairs that smollm2.toml needs, from your own download of Anthropic's HH-RLHF.

    python3 experiments/hh-rlhf.py FOLDER [--out FOLDER]

FOLDER holds the data set, or its part harmless-base: the file test.jsonl.gz (or test.jsonl). The train split is not
used. Written are, by default beside this script,

    hh-harmless-guide.jsonl.gz   1,184 pairs: value heads and the head `harmless` are trained on them
    hh-harmless-judge.jsonl.gz     487 pairs: held-out rewards, which never guide, are trained on them
    hh-harmless-eval.jsonl.gz      348 pairs: prompts of experiments, and held-out accuracy

A pair belongs to a file by the first human turn of its conversation, so no two files share an opening. About
one pair in seven is in none. The script says whether its files hold the same pairs as those of the reported experiments. The data contain
offensive text. Needs only Python's standard library.
"""

import argparse
import gzip
import hashlib
import json
import pathlib
import sys

# The part of each file: of the hash of the first human turn, modulo 100. The hash of its pairs, one JSON line each.
FILES = {
    "guide": (range(0, 50), "83aaff4bb95c92349b24a68475ba369360832ef15e37ac472524396f91768c26"),
    "judge": (range(50, 72), "799ced4ea4bc9d6ce742700c646aab58786441ed707cc52fff914aa2bd40fe2a"),
    "eval": (range(72, 86), "d390f00809fd0dafd0a91a11c087f33fb888e8edebfcdf84bd9fb47201773ea8"),
}


def find(folder):
    """The test split of harmless-base."""
    for part in ("harmless-base", "."):
        for name in ("test.jsonl.gz", "test.jsonl"):
            if (path := folder / part / name).is_file():
                return path
    sys.exit(f"error: neither {folder}/harmless-base nor {folder} has a test.jsonl.gz or test.jsonl")


def pairs(path):
    """The pairs of a file of JSON lines."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                pair = json.loads(line)
                yield {"chosen": pair["chosen"], "rejected": pair["rejected"]}
            except (ValueError, KeyError, TypeError):
                sys.exit(f"error: {path}:{number}: not an object with 'chosen' and 'rejected'")


def part(pair):
    """The part of a pair, 0 to 99, by the first human turn, which begins with "Human: "."""
    opening = pair["chosen"].strip().split("\n\nAssistant:", 1)[0].rstrip()
    return int.from_bytes(hashlib.sha256(opening.encode()).digest(), "big") % 100


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="your download of HH-RLHF")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent, help="where the files are written")
    args = parser.parse_args()
    lines = {name: [] for name in FILES}
    for pair in pairs(find(args.folder)):
        number = part(pair)
        for name, (numbers, _) in FILES.items():
            if number in numbers:
                lines[name].append(json.dumps(pair, ensure_ascii=False) + "\n")
    args.out.mkdir(parents=True, exist_ok=True)
    for name, (_, expected) in FILES.items():
        data = "".join(lines[name]).encode()
        path = args.out / f"hh-harmless-{name}.jsonl.gz"
        path.write_bytes(gzip.compress(data, mtime=0))
        same = "as in the reported experiments"
        if hashlib.sha256(data).hexdigest() != expected:
            same = "NOT those of the reported experiments: the data set is another version or another part"
        print(f"{path}: {len(lines[name])} pairs, {same}")


main()
