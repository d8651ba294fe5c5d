"""Signals, forks and the end of the process."""

import json
import subprocess
import sys

import pytest


def test_interrupts_end_calls(python):
    said = python("""
import json, os, signal, threading, time
import stackelberg

policy = stackelberg.Policy()
sent = []

def interrupt():
    time.sleep(0.7)
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)

def slow(prompts, answers):
    time.sleep(1.5)
    return [0.0] * len(answers)

def waits(call):
    threading.Thread(target=interrupt).start()
    try:
        call()
    except KeyboardInterrupt:
        return time.perf_counter() - sent[-1]
    return None

endless = {"max_tokens": 6000, "ignore_eos": True}
calls = [
    lambda: policy.generate(["Hello!", "Hi!"], **endless),
    lambda: list(policy.stream("Hello!", **endless)),
    lambda: policy.generate("Hello!", guidance={"reward": slow}, **endless),
]
took = [waits(call) for call in calls]
began = time.perf_counter()
text = policy.generate("What is the capital of France?", max_tokens=8).text
print(json.dumps([took, time.perf_counter() - began, text]))
""")
    took, again, text = json.loads(said)
    assert all(one is not None and one < 1.0 for one in took), took
    assert "Paris" in text and again < 10


def test_a_forked_child_is_refused(python):
    said = python("""
import os, sys, warnings
import stackelberg
warnings.simplefilter("ignore")
policy = stackelberg.Policy()
policy.generate("Hello!", max_tokens=2)
child = os.fork()
if child == 0:
    said = []
    for call in [
        lambda: policy.generate("Hello!"),
        lambda: policy.stream("Hello!"),
        lambda: stackelberg.Policy(),
        lambda: stackelberg.Reward("sentiment"),
    ]:
        try:
            call()
        except RuntimeError as error:
            said.append(str(error))
    good = len(said) == 4 and all("a forked process cannot use models" in words for words in said)
    good = good and stackelberg.shape([0.1, 2.3], rule="hard").shaped.tolist() == [0.0, 2.0]
    # The interpreter ends as usual.
    sys.exit(0 if good else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(status, policy.generate("What is the capital of France?", max_tokens=8).text)
""")
    assert said.startswith("0 ") and "Paris" in said


@pytest.mark.parametrize("under_way", ["nothing", "stream", "function"])
def test_the_process_ends(tmp_path, under_way):
    code = f"""
import threading, time
import stackelberg
policy = stackelberg.Policy()
called = threading.Event()
def slow(prompts, answers):
    called.set()
    time.sleep(0.5)
    return [0.0] * len(answers)
if {under_way!r} == "stream":
    stream = policy.stream("Hello!", max_tokens=6000, ignore_eos=True)
    next(stream)
if {under_way!r} == "function":
    stream = policy.stream("Hello!", guidance={{"reward": slow}}, max_tokens=100)
    called.wait()
print("end")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_a_closed_policy_says_so(python):
    said = python("""
import stackelberg
with stackelberg.Policy() as policy:
    stream = policy.stream("Hello!", max_tokens=6000, ignore_eos=True)
    next(stream)
policy.close()
for call in [lambda: policy.generate("Hello!"), lambda: list(stream)]:
    try:
        call()
    except RuntimeError as error:
        print(error)
""")
    assert said == "the decoding thread has ended: the policy is closed\n" * 2


def test_nothing_else_is_imported(python):
    said = python("""
import json, sys
import stackelberg
with stackelberg.Policy() as policy:
    policy.generate("Hello!", guidance={"reward": "sentiment"}, max_tokens=2)
found = {name.split(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
print(json.dumps(sorted(name for name in found if not name.startswith(("_", "sitecustomize")))))
""")
    assert set(json.loads(said)) == {"numpy", "stackelberg"}
