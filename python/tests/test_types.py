"""The types of the package, as a type checker sees them."""

import pathlib
import subprocess
import sys

from conftest import ROOT


def check(*arguments, cwd):
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_and_an_example(tmp_path):
    example = pathlib.Path(__file__).with_name("typed_example.py")
    options = ["mypy", "--config-file", ROOT / "pyproject.toml", "--cache-dir", tmp_path / "cache"]
    check(*options, "-p", "stackelberg", cwd=tmp_path)
    check(*options, example, cwd=tmp_path)
    check(example.stem, cwd=example.parent)


def test_the_stub_describes_the_module(tmp_path):
    check("mypy.stubtest", "stackelberg._lib", cwd=tmp_path)
