// The list of prompts, filtered and sorted. Only visible rows are in the document.

const ROW = 58; // The height of a row in pixels; browser.css has the same.

class Prompts {
  constructor(questions, onshow) {
    this.questions = questions;
    this.onshow = onshow;
    this.order = questions.map((_, i) => i);
    this.place = 0;
    this.build();
    this.arrange();
  }

  build() {
    const pick = (label, options, value) => {
      const select = el(
        "select",
        { onchange: () => this.arrange() },
        options.map(([v, text]) => el("option", { value: v }, text)),
      );
      select.value = value;
      return { select, labelled: el("label", {}, el("span", {}, label), select) };
    };
    const methods = report.methods.map((name, i) => [String(i), name]);
    this.search = el("input", {
      type: "search",
      id: "search",
      placeholder: "Search prompts and answers",
      autocomplete: "off",
      spellcheck: "false",
      "aria-keyshortcuts": "/",
      oninput: () => this.later(),
      onkeydown: (event) => this.fromSearch(event),
    });
    this.sort = pick(
      "Sort by",
      [
        ["file", "order of the file"],
        ["down", "difference, largest first"],
        ["up", "difference, smallest first"],
        ["high", "measure of the first method, highest first"],
        ["low", "measure of the first method, lowest first"],
        ["warnings", "warnings, most first"],
      ],
      "file",
    );
    this.measure = pick(
      "Measure",
      [...report.rewards.map((name, i) => [String(i), name]), ["kl", "KL"]],
      report.rewards.length ? "0" : "kl",
    );
    this.first = pick("of", methods, String(Math.min(1, methods.length - 1)));
    this.second = pick("minus", methods, "0");
    this.only = pick(
      "Show",
      [
        ["all", "all prompts"],
        ["warnings", "with warnings"],
        ["traces", "with a trace"],
      ],
      "all",
    );
    this.found = el("p", { class: "found", role: "status" });
    this.rows = el("div", { class: "rows" });
    this.list = el(
      "div",
      {
        class: "list",
        tabindex: 0,
        role: "listbox",
        "aria-label": "Prompts",
        onscroll: () => this.fill(),
        onkeydown: (event) => this.key(event),
        onclick: (event) => this.click(event),
      },
      this.rows,
    );
    this.controls = el(
      "div",
      { class: "controls" },
      el(
        "label",
        { class: "search", for: "search" },
        el("span", {}, "Search ", el("kbd", {}, "/")),
        this.search,
      ),
      this.sort.labelled,
      this.measure.labelled,
      this.first.labelled,
      this.second.labelled,
      this.only.labelled,
    );
    new ResizeObserver(() => this.fill()).observe(this.list);
  }

  /** The measure of an answer that the list is sorted by. */
  value(question, method) {
    const answer = this.questions[question].answers[method];
    const value =
      this.measure.select.value === "kl"
        ? answer?.kl
        : answer?.rewards?.[Number(this.measure.select.value)];
    return finite(value) ? value : null;
  }

  difference(question) {
    const [a, b] = [this.first, this.second].map((pick) =>
      this.value(question, Number(pick.select.value)),
    );
    return a === null || b === null ? null : a - b;
  }

  warnings(question) {
    return this.questions[question].answers.reduce((n, answer) => n + (answer?.warnings.length ?? 0), 0);
  }

  matches(question, words) {
    const { id, prompt, answers } = this.questions[question];
    const only = this.only.select.value;
    if (only === "warnings" && !this.warnings(question)) return false;
    if (only === "traces" && !answers.some((answer) => finite(answer?.trace))) return false;
    if (!words) return true;
    const has = (text) => words.test(text);
    return has(id) || has(prompt) || answers.some((answer) => answer && has(answer.text));
  }

  /** Shows all prompts, or those with warnings or traces. */
  choose(which) {
    this.only.select.value = which;
    this.arrange();
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.arrange(), 80);
  }

  /** Filters and sorts the list. The shown prompt stays selected if it is still in the list. */
  arrange() {
    const shown = this.order[this.place];
    const text = this.search.value.trim();
    this.words = text
      ? new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/\s+/g, "\\s+"), "iu")
      : null;
    const found = this.questions.map((_, i) => i).filter((i) => this.matches(i, this.words));
    const key = {
      down: (i) => this.difference(i),
      up: (i) => negative(this.difference(i)),
      warnings: (i) => this.warnings(i),
      high: (i) => this.value(i, Number(this.first.select.value)),
      low: (i) => negative(this.value(i, Number(this.first.select.value))),
    }[this.sort.select.value];
    if (key) {
      const keys = new Map(found.map((i) => [i, key(i) ?? -Infinity]));
      found.sort((a, b) => (keys.get(b) > keys.get(a)) - (keys.get(b) < keys.get(a)) || a - b);
    }
    this.order = found;
    this.found.textContent =
      found.length === this.questions.length
        ? count(found.length, "prompt")
        : `${found.length.toLocaleString("en")} of ${count(this.questions.length, "prompt")}`;
    this.rows.style.height = `${found.length * ROW}px`;
    const still = key ? -1 : found.indexOf(shown);
    this.show(Math.max(still, 0));
  }

  /** Shows the prompt at a position of the list. */
  show(place) {
    this.place = clamp(place, 0, Math.max(this.order.length - 1, 0));
    const top = this.place * ROW;
    if (top < this.list.scrollTop) this.list.scrollTop = top;
    else if (top + ROW > this.list.scrollTop + this.list.clientHeight)
      this.list.scrollTop = top + ROW - this.list.clientHeight;
    this.fill();
    this.onshow(
      this.order.length ? this.questions[this.order[this.place]] : null,
      this.place,
      this.order.length,
    );
  }

  /** Shows the prompt with an id, if there is one. */
  open(id) {
    const place = this.order.findIndex((i) => this.questions[i].id === id);
    if (place >= 0) this.show(place);
    return place >= 0;
  }

  /** Creates the visible rows. */
  fill() {
    const from = Math.max(Math.floor(this.list.scrollTop / ROW) - 4, 0);
    const to = Math.min(from + Math.ceil((this.list.clientHeight || 600) / ROW) + 8, this.order.length);
    const rows = [];
    for (let place = from; place < to; place++) rows.push(this.row(place));
    this.rows.replaceChildren(...rows);
    this.list.setAttribute(
      "aria-activedescendant",
      this.place >= from && this.place < to ? `prompt-${this.place}` : "",
    );
  }

  row(place) {
    const index = this.order[place],
      question = this.questions[index];
    const sorted = this.sort.select.value;
    const single = sorted === "high" || sorted === "low";
    const value = single ? this.value(index, Number(this.first.select.value)) : this.difference(index);
    const warned = this.warnings(index);
    const row = el(
      "div",
      {
        class: "row",
        role: "option",
        id: `prompt-${place}`,
        "data-place": place,
        "aria-selected": String(place === this.place),
        "aria-posinset": place + 1,
        "aria-setsize": this.order.length,
      },
      el("span", { class: "text", dir: "auto" }, question.prompt.slice(0, 160) || "(empty)"),
      el(
        "span",
        { class: "facts" },
        el("span", { class: "id" }, question.id),
        el("span", { class: "value" }, value === null ? "" : single ? short(value) : signed(value)),
        warned ? el("span", { class: "warned" }, count(warned, "warning")) : null,
      ),
    );
    row.style.top = `${place * ROW}px`;
    return row;
  }

  click(event) {
    const row = event.target.closest(".row");
    if (row) this.show(Number(row.dataset.place));
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const step = {
      ArrowDown: 1,
      ArrowUp: -1,
      ArrowRight: 1,
      ArrowLeft: -1,
      PageDown: 8,
      PageUp: -8,
      Home: -Infinity,
      End: Infinity,
    }[event.key];
    if (event.key === "Enter") byId("answers").focus();
    else if (step !== undefined) this.show(this.place + step);
    else return;
    event.preventDefault();
  }

  fromSearch(event) {
    if (event.key === "Escape") {
      this.search.value = "";
      this.arrange();
    } else if (event.key === "ArrowDown" || event.key === "Enter") {
      clearTimeout(this.timer);
      this.arrange();
      this.list.focus();
    } else return;
    event.preventDefault();
  }
}

const negative = (value) => (value === null ? null : -value);
