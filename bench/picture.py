#!/usr/bin/env python3
"""Draws the picture of the README: one prompt answered without and with guidance, the tokens that guidance changed in colour.

    bench/picture.py "PROMPT" docs/src/images/first-answer.svg [generate's options ...]

Runs target/release/stackelberg twice. Standard library only.
"""

import html
import json
import pathlib
import subprocess
import sys
import tempfile

WIDTH = 96  # characters per line
LINE, LEFT, CHARACTER = 21, 24, 8.43  # pixels


def answered(prompt, options, folder, name):
    """The line of the answer, and its tokens as pairs of text and whether guidance changed it."""
    out, trace = folder / f"{name}.jsonl", folder / f"{name}-trace.jsonl"
    prompts = folder / "prompt.jsonl"
    prompts.write_text(json.dumps({"prompt": prompt}) + "\n")
    command = ["target/release/stackelberg", "generate", "--prompts", prompts, "--out", out, "--trace", trace, *options]
    subprocess.run(command, check=True)
    answer = json.loads(out.read_text())
    steps = [json.loads(line) for line in trace.read_text().splitlines()]
    tokens = []
    for step in steps:
        at = step["candidates"].index(step["chosen"]) if step["chosen"] in step["candidates"] else None
        tokens.append(("" if at is None else step["tokens"][at], step["chosen"] != step["base_choice"]))
    # A token that ended the answer is not part of it.
    return answer, tokens[: answer["tokens"]]


def lines(tokens):
    """Tokens broken into lines of spans: (text, changed)."""
    rows, row, length = [], [], 0
    for text, changed in tokens:
        for number, part in enumerate(text.split("\n")):
            if number or length + len(part) > WIDTH:
                rows.append(row)
                row, length = [], 0
                part = part.lstrip(" ")
            if part:
                row.append((part, changed))
                length += len(part)
    return [row for row in [*rows, row] if row]


def main():
    prompt, path, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        base = answered(prompt, [*options, "--method", "base"], folder, "base")
        guided = answered(prompt, options, folder, "guided")
    rows = [("prompt", [(prompt, False)])]
    for name, (answer, tokens) in (("base", base), ("guided", guided)):
        rows.append(("title", [(f"{name}   reward {answer['reward']:+.2f}", False)]))
        rows += [("text", row) for row in lines(tokens)]
    height = LINE * (len(rows) + 2) + 10
    width = int(2 * LEFT + WIDTH * CHARACTER)
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{html.escape(prompt)}: the base answer and the guided answer</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#16181d"/>',
        '<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14" fill="#e6e6e6" xml:space="preserve">',
    ]
    y = LINE
    for kind, row in rows:
        y += LINE + (6 if kind == "title" else 0)
        if kind == "title":
            drawn.append(f'<text x="{LEFT}" y="{y}" fill="#8fb8ff" font-weight="bold">{html.escape(row[0][0])}</text>')
        elif kind == "prompt":
            drawn.append(f'<text x="{LEFT}" y="{y - 8}" fill="#9aa0a6">&gt; {html.escape(row[0][0])}</text>')
        else:
            spans = "".join(
                f'<tspan fill="#7ee787" font-weight="bold">{html.escape(text)}</tspan>' if changed else html.escape(text)
                for text, changed in row
            )
            drawn.append(f'<text x="{LEFT}" y="{y}">{spans}</text>')
    drawn += ["</g>", "</svg>", ""]
    pathlib.Path(path).write_text("\n".join(drawn), encoding="utf-8")


if __name__ == "__main__":
    main()
