"""The script `stackelberg` of the package: the command line, in a Python process."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest

SCRIPT = pathlib.Path(sys.executable).with_name("stackelberg")
LINE = '{"id": "a", "rewards": [0.1, 2.3, -0.4, 0.9]}\n'


@pytest.fixture(scope="module")
def script():
    """The installed script. Where the package is not installed, its module is run."""
    return [SCRIPT] if SCRIPT.is_file() else [sys.executable, "-m", "stackelberg._console"]


def both(script, program, *arguments, **options):
    """What the script and the program say. They must say the same."""
    found = [
        subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, **options)
        for command in (script, [program])
    ]
    ours, expected = [(done.returncode, done.stdout, done.stderr) for done in found]
    assert ours == expected
    return ours


def test_it_is_the_program(script, program, tmp_path):
    for arguments in [["--help"], ["--version"], ["generate", "-h"], ["completions", "bash"]]:
        code, said, error = both(script, program, *arguments)
        assert code == 0 and "stackelberg" in said and error == ""
    code, said, _ = both(script, program, "shape", "-", "--shaping", "hard", input=LINE)
    assert code == 0 and json.loads(said)["shaped"] == [0.0, 2.0, 0.0, 0.0]
    # Names of files need not be UTF-8.
    file = tmp_path / "r\udcff.jsonl"
    file.write_text(LINE)
    assert both(script, program, "shape", file, "--shaping", "hard")[:2] == (0, said)


def test_errors_have_exit_code_2(script, program, tmp_path):
    for arguments, words in [
        ([], "Usage: stackelberg"),
        (["shapes"], "unrecognized subcommand"),
        (["shape", "--bound", "x"], "invalid value 'x'"),
        (["shape", tmp_path / "missing.jsonl"], "missing.jsonl"),
        (["train", "value", tmp_path, "--out", tmp_path / "v.safetensors"], "it has no manifest.json"),
    ]:
        code, said, error = both(script, program, *arguments)
        assert (code, said) == (2, "") and words in error
    code, said, error = both(script, program, "shape", "-", input=LINE + "{}\n")
    assert code == 2 and error.startswith("error: <stdin>:2: ")


def test_logs(script, program, monkeypatch):
    monkeypatch.setenv("RUST_LOG", "info")
    said = subprocess.run([*script, "generate", "Hello!", "--max-new-tokens", "2"], capture_output=True, text=True, check=True)
    assert "INFO stackelberg_cli::model: loaded the policy policy=" in said.stderr


def test_a_pipe_that_is_closed_is_no_error(script):
    for arguments in ["--help", "completions zsh", "shape -"]:
        command = [*script, *arguments.split()]
        started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.stdout.close()
        _, error = started.communicate(LINE * 1000)
        assert (started.returncode, error) == (0, "")


def rows(file):
    return file.read_text().splitlines() if file.is_file() else []


def test_interrupts_stop_a_command_that_resumes(script, program, tmp_path):
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Count to {i}."}) + "\n" for i in range(20)))
    command = ["generate", "--prompts", prompts, "--out", out, "--method", "base", "--max-new-tokens", 6, "--batch-size", 1]
    command = [str(part) for part in command]
    started = subprocess.Popen([*script, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 60
    while len(rows(out)) < 2 and time.monotonic() < limit:
        time.sleep(0.01)
    started.send_signal(signal.SIGINT)
    _, error = started.communicate(timeout=60)
    assert started.returncode == 130 and "Traceback" not in error and "continue with --resume" in error
    kept = rows(out)
    assert 2 <= len(kept) < 20
    subprocess.run([*script, *command, "--resume"], check=True, capture_output=True)
    again = tmp_path / "again.jsonl"
    command[command.index(str(out))] = str(again)
    subprocess.run([program, *command], check=True, capture_output=True)
    texts = [[json.loads(line)["response"] for line in rows(file)] for file in (out, again)]
    assert rows(out)[: len(kept)] == kept and texts[0] == texts[1] and len(texts[0]) == 20


def heed():
    """Lets Ctrl-C end this process, even where the tests run in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_interrupts_end_a_command_that_waits(script, program):
    for command in (script, [program]):
        started = subprocess.Popen([*command, "shape", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=heed)
        time.sleep(1)
        assert started.poll() is None
        started.send_signal(signal.SIGINT)
        started.communicate(timeout=30)
        assert started.returncode == -signal.SIGINT


def test_it_starts_without_numpy(python):
    said = python("""
import sys
sys.argv = ["stackelberg", "--version"]
from stackelberg._console import main
print(main(), sorted(name for name in sys.modules if name.split(".")[0] in ("numpy", "stackelberg")))
""")
    assert said.endswith("0 ['stackelberg', 'stackelberg._console', 'stackelberg._lib']\n")
