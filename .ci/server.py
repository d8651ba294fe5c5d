"""A server of this project that a check starts and stops."""

import contextlib
import re
import subprocess

KEY = "a key"
REWARDS = ["--reward", "kind=sentiment", "--reward", "safe=harmless"]


class Failed(Exception):
    """The server does not do what it should."""


@contextlib.contextmanager
def server(program, *options):
    """Starts `stackelberg serve` with these options and a key on a free port, and gives its address and the process.
    It must end with status 0 when it is told to."""
    command = [program, "serve", "--port", "0", "--api-key", KEY, *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if found := re.search("listening on (http://[^ ]+)", line):
                break
        else:
            raise Failed("the server does not start: " + "".join(said[-3:]).strip())
        yield found[1].strip(), process
        process.terminate()
        status = process.wait(60)
        if status != 0:
            raise Failed(f"the server ends with status {status}")
    finally:
        process.kill()
