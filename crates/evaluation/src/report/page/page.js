// Draws the page: first the tables and charts, then the prompts when they are unpacked.

const THEMES = { auto: "Auto", light: "Light", dark: "Dark" };

function setTheme(theme, keep) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = `Colours: ${THEMES[theme]}`;
  try {
    if (keep) localStorage.setItem("stackelberg-theme", theme);
  } catch {
    // A page that is opened from a file may have no storage. The choice then holds for this visit.
  }
}

function startTheme() {
  let theme = null;
  try {
    theme = localStorage.getItem("stackelberg-theme");
  } catch {
    // As above.
  }
  setTheme(theme in THEMES ? theme : "auto", false);
  byId("theme").addEventListener("click", () => {
    const names = Object.keys(THEMES);
    setTheme(names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length], true);
  });
}

function drawHead() {
  byId("title").append(...marked(report.title || "Report"));
  // The lines of a paragraph are joined; an empty line separates paragraphs.
  byId("about").append(...marked(report.about.replace(/([^\n])\n(?!\n)/g, "$1 ")));
  drawFindings();
  if (!report.facts.length) return;
  byId("facts").append(
    section(
      "how",
      "How this report was made",
      "",
      el(
        "dl",
        {},
        report.facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
      ),
    ),
  );
}

/** The opening sentences, and all other findings, which are folded if there is an opening. */
function drawFindings() {
  const [opening, findings] = [report.opening ?? [], report.findings];
  const part = byId("findings");
  const [list, rest] = part.querySelectorAll("ul");
  const items = (texts) => texts.map((text) => el("li", {}, marked(text)));
  part.hidden = !opening.length && !findings.length;
  list.hidden = !opening.length;
  list.append(...items(opening));
  const folded = part.querySelector("details");
  folded.hidden = !findings.length;
  folded.open = !opening.length;
  folded.querySelector("summary").append(`All findings (${findings.length.toLocaleString("en")})`);
  rest.append(...items(findings));
}

function drawContents() {
  const links = [...document.querySelectorAll("main > section, footer > section")].map((part) => [
    part.id,
    part.querySelector("h2 > span").textContent,
  ]);
  byId("contents")
    .querySelector("ul")
    .append(...links.map(([id, name]) => el("li", {}, el("a", { href: "#" + id }, name))));
}

/** The section of prompts, before they are unpacked. */
function promptsSection() {
  return section(
    "prompts",
    "Prompts and answers",
    "All prompts with the answers of all methods. Press / to search. In the list, the arrow keys move between prompts.",
    el(
      "div",
      { class: "browser", "aria-busy": "true" },
      el("p", { class: "note" }, `Unpacking ${count(report.questions, "prompt")} …`),
    ),
  );
}

/** The number of answers with reward hacking warnings, per method. */
function warningsOf(questions, show) {
  const counts = report.methods.map(
    (_, i) => questions.filter((q) => q.answers[i]?.warnings.length).length,
  );
  const some = report.methods.map((name, i) => [name, counts[i]]).filter(([, n]) => n);
  if (!some.length) return null;
  return el(
    "p",
    { class: "watch" },
    el("b", {}, "Reward hacking warnings"),
    " in answers of ",
    some.flatMap(([name, n], i) => [
      i ? ", " : "",
      name,
      el("span", { class: "interval" }, ` ${n.toLocaleString("en")}`),
    ]),
    ". ",
    el("button", { type: "button", class: "quiet", onclick: show }, "Show these"),
  );
}

async function fillPrompts() {
  const holder = document.querySelector(".browser");
  try {
    const questions = await unpacked("questions").catch(() => null);
    if (questions) drawPrompts(holder, questions);
    else holder.replaceChildren(el("p", { class: "note" }, UNREADABLE));
  } finally {
    holder.setAttribute("aria-busy", "false");
  }
}

function drawPrompts(holder, questions) {
  let prompts = null;
  const answers = new Answers((way) => prompts.show(prompts.place + way));
  prompts = new Prompts(questions, (question, place, total) => {
    answers.show(question, place, total, prompts?.words ?? null);
    if (question && prompts) remember(question.id);
  });
  const watch = warningsOf(questions, () => prompts.choose("warnings"));
  const side = el("div", { class: "side" }, prompts.found, prompts.list);
  holder.replaceChildren(...(watch ? [watch] : []), prompts.controls, side, answers.node);
  prompts.fill();
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.closest("input, select, textarea")) return;
    event.preventDefault();
    prompts.search.focus();
  });
  const toLink = () => {
    const id = linked();
    if (id !== null && prompts.open(id)) byId("prompts").scrollIntoView();
  };
  addEventListener("hashchange", toLink);
  toLink();
}

/** The id of the prompt in the page's address. */
function linked() {
  try {
    return location.hash.startsWith("#prompt=") ? decodeURIComponent(location.hash.slice(8)) : null;
  } catch {
    return null;
  }
}

/** Puts the id of the shown prompt into the page's address, so that one can link to it. */
function remember(id) {
  try {
    history.replaceState(null, "", "#prompt=" + encodeURIComponent(id));
  } catch {
    // Some viewers do not allow it.
  }
}

function start() {
  startTheme();
  nameLooks();
  drawHead();
  const [first, ...others] = report.tables.map(drawTable);
  byId("main").append(
    ...(first ? [first] : []),
    ...(report.charts.length ? [drawCharts()] : []),
    ...others,
    ...report.matrices.map(drawMatrix),
    ...(report.histograms.length ? [drawHistograms()] : []),
    ...(report.questions ? [promptsSection()] : []),
  );
  drawContents();
  performance.mark("drawn");
  const ready = async () => {
    if (report.questions) await fillPrompts();
    performance.mark("ready");
    document.documentElement.dataset.ready = "true";
  };
  // After the first paint.
  addEventListener("DOMContentLoaded", () => setTimeout(ready));
}

start();
