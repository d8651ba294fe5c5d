"""Results agree with the output of the paper's Python reference, to the precision of its bisection."""

import json

import numpy as np
import pytest
from conftest import ROOT

import stackelberg

DATA = ROOT / "crates" / "shaping" / "tests" / "data"


def test_offline_shaping():
    cases = json.loads((DATA / "offline_soft_shape.json").read_text())["cases"]
    assert len(cases) >= 20
    for case in cases:
        settings = {"bound": case["B"], "beta": case["beta"], "alpha": case["alpha"], "exponent_cap": case["cap"]}
        result = stackelberg.shape(case["rewards"], rule="srs", budget="reference-offline", **settings)
        scale = max(1.0, np.abs(case["rewards"]).max())
        assert float(result.threshold) == pytest.approx(case["m_star"], abs=1e-9 * scale)
        assert result.shaped == pytest.approx(np.array(case["shaped"]), abs=1e-9 * scale)
