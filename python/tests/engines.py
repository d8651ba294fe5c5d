"""What the tests of the engine share."""

import json
import subprocess

import numpy as np

PROMPT = "How do I say no to a friend?"


def generated(program, folder, prompt, *flags):
    """The answer of `stackelberg generate` and its trace."""
    answers, trace = folder / "answers.jsonl", folder / "trace.jsonl"
    for file in (answers, trace):
        file.unlink(missing_ok=True)
    done = subprocess.run(
        [program, "generate", prompt, "--out", answers, "--trace", trace, *map(str, flags)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line) for line in trace.read_text().splitlines()]
    return json.loads(answers.read_text()), steps


def value_head(path, width=576, hidden=8):
    """Writes a value head with random weights, a safetensors file without metadata."""
    random = np.random.default_rng(0)
    shapes = {"0.weight": (hidden, width), "0.bias": (hidden,), "2.weight": (hidden, hidden), "2.bias": (hidden,)}
    shapes |= {"4.weight": (1, hidden), "4.bias": (1,)}
    header, data = {}, b""
    for name, shape in shapes.items():
        values = random.normal(size=shape).astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def flags(settings):
    """Settings as flags of the command line."""
    names = {"max_tokens": "max-new-tokens"}
    return [f"--{names.get(name, name.replace('_', '-'))}={value}" for name, value in settings.items()]
