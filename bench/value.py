"""Compares the training of value heads with the paper's Python reference: speed and quality, on one thread each,
alternating. Writes the raw figures to bench/runs/. In a virtual environment:

    pip install numpy pyarrow safetensors torch==2.6.0
    python bench/value.py [DATASET CHECK [ROUNDS [EPOCHS]]]

DATASET and CHECK are datasets of `stackelberg rollout` with different prompts. By default, two are made from MT-bench's
first prompts, with 20 prompts x 10 samples x 128 tokens each. The reference is reimplemented from its description on
torch, in float32: Linear(d, 8192) tanh Linear(8192, d) tanh Linear(d, 1), orthogonal initialization, Adam 1e-4, batches of
64 sequences padded with a mask, the squared error of the last token plus the mean squared difference of neighbouring
values, gradients clipped at 1.

The shaping is srs with bound 4 and alpha 1. Both train on 95 percent of DATASET's prompts. The rate is the number of training sequences divided by the time of the
epochs, validation on the other prompts included. For ours, the time includes reading the dataset. The rate by CPU time
(which other programs disturb less) also includes the start and the end of our command. All heads are then evaluated on the
shaped rewards of CHECK with the same code: the mean squared error at the last token, with values clamped as in decoding.
Our head is from the epoch with the best validation MSE, torch's from the last epoch.
"""

import glob
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time

import numpy
import torch
from pyarrow import parquet
from safetensors.torch import load_file, save_file

from peers import BINARY, CACHE, alone, company, kept

BOUND = 4.0
SHAPING = ["--shaping", "srs", "--strength", "1", "--bound", str(BOUND), "--alpha", "1"]
WIDTH, BATCH, RATE, CLIP, SHARE = 8192, 64, 1e-4, 1.0, 0.05
HEADS = {"torch 8192": ["torch"], "ours 8192": ["ours", "--width", str(WIDTH)], "ours default": ["ours"]}


def read(folder):
    """For every sample with tokens: its prompt, hidden states [tokens, d] and shaped reward."""
    prompts, states, rewards = [], [], []
    for table in sorted(glob.glob(f"{folder}/rollouts-*.parquet")):
        rows = parquet.read_table(table, columns=["prompt_id", "reward"]).to_pydict()
        tensors = load_file(table.replace("rollouts-", "hidden-").replace(".parquet", ".safetensors"))
        prompts += rows["prompt_id"]
        rewards += rows["reward"]
        states += torch.split(tensors["hidden"], tensors["offsets"].diff().tolist())
    groups = {}
    for prompt, reward in zip(prompts, rewards):
        groups.setdefault(prompt, []).append(reward)
    lines = "".join(json.dumps({"id": prompt, "rewards": group}) + "\n" for prompt, group in groups.items())
    shaped = subprocess.run([BINARY, "shape", *SHAPING], input=lines, capture_output=True, text=True, check=True)
    values = [value for line in shaped.stdout.splitlines() for value in json.loads(line)["shaped"]]
    return [sample for sample in zip(prompts, states, values) if len(sample[1])]


def batches(samples):
    """Padded hidden states [n, tokens, d], lengths and shaped rewards [n], 64 samples at a time."""
    for i in range(0, len(samples), BATCH):
        _, states, values = zip(*samples[i:i + BATCH])
        lengths = torch.tensor([len(each) for each in states])
        yield torch.nn.utils.rnn.pad_sequence(states, batch_first=True).float(), lengths, torch.tensor(values)


def last(values, lengths):
    return values.gather(1, lengths[:, None] - 1)[:, 0]


def network(d, first, second):
    linear, tanh = torch.nn.Linear, torch.nn.Tanh
    return torch.nn.Sequential(linear(d, first), tanh(), linear(first, second), tanh(), linear(second, 1))


@torch.no_grad()
def error(head, samples):
    """Mean squared error at the last token."""
    errors = [(last(head(states)[..., 0], lengths).clamp(0, BOUND) - values) ** 2
              for states, lengths, values in batches(samples)]
    return torch.cat(errors).mean().item()


def train_torch(folder, out, epochs):
    torch.manual_seed(0)
    samples = read(folder)
    prompts = sorted({prompt for prompt, _, _ in samples})
    validates = set(numpy.random.default_rng(0).permutation(prompts)[:max(1, round(SHARE * len(prompts)))])
    training = [sample for sample in samples if sample[0] not in validates]
    validation = [sample for sample in samples if sample[0] in validates]
    d = samples[0][1].shape[1]
    head = network(d, WIDTH, d)
    for layer in head[::2]:
        torch.nn.init.orthogonal_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    adam = torch.optim.Adam(head.parameters(), lr=RATE)
    began, before = time.perf_counter(), time.process_time()
    for _ in range(epochs):
        order = torch.randperm(len(training)).tolist()
        for states, lengths, rewards in batches([training[i] for i in order]):
            values = head(states)[..., 0]
            steps = torch.arange(1, values.shape[1]) < lengths[:, None]
            along = ((values[:, 1:] - values[:, :-1]) ** 2 * steps).sum(1) / steps.sum(1).clamp(min=1)
            loss = ((last(values, lengths) - rewards) ** 2).mean() + along.mean()
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), CLIP)
            adam.step()
        error(head, validation)
    seconds, busy = time.perf_counter() - began, time.process_time() - before
    save_file(head.state_dict(), out)
    return epochs * len(training), seconds, busy


def train_ours(folder, out, epochs, *width):
    done = subprocess.run([BINARY, "train", "value", folder, "--out", out, "--threads", "1", *SHAPING,
                           "--epochs", str(epochs), "--patience", str(epochs), *width],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    sequences = epochs * int(re.search(r"train: (\d+) samples", done.stderr)[1])
    rate = float(re.search(r"trained on \d+ samples, ([\d.]+) samples/s", done.stdout)[1])
    return sequences, sequences / rate, usage.ru_utime + usage.ru_stime


def job(who, folder, check, out, epochs, *width):
    """In its own process: trains a head, evaluates it on CHECK and prints the figures."""
    torch.set_num_threads(1)
    train = {"torch": train_torch, "ours": train_ours}[who]
    sequences, seconds, busy = train(folder, out, int(epochs), *width)
    tensors = load_file(out)
    head = network(*tensors["0.weight"].T.shape, tensors["2.weight"].shape[0])
    head.load_state_dict(tensors)
    samples = read(check)
    values = torch.tensor([value for _, _, value in samples])
    print(json.dumps({"sequences_per_s": sequences / seconds, "by_processor_s": sequences / busy,
                      "error": error(head, samples), "variance": values.var(correction=0).item()}))


def made(folder):
    """Makes two datasets from MT-bench's prompts."""
    file = glob.glob(f"{CACHE}/stackelberg/**/mt_bench/question.jsonl", recursive=True)
    assert file, "MT-bench is missing: `stackelberg rollout --prompts mt-bench --out x --dry-run` downloads it"
    lines = open(file[0]).read().splitlines(keepends=True)
    for name, part in [("dataset", lines[:20]), ("check", lines[20:40])]:
        command = [BINARY, "rollout", "--prompts", "-", "--out", f"{folder}/{name}", "--stop", "<no such text>"]
        subprocess.run(command, input="".join(part), text=True, check=True, stderr=subprocess.DEVNULL)
    return f"{folder}/dataset", f"{folder}/check"


def main(dataset=None, check=None, rounds=3, epochs=2):
    rounds = int(rounds)
    given = [os.path.basename(os.path.abspath(each)) for each in (dataset, check) if each]
    with kept("value", " ".join(["bench/value.py", *given, f"| rounds {rounds}, epochs {epochs}"])) as (say, folder):
        if not dataset:
            dataset, check = made(folder)
        samples = read(dataset)
        lengths = [len(states) for _, states, _ in samples]
        say(f"torch {torch.__version__}; {len(samples)} sequences of {len({p for p, _, _ in samples})} prompts, "
            f"{statistics.mean(lengths):.1f} tokens each (most {max(lengths)}) x {samples[0][1].shape[1]}")
        say("\nraw figures, round by round (cores_of_others: how many cores other programs kept busy meanwhile)")
        found = {name: [] for name in HEADS}
        for _ in range(rounds):
            for name, (who, *width) in HEADS.items():
                out = f"{folder}/head.safetensors"
                command = [sys.executable, __file__, "job", who, dataset, check, out, str(epochs), *width]
                figures = alone(command, None)
                found[name].append(figures)
                say(name, json.dumps(figures))
        company(say, rounds, [figures for each in found.values() for figures in each])
        middle = {name: {key: statistics.median(figures[key] for figures in each) for key in each[0]}
                  for name, each in found.items()}
        say(f"\n{'sequences per':14}{'second':>10}{'by torch':>10}{'processor s':>13}{'by torch':>10}"
            f"{'error on CHECK':>16}{'explained':>11}")
        for name, figures in middle.items():
            line, theirs = f"{name:14}", middle["torch 8192"]
            for key, width in ("sequences_per_s", 10), ("by_processor_s", 13):
                line += f"{figures[key]:{width}.1f}{figures[key] / theirs[key]:9.2f}x"
            wrong = figures["error"]
            say(f"{line}{wrong:16.4f}{1 - wrong / figures['variance']:11.1%}")


if sys.argv[1:2] == ["job"]:
    job(*sys.argv[2:])
else:
    main(*sys.argv[1:])
