"""Makes length.json: preferences that length alone decides, and AlpacaEval's length-controlled rate of them.

The fit is scikit-learn's: each prompt twice, once as a win and once as a loss, weighted by the preference, with
the terms of AlpacaEval 2 that two runs can identify; the ridge is C = 100. Needs numpy and scikit-learn.
"""

import json
import sys

import numpy as np
import sklearn
from sklearn.linear_model import LogisticRegression


def controlled(preferences, longer_by):
    """The rate at equal length, and the weight of length."""
    y, x = np.array(preferences), np.array(longer_by, dtype=float)
    terms = np.column_stack([np.ones_like(x), np.tanh(x / x.std(ddof=1))])
    model = LogisticRegression(C=100, fit_intercept=False, tol=1e-12, max_iter=100_000)
    model.fit(np.vstack([terms, terms]), np.repeat([1, 0], len(y)), np.concatenate([y, 1 - y]))
    theta, phi = model.coef_[0]
    return 1 / (1 + np.exp(-theta)), phi


def case(name, preferences, longer_by):
    rate, weight = controlled(preferences, longer_by)
    raw = float(np.mean(preferences))
    return {"name": name, "preferences": preferences, "longer_by": longer_by, "raw": raw, "controlled": rate, "weight": weight}


def main():
    rng = np.random.default_rng(5)
    # A is longer by 200 characters in the mean; who wins depends on length and on nothing else.
    longer_by = rng.normal(200, 150, 400).round()
    wins = (rng.random(400) < 1 / (1 + np.exp(-4 * np.tanh(longer_by / longer_by.std(ddof=1))))).astype(float)
    cases = [case("length alone", wins.tolist(), longer_by.tolist())]
    # Ties, and a quality of its own.
    chance = 1 / (1 + np.exp(-0.8 - 0.5 * np.tanh(longer_by / longer_by.std(ddof=1))))
    better = np.where(rng.random(400) < 0.3, 0.5, (rng.random(400) < chance).astype(float))
    cases.append(case("better too", better[:60].tolist(), longer_by[:60].tolist()))
    cases.append(case("all won", [1.0] * 12, longer_by[:12].tolist()))
    cases.append(case("the longer always wins", (longer_by[:40] > 200).astype(float).tolist(), (longer_by[:40] - 200).tolist()))
    json.dump({"made_by": f"length.py, scikit-learn {sklearn.__version__}", "cases": cases}, sys.stdout)
    print()


main()
