// The playground: the form, two answers that are streamed side by side, and the selected step.

import { Answer } from "./answer.js";
import { chart } from "./curves.js";
import { byId } from "./dom.js";
import { fill, keep, mark, requests, restore } from "./settings.js";
import { detail } from "./step.js";
import { chunks, get, setKey } from "./stream.js";

let running = null;

/** Shows an error that concerns the whole page, or none. */
function say(error) {
  byId("error").hidden = !error;
  byId("error").textContent = error?.message ?? "";
  mark(null);
}

function select(name, step, block, node) {
  for (const token of document.querySelectorAll(".token[aria-pressed='true']")) token.setAttribute("aria-pressed", "false");
  node.setAttribute("aria-pressed", "true");
  byId("detail").replaceChildren(...detail(name, step, block));
}

function draw(answers) {
  const lines = (values) => answers.map((answer) => [answer.name, values(answer)]);
  const charts = [chart("Reward", lines((answer) => answer.rewards())), chart("KL, nats", lines((answer) => answer.kl()))];
  byId("curves").replaceChildren(...charts.filter(Boolean));
}

async function run() {
  running?.abort();
  const mine = (running = new AbortController());
  const { path, ...bodies } = requests();
  const answers = ["base", "guided"].map((name) => new Answer(byId(name), name, select));
  byId("detail").replaceChildren();
  byId("curves").replaceChildren();
  say(null);
  busy(true, "Answering\u2026");
  const began = performance.now();
  let waiting = false;
  const redraw = () => {
    waiting = false;
    if (running === mine) draw(answers);
  };
  let failed = false;
  const read = async (answer) => {
    try {
      for await (const chunk of chunks(path, bodies[answer.name], mine.signal)) {
        answer.add(chunk);
        if (!waiting) requestAnimationFrame(redraw);
        waiting = true;
      }
    } catch (error) {
      if (running !== mine || error.name === "AbortError") return;
      failed = true;
      answer.fail(error);
      mark(error.field);
      if (error.status === 401) lock(error);
    }
  };
  await Promise.all(answers.map(read));
  if (running !== mine) return;
  draw(answers);
  busy(false, mine.signal.aborted ? "Stopped." : failed ? "Failed." : `Done in ${((performance.now() - began) / 1000).toFixed(1)} s.`);
}

function busy(is, status) {
  byId("stop").disabled = !is;
  byId("status").textContent = status;
}

async function open() {
  try {
    const models = await get("/v1/models");
    byId("model").textContent = models.data[0].id;
    fill(models);
    restore();
    byId("locked").hidden = true;
    byId("run").disabled = false;
    say(null);
    document.documentElement.dataset.ready = "true";
  } catch (error) {
    lock(error);
  }
}

/** Nothing can be asked: without the key, or without the server. */
function lock(error) {
  byId("locked").hidden = error.status !== 401;
  byId("run").disabled = true;
  say(error);
}

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  keep();
  run();
});
byId("form").addEventListener("change", keep);
byId("stop").addEventListener("click", () => running?.abort());
byId("locked").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(byId("key").value);
  open();
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("answers").focus();
});
byId("copy").addEventListener("click", async () => {
  keep();
  const copied = await navigator.clipboard?.writeText(location.href).then(() => true, () => false);
  byId("status").textContent = copied ? "Copied." : "The address of this page has the settings.";
});
addEventListener("hashchange", restore);
open();
