"""What holds of every page of this project, checked in a browser."""

import base64
import json
import re
import time

from webdriver import TAB, check

CONTRAST = 4.5


def silence(window, own):
    """No errors in the console, and nothing is asked of addresses other than these (a regular expression)."""
    errors = [entry["message"] for entry in window.log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    check(not errors, f"the console says: {errors[:1]}")
    for entry in window.log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            check(re.match(own, url), f"the page asks for {url[:100]}")


def traps(window):
    """Tab goes on and on, and each stop can be seen."""
    last, same = None, 0
    for _ in range(60):
        window.keys(TAB)
        stop = window.run("""
            const a = document.activeElement, box = a.getBoundingClientRect(), style = getComputedStyle(a);
            window.stops ??= new Map();
            if (!window.stops.has(a)) window.stops.set(a, window.stops.size);
            return [window.stops.get(a), a.tagName + "." + a.className, box.width > 0 && box.height > 0, style.outlineStyle];""")
        same = same + 1 if last == stop[0] else 0
        last = stop[0]
        if stop[1].startswith("BODY"):
            return
        check(same < 2, f"the keyboard is trapped in {stop[1]}")
        check(stop[2] and stop[3] != "none", f"the focus on {stop[1]} cannot be seen")


COLOURS = """
    const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => { paint.clearRect(0, 0, 1, 1); paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1); return [...paint.getImageData(0, 0, 1, 1).data]; };
    const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => {
      const v = c[i] / 255;
      return sum + w * (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    }, 0);
    const behind = (node) => {
      for (; node; node = node.parentElement) {
        const colour = rgba(getComputedStyle(node).backgroundColor);
        if (colour[3] === 255) return colour;
      }
      return [255, 255, 255, 255];
    };
    const seen = new Map();
    for (const node of document.querySelectorAll("body, body *")) {
      if (![...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()) || !node.getClientRects().length) continue;
      if (node.closest("script, style, .unseen, :disabled")) continue;
      const style = getComputedStyle(node);
      const colour = node.namespaceURI.endsWith("svg") ? style.fill : style.color;
      const [a, b] = [light(rgba(colour)), light(behind(node))];
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      const name = node.tagName.toLowerCase() + (node.getAttribute("class") ? "." + node.getAttribute("class") : "");
      if (!seen.has(name) || seen.get(name) > ratio) seen.set(name, ratio);
    }
    const dark = light(behind(document.body)) < 0.2;
    return [dark, [...seen].sort((a, b) => a[1] - b[1])];
"""


def contrast(window):
    """Text can be read in both schemes."""
    for scheme in ("light", "dark"):
        window.scheme(scheme)
        dark, ratios = window.run(COLOURS)
        check(dark == (scheme == "dark"), f"the page is not {scheme} where the system is")
        name, least = ratios[0]
        print(f"{scheme}: least contrast {least:.1f} ({name}), {len(ratios)} kinds of text")
        check(least >= CONTRAST, f"contrast of {name} is {least:.2f} in {scheme}, the bar is {CONTRAST}")
    window.scheme("light")


def phone(window):
    """Nothing is wider than a small phone."""
    for width in (360, 768, 1280):
        window.size(width, 780, phone=width < 1000)
        wide = window.run("return document.documentElement.scrollWidth")
        check(wide <= width, f"the page is {wide} px wide on a screen of {width} px")
    window.size(1280, 900)


def picture(window, width, part, file):
    height = window.run("return document.querySelector(arguments[0]).getBoundingClientRect().height", part)
    window.size(width, int(min(max(height + 40, 500), 2400)), phone=width < 1000)
    window.run("document.querySelector(arguments[0]).scrollIntoView({ behavior: 'instant' })", part)
    time.sleep(0.2)
    file.write_bytes(base64.b64decode(window.devtools("Page.captureScreenshot")["data"]))
