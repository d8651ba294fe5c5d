"""Ridge values on the hidden states of each layer: within-prompt correlation with the final reward, before the end of the text.

python bench/layers.py MODEL DATASET: MODEL is a Hugging Face folder, DATASET a rollout of `stackelberg rollout`.
"""
import glob, json, sys
import numpy as np
import torch
from pyarrow import parquet
from transformers import AutoModelForCausalLM, AutoTokenizer

BEFORE = [0, 1, 2, 4, 8, 16, 32]
LAYERS = [6, 12, 18, 22, 26, 28, 29, 30]
FOLDS, ALPHAS = 5, [1e2, 1e3, 1e4, 1e5]
torch.set_num_threads(2)
folder, dataset = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
rows = [row for path in sorted(glob.glob(f"{dataset}/rollouts-*.parquet")) for row in parquet.read_table(path).to_pylist()]
print({k: (v if not isinstance(v, (list, str)) else type(v).__name__) for k, v in rows[0].items()})
tokenizer = AutoTokenizer.from_pretrained(folder)
prompts = sorted({row["prompt_id"] for row in rows})
def prompt_tokens(text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]

states, place, owner, reward = {l: [] for l in LAYERS}, [], [], []
with torch.no_grad():
    for number, row in enumerate(rows):
        prompt, answer = prompt_tokens(row["prompt"]), row["tokens"]
        if len(answer) < 40:
            continue
        out = model.model(torch.tensor([prompt + answer]), output_hidden_states=True).hidden_states
        for l in LAYERS:
            states[l].append(out[l][0, len(prompt):].float().numpy().astype(np.float16))
        place.append(len(answer) - 1 - np.arange(len(answer)))
        owner.append(np.full(len(answer), prompts.index(row["prompt_id"])))
        reward.append(np.full(len(answer), row["reward"]))
        if number % 200 == 0:
            print(number, flush=True)
place, owner, reward = map(np.concatenate, (place, owner, reward))
fold = np.random.default_rng(0).permutation(len(prompts)) % FOLDS

def predictions(x):
    best = {alpha: np.zeros(len(x)) for alpha in ALPHAS}
    for f in range(FOLDS):
        train = fold[owner] != f
        mean, std = x[train].mean(0), x[train].std(0) + 1e-3
        z = (x - mean) / std
        a, y = z[train], reward[train]
        gram, right = a.T @ a, a.T @ (y - y.mean())
        for alpha in ALPHAS:
            w = np.linalg.solve(gram + alpha * np.eye(len(gram)), right)
            best[alpha][~train] = z[~train] @ w + y.mean()
    return best

def within(v, before, which):
    """Sums for the pooled within-prompt correlation, by prompt."""
    sums = np.zeros((len(prompts), 3))
    at = np.flatnonzero(place == before)
    for p in which:
        i = at[owner[at] == p]
        if len(i) > 1:
            a, b = v[i] - v[i].mean(), reward[i] - reward[i].mean()
            sums[p] = a @ b, a @ a, b @ b
    return sums

def corr(s):
    s = s.sum(0)
    return s[0] / np.sqrt(s[1] * s[2])

found = {}
for l in LAYERS + ["30+22", "30+26"]:
    parts = [LAYERS[-1], int(l.split("+")[1])] if isinstance(l, str) else [l]
    x = np.concatenate([np.concatenate(states[p]) for p in parts], 1).astype(np.float32)
    by = predictions(x)
    score = {alpha: np.mean([corr(within(v, b, range(len(prompts)))) for b in BEFORE[1:]]) for alpha, v in by.items()}
    alpha = max(score, key=score.get)
    found[l] = [within(by[alpha], b, range(len(prompts))) for b in BEFORE]
    print(l, f"alpha {alpha:g}", " ".join(f"{corr(s):.3f}" for s in found[l]), flush=True)
print("less the last layer, 95 percent, bootstrap over prompts")
random = np.random.default_rng(1)
draws = [random.integers(0, len(prompts), len(prompts)) for _ in range(1000)]
for l in found:
    if l != 30:
        d = [[corr(s[i]) - corr(t[i]) for i in draws] for s, t in zip(found[l], found[30])]
        print(l, " ".join("[%+.3f,%+.3f]" % tuple(np.quantile(x, [.025, .975])) for x in d), flush=True)
