"""A headless Chromium that is driven over WebDriver, with Python's standard library alone."""

import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request


class Wrong(Exception):
    """Something is wrong with the page."""


def check(holds, what):
    if not holds:
        raise Wrong(what)


class Browser:
    """One browser window, driven over WebDriver."""

    def __init__(self, port, profile):
        self.root = f"http://127.0.0.1:{port}"
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
                 "--disable-component-update", "--disable-sync", "--hide-scrollbars", f"--user-data-dir={profile}", "--window-size=1280,900"]
        options = {"binary": shutil.which("chromium"), "args": flags}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        self.session = None
        answer = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = answer["sessionId"]

    def call(self, method, path, body=None):
        where = self.root + (f"/session/{self.session}{path}" if self.session else path)
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(where, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise Wrong(f"the browser refuses {path}: {json.load(error)['value']['message'].splitlines()[0]}") from None

    def run(self, script, *arguments):
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def devtools(self, command, **parameters):
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def log(self, kind):
        return self.call("POST", "/se/log", {"type": kind})

    def keys(self, *keys):
        """Presses keys one after the other, where the focus is."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def wait(self, script, what, seconds=20):
        end = time.monotonic() + seconds
        while not self.run(script):
            check(time.monotonic() < end, f"waited {seconds} s in vain: {what}")
            time.sleep(0.05)

    def size(self, width, height, phone=False):
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone)
        time.sleep(0.3)

    def scheme(self, name):
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])


TAB, ENTER, ESCAPE = "\ue004", "\ue007", "\ue00c"
LEFT, UP, RIGHT, DOWN = "\ue012", "\ue013", "\ue014", "\ue015"


@contextlib.contextmanager
def browser():
    for program, package in (("chromium", "chromium"), ("chromedriver", "chromium-driver")):
        check(shutil.which(program), f"{program} is missing: apt-get install {package}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        quiet = subprocess.DEVNULL
        driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=quiet, stderr=quiet)
        window = None
        try:
            window = started(port, profile)
            yield window
        finally:
            if window:
                with contextlib.suppress(Wrong, OSError):
                    window.call("DELETE", "")
            driver.terminate()
            driver.wait()


def started(port, profile):
    for _ in range(100):
        try:
            return Browser(port, profile)
        except OSError:
            time.sleep(0.1)
    raise Wrong("chromedriver does not start")
