"""What the tests share."""

import os
import pathlib
import subprocess
import sys

import pytest

import stackelberg

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def program():
    """The command line: STACKELBERG, or what `cargo build --release` makes."""
    path = pathlib.Path(os.environ.get("STACKELBERG", ROOT / "target" / "release" / "stackelberg"))
    assert path.is_file(), f"{path} is missing: run `cargo build --release`, or set STACKELBERG to the command line's path"
    return path


@pytest.fixture
def python(tmp_path):
    """Runs code in a Python process of its own and returns what it prints."""

    def run(code):
        # In an empty folder, so that the installed package is imported.
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def policy():
    """The default model, which is loaded once."""
    with stackelberg.Policy() as loaded:
        yield loaded


def files(folder):
    """The content of the files of a folder, by name."""
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}
