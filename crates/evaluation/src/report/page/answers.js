// One prompt, with the answers of several methods side by side.

class Answers {
  constructor(step) {
    this.shown = new Set(report.methods.map((_, i) => i).filter((i) => i < 4));
    this.before = el("button", { type: "button", onclick: () => step(-1) }, "← Previous");
    this.after = el("button", { type: "button", onclick: () => step(1) }, "Next →");
    this.where = el("span", { class: "where" });
    this.prompt = el("div", { class: "prompt" });
    this.cards = el("div", { class: "cards" });
    this.node = el(
      "div",
      {
        class: "answers",
        id: "answers",
        tabindex: -1,
        role: "region",
        "aria-label": "The prompt and its answers",
      },
      el("div", { class: "pager" }, this.before, this.where, this.after),
      this.choice(),
      this.prompt,
      this.cards,
    );
  }

  /** The selection of the methods to show. */
  choice() {
    const boxes = report.methods.map((name, i) => {
      const box = el("input", {
        type: "checkbox",
        onchange: () => {
          box.checked ? this.shown.add(i) : this.shown.delete(i);
          this.draw();
        },
      });
      box.checked = this.shown.has(i);
      return { box, label: el("label", {}, box, swatch(name), name), i };
    });
    const all = (on) => {
      boxes.forEach(({ box, i }) => {
        box.checked = on(i);
        on(i) ? this.shown.add(i) : this.shown.delete(i);
      });
      this.draw();
    };
    return el(
      "details",
      { class: "choice" },
      el("summary", {}, "Methods side by side"),
      el(
        "div",
        { class: "boxes", role: "group", "aria-label": "Methods side by side" },
        boxes.map((b) => b.label),
        el("button", { type: "button", class: "quiet", onclick: () => all(() => true) }, "All"),
        el(
          "button",
          { type: "button", class: "quiet", onclick: () => all((i) => i === 0) },
          "Base policy only",
        ),
      ),
    );
  }

  show(question, place, total, words) {
    this.words = words;
    this.question = question;
    this.where.textContent = total
      ? `${(place + 1).toLocaleString("en")} of ${total.toLocaleString("en")}`
      : "none";
    this.before.disabled = place <= 0;
    this.after.disabled = place + 1 >= total;
    this.draw();
  }

  draw() {
    if (!this.question) {
      this.prompt.replaceChildren(
        el("p", { class: "note" }, "No prompt matches the search and the filter."),
      );
      return this.cards.replaceChildren();
    }
    const { id, prompt, answers } = this.question;
    this.prompt.replaceChildren(
      el("h3", {}, "Prompt ", el("span", { class: "id" }, id)),
      el("div", { class: "said", dir: "auto" }, prompt || "(empty)"),
    );
    const methods = report.methods.map((name, i) => ({ name, i })).filter(({ i }) => this.shown.has(i));
    this.cards.replaceChildren(
      ...methods.map(({ name, i }) => this.card(name, answers[i], i ? answers[0] : null)),
    );
    if (!methods.length) this.cards.append(el("p", { class: "note" }, "No method is selected."));
    this.mark();
  }

  /** Highlights the search words without changing the texts. */
  mark() {
    if (!globalThis.CSS?.highlights) return;
    const ranges = [];
    for (const said of this.words ? this.node.querySelectorAll(".said") : []) {
      const text = said.firstChild;
      for (const found of text.data.matchAll(new RegExp(this.words, "giu"))) {
        const range = new Range();
        range.setStart(text, found.index);
        range.setEnd(text, found.index + found[0].length);
        ranges.push(range);
      }
    }
    CSS.highlights.set("found", new Highlight(...ranges.slice(0, 2000)));
  }

  card(name, answer, base) {
    const card = el("article", { class: "card", "aria-label": name }, el("h4", {}, swatch(name), name));
    if (!answer) {
      card.append(el("p", { class: "note" }, "No answer."));
      return card;
    }
    const text = el(
      "div",
      { class: answer.text ? "said" : "said empty", dir: "auto" },
      answer.text || "(an empty answer)",
    );
    card.append(
      this.figures(answer, base),
      el(
        "ul",
        { class: "warnings" },
        answer.warnings.map((warning) =>
          el(
            "li",
            {},
            el("span", { "aria-hidden": "true" }, "⚠ "),
            el("span", { class: "unseen" }, "Warning: "),
            warning,
          ),
        ),
      ),
      text,
    );
    if (!answer.warnings.length) card.querySelector(".warnings").remove();
    if (finite(answer.trace)) card.append(traceButton(card, text, answer.trace, name));
    return card;
  }

  /** Rewards and KL, with their differences from the base policy. */
  figures(answer, base) {
    const parts = report.rewards.map((name, i) => [name, answer.rewards[i], base?.rewards[i]]);
    parts.push(["KL", answer.kl, null]);
    return el(
      "dl",
      { class: "measures" },
      parts
        .filter(([, value]) => finite(value))
        .map(([name, value, other]) =>
          el(
            "div",
            {},
            el("dt", {}, name),
            el(
              "dd",
              {},
              short(value),
              finite(other)
                ? el("span", { class: "interval" }, ` ${signed(value - other)} vs. base`)
                : name === "KL"
                  ? el("span", { class: "interval" }, " nats")
                  : null,
            ),
          ),
        ),
    );
  }
}
