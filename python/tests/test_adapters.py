"""What the adapters compute with NumPy alone, and the stage of Ray against a server. `adapters/` has the tests with the libraries."""

import contextlib
import http.server
import json
import subprocess
import threading
import types

import numpy as np
import pytest

import stackelberg
from stackelberg import _step, ray, trl, vllm


def test_the_scores_of_a_step_are_those_of_the_engine(policy):
    """The fused scores of traces, from their logits and rewards."""
    for settings in [{"kl_budget": 0.3}, {"shaping": "raw", "strength": 0.5}, {"shaping": "hard", "beta": 2.0, "bound": 3.0}, {}]:
        for temperature in (0.0, 0.7):
            guidance = stackelberg.Guidance(method="args", reward="sentiment", trace=True, skip=False, **settings)
            answer = policy.generate("How was your day?", guidance=guidance, temperature=temperature, max_tokens=8)
            rule = _step.rule({("rule" if name == "shaping" else name): value for name, value in settings.items()})
            logits, rewards, fused = (np.array([step[name] for step in answer.trace]) for name in ("logits", "rewards", "fused"))
            np.testing.assert_allclose(_step.fused(logits, rewards, rule, temperature or 1.0), fused, rtol=0, atol=1e-9)


def test_a_step_keeps_masked_candidates_out():
    fused = _step.fused(np.array([[1.0, 0.5, -np.inf]]), np.array([[0.0, 1.0, 9.0]]), {"rule": "srs", "bound": 2.0})
    assert np.isfinite(fused[0, :2]).all() and fused[0, 2] == -np.inf


def test_rules_of_steps_are_checked():
    assert _step.rule({}) == {"kl_budget": 0.3} and _step.rule({"bound": 1.0, "beta": None}) == {"bound": 1.0}
    with pytest.raises(TypeError, match="unknown setting 'shaping'"):
        _step.rule({"shaping": "srs"})
    with pytest.raises(ValueError, match="unknown"):
        _step.rule({"rule": "best"})


def test_groups_of_a_trainer_are_shaped_with_their_own_thresholds():
    random = np.random.default_rng(0)
    rewards, prompts = random.normal(size=24), np.repeat([7, 3, 7], 8)
    shaped, found = trl.shaped_groups(rewards, prompts, 8, {"rule": "hard", "bound": 2.0})
    alone = stackelberg.shape(rewards.reshape(3, 8), rule="hard", bound=2.0)
    assert (shaped == alone.shaped.reshape(-1)).all() and (found.threshold == alone.threshold).all()
    # None of a group has no part in it; a group without rewards is left out.
    rewards[[1, *range(8, 16)]] = np.nan
    shaped, found = trl.shaped_groups(rewards, prompts, 8, {"bound": 2.0})
    assert np.isnan(shaped).nonzero()[0].tolist() == [1, *range(8, 16)]
    kept = np.delete(rewards[:8], 1)
    assert (np.delete(shaped[:8], 1) == stackelberg.shape(kept, bound=2.0).shaped).all() and found.threshold.size == 2
    shaped, found = trl.shaped_groups(np.full(8, np.nan), np.zeros(8), 8, {})
    assert np.isnan(shaped).all() and found is None


def test_groups_of_a_trainer_are_checked():
    with pytest.raises(RuntimeError, match="group 1 of the gathered rewards has completions of several prompts"):
        trl.shaped_groups(np.zeros(8), np.array([1, 1, 1, 1, 2, 2, 2, 3]), 4, {})
    with pytest.raises(RuntimeError, match="6 rewards of 6 prompts are no groups of 4"):
        trl.shaped_groups(np.zeros(6), np.zeros(6), 4, {})
    with pytest.raises(ValueError, match="group 1: .* inf"):
        trl.shaped_groups(np.array([0.0, 1.0, 0.0, np.inf]), np.array([1, 1, 2, 2]), 2, {})
    with pytest.raises(TypeError, match="unknown setting 'weights'"):
        trl.settings({"weights": [1.0]})
    with pytest.raises(ValueError, match="bound"):
        trl.settings({"bound": -1.0})
    with pytest.raises(RuntimeError, match="ShapedRewards comes before"):
        type("Wrong", (trl.ShapedRewards, object), {})()


def test_prompts_have_the_same_number_everywhere(python):
    prompts = ["a", "b", [{"role": "user", "content": "a"}], "a", [{"content": "a", "role": "user"}]]
    found = trl.identities(prompts)
    assert found[0] == found[3] and found[2] == found[4] and len(set(found)) == 3 and max(found) < 1 << 24
    assert python(f"from stackelberg import trl; print(trl.identities({prompts!r}))").strip() == str(found)


def test_sums_of_reward_functions():
    rewards = np.array([[1.0, np.nan], [2.0, 4.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(trl.sums(rewards, np.array([1.0, 0.5])), [1.0, 4.0, np.nan])


def request(number, texts, **fields):
    outputs = [types.SimpleNamespace(text=text, token_ids=(5, 6), finish_reason="stop", index=i) for i, text in enumerate(texts)]
    known = {"request_id": str(number), "prompt": f"Prompt {number}", "prompt_token_ids": [1, 2], "outputs": outputs, "finished": True}
    return types.SimpleNamespace(**known | fields)


def lengths(prompts, answers):
    return [float(len(answer)) for answer in answers]


def test_outputs_of_vllm_are_imported(program, tmp_path):
    requests = [request(0, ["One.", "Two, three."]), request(1, ["Four!", "Five?", "Six"])]
    rows = vllm.rows(requests, lengths)
    assert [row["rewards"] for row in rows] == [[4.0, 11.0], [5.0, 5.0, 3.0]]
    assert rows == vllm.rows(requests, [[4, 11], np.array([5, 5, 3])]) and "rewards" not in vllm.rows(requests)[0]
    file, out = tmp_path / "samples.jsonl", tmp_path / "rollouts"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = subprocess.run([program, "rollout", "import", file, "--out", out, "--no-hidden"], capture_output=True, text=True)
    assert done.returncode == 0 and "5 samples" in done.stdout + done.stderr, done.stdout + done.stderr


def test_outputs_of_vllm_are_checked():
    for wrong, what in [
        ({"finished": False}, "request 0 is not finished"), ({"prompt": None}, "no text of its prompt: give prompts="),
        ({"outputs": []}, "no outputs"),
    ]:
        with pytest.raises(ValueError, match=what):
            vllm.rows([request(0, ["a"], **wrong)])
    assert vllm.rows([request(0, ["a"], prompt=None)], prompts=["Hey"])[0]["prompt"] == "Hey"
    for rewards, what in [([[1.0]], "row 0: rewards has 1 entries but there are 2"), ([[1.0, np.nan]], "not a finite"), ([], "0 rows")]:
        with pytest.raises(ValueError, match=what):
            vllm.rows([request(0, ["a", "b"])], rewards)
    with pytest.raises(ValueError, match="returned 1 rewards for 2 answers"):
        vllm.rows([request(0, ["a", "b"])], lambda prompts, answers: [1.0])


class Table:
    """What the stages use of a table of pyarrow."""

    def __init__(self, rows):
        self.rows = rows

    @classmethod
    def from_pylist(cls, rows):
        return cls(rows)

    def to_pylist(self):
        return self.rows


class Dataset:
    """What `build_processor` uses of a data set."""

    def __init__(self, rows):
        self.rows = rows

    def map_batches(self, function, *, batch_size, batch_format, concurrency):
        batches = [self.rows[i : i + batch_size] for i in range(0, len(self.rows), batch_size)]
        return Dataset([row for batch in batches for row in function(Table(batch)).to_pylist()])


@contextlib.contextmanager
def server(answer):
    """A server whose function gets the path and the body of each request, and gives a status and an answer."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or "null")
            status, found = answer(self.path, body)
            written = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(written)))
            self.end_headers()
            self.wfile.write(written)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever).start()
    try:
        yield f"http://127.0.0.1:{found.server_port}"
    finally:
        found.shutdown()
        found.server_close()


def chat(path, body):
    if path == "/v1/models":
        return 200, {"data": [{"id": "m"}]}
    text = body["messages"][-1]["content"]
    answers = [{"index": i, "message": {"content": f"{text} {i}"}, "finish_reason": "stop"} for i in range(body["n"])]
    return 200, {"choices": answers[::-1]}


def test_samples_of_a_server():
    with server(chat) as url:
        stage = ray.build_processor(f"{url}/v1", samples=3, reward=lengths, batch_size=2, max_tokens=4)
        prompts = ["a", [{"role": "user", "content": "bb"}], "a"]
        rows = stage(Dataset([{"prompt": prompt, "source": i} for i, prompt in enumerate(prompts)])).rows
        assert [row["response"] for row in rows] == [f"{text} {i}" for text in ("a", "bb", "a") for i in range(3)]
        assert [row["reward"] for row in rows] == [3.0] * 3 + [4.0] * 3 + [3.0] * 3
        assert [row["source"] for row in rows] == [0] * 3 + [1] * 3 + [2] * 3 and rows[4]["sample"] == 1
        assert rows[0]["prompt_id"] == rows[6]["prompt_id"] != rows[3]["prompt_id"]
        named = ray.build_processor(url, samples=1)(Dataset([{"prompt": "a", "id": 5}])).rows
        assert named[0]["prompt_id"] == 5 and "reward" not in named[0]
        with pytest.raises(ValueError, match="a row has no prompt: its columns are text"):
            ray.build_processor(url)(Dataset([{"text": "a"}]))
        with pytest.raises(ValueError, match="only `stackelberg serve` knows rewards by name"):
            ray.build_processor(url, reward="kind")(Dataset([{"prompt": "a"}]))


def test_requests_are_repeated(monkeypatch):
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    left = [503, 429]

    def busy(path, body):
        return (left.pop(), {}) if body and left else chat(path, body)

    with server(busy) as url:
        assert len(ray.build_processor(url, samples=2)(Dataset([{"prompt": "a"}])).rows) == 2 and waits == [1.0, 2.0]
        left.extend([500] * 4)
        with pytest.raises(RuntimeError, match="failed 3 times: 500"):
            ray.build_processor(url, retries=2, model="m")(Dataset([{"prompt": "a"}]))
        left[:] = [400]
        with pytest.raises(ValueError, match="refused a request: 400"):
            ray.build_processor(url)(Dataset([{"prompt": "a"}]))


def test_stages_are_checked():
    for wrong, what in [
        ({"url": "localhost:1"}, "must be the address of a server"), ({"samples": 0}, "samples is 0"), ({"timeout": 0}, "timeout is 0"),
        ({"retries": -1}, "retries is -1"), ({"requests": 5000}, "requests is 5000"),
    ]:
        with pytest.raises(ValueError, match=what):
            ray.build_processor(**{"url": "http://127.0.0.1:1"} | wrong)
    with pytest.raises(TypeError, match="stream cannot be set"):
        ray.build_processor("http://127.0.0.1:1", stream=True)
    with pytest.raises(TypeError, match="unknown setting 'groups'"):
        ray.shape(None, groups=[1])
    with pytest.raises(ValueError, match="bound"):
        ray.shape(None, bound=-1.0)


def test_groups_of_rows():
    shaped, threshold = ray.shaped_group([0.1, 2.3, None], "drop", {"rule": "hard"}, "a")
    assert shaped[:2] == [0.0, 2.0] and np.isnan(shaped[2]) and 0.1 < threshold < 2.3
    shaped, threshold = ray.shaped_group([None, float("nan")], "drop", {}, "a")
    assert np.isnan([*shaped, threshold]).tolist() == [True] * 3
    with pytest.raises(ValueError, match=r"group 'a': rewards\[2\] is None"):
        ray.shaped_group([0.1, 2.3, None], "error", {}, "a")


def test_nothing_heavy_is_imported(python):
    code = "import sys, stackelberg.ray, stackelberg.trl, stackelberg.vllm\nprint({'torch', 'ray', 'trl', 'vllm'} & set(sys.modules))"
    assert python(code).strip() == "set()"
