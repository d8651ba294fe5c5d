// How a token was decided: the step's candidates, or the block's continuations, and what each was worth.

import { el, list, shown } from "./dom.js";

/** Whether the guidance chose another token than the base model. */
export const isSteered = (step) => step.chosen !== step.base_choice;

/** The reward of what was chosen, if the step has one. */
export function rewardOf(step) {
  if (step.block) return step.block.scores[step.block.chosen];
  return step.rewards?.[step.candidates.indexOf(step.chosen)] ?? null;
}

/** Tokens and texts with white space that can be seen. */
const visible = (text) => text.replace(/\n/g, "\u21b5\n").replace(/^ /, "\u2423");

function table(caption, heads, rows) {
  const head = el("tr", {}, ...heads.map((name) => el("th", { scope: "col" }, name)));
  const body = rows.map(({ kept, marks, cells }) =>
    el("tr", { class: kept && "kept" },
      el("th", { scope: "row" }, visible(cells[0]), ...marks.map((mark) => el("span", { class: "mark" }, ` (${mark})`))),
      ...cells.slice(1).map((cell) => el("td", {}, shown(cell)))));
  return el("div", { class: "sideways" },
    el("table", {}, el("caption", {}, caption), el("thead", {}, head), el("tbody", {}, ...body)));
}

function candidates(step) {
  const columns = [["Base logit", step.logits], ["Reward", step.rewards], ["Shaped", step.shaped], ["Logit + guidance", step.rewards && step.fused]];
  const present = columns.filter(([, values]) => values);
  const rows = step.candidates.map((id, i) => ({
    kept: id === step.chosen,
    marks: [...(id === step.chosen ? ["chosen"] : []), ...(id === step.base_choice ? ["base choice"] : [])],
    cells: [step.tokens[i], ...present.map(([, values]) => values[i])],
  }));
  const title = step.skipped ? "Candidates. Rewards were not computed: they could not have changed the choice." : "Candidates";
  return table(title, ["Token", ...present.map(([name]) => name)], rows);
}

function continuations({ texts, scores, shaped, weights, chosen }) {
  const columns = [["Reward", scores], ["Shaped", shaped], ["Weight", weights]].filter(([, values]) => values);
  const rows = texts.map((text, i) => ({
    kept: i === chosen,
    marks: i === chosen ? ["chosen"] : [],
    cells: [text, ...columns.map(([, values]) => values[i])],
  }));
  return table("Continuations of this block", ["Text", ...columns.map(([name]) => name)], rows);
}

/** The detail of a selected token; `block` is the step that began its block. */
export function detail(name, step, block) {
  const decided = block?.block ?? step;
  const numbers = [["Answer", name], ["Step", step.step]];
  for (const [label, value] of [["Threshold m*", decided.threshold], ["Bound", decided.bound], ["KL of the step, nats", step.kl], ["Log-probability of the token", step.log_prob]]) {
    if (typeof value === "number") numbers.push([label, shown(value)]);
  }
  return [el("h2", {}, "How this token was decided"), list(numbers), block ? continuations(block.block) : null, candidates(step)].filter(Boolean);
}
