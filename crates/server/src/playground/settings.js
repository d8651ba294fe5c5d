// The form: what it asks for, and the link that holds it.

import { byId, el } from "./dom.js";

/** Settings with a slider: label, least, greatest, step; `log` sliders move by factors. */
const SLIDERS = {
  strength: ["Strength", 0, 20, 0.1],
  bound: ["Bound B", 0, 20, 0.1],
  kl_budget: ["KL budget, nats", 0.01, 10, 0.01, "log"],
  alpha: ["Steepness \u03b1", 0.1, 50, 0.1, "log"],
  candidates: ["Candidates", 1, 50, 1],
  score_every: ["Score every", 1, 64, 1],
  samples: ["Samples", 2, 32, 1],
  block: ["Block, tokens", 1, 128, 1],
};
const CHOICES = { shaping: "Shaping", keep: "Keep" };
const REQUEST = ["prompt", "as", "max_tokens", "temperature", "seed", "method", "reward", "value"];

let about = null;

/** Fills the form with what the server has: the answer of /v1/models. */
export function fill(models) {
  about = models;
  const options = (names) => names.map((name) => el("option", { value: name }, name));
  const usable = about.methods.filter((method) => !method.needs.includes("value") || about.values.length);
  byId("method").replaceChildren(...options(usable.map((method) => method.name).filter((name) => name !== "base")));
  byId("rewards").replaceChildren(...options(about.rewards));
  byId("reward").value ||= about.rewards[0] ?? "";
  byId("value").replaceChildren(el("option", { value: "" }, "none"), ...options(about.values));
  byId("method").onchange = () => showSettings({});
}

const method = () => about.methods.find((method) => method.name === byId("method").value);

/** Shows the settings of the method, with the given values. */
export function showSettings(values) {
  const { needs, takes, settings, defaults } = method();
  byId("value-row").hidden = !takes.includes("value") || !about.values.length;
  if (byId("value-row").hidden) byId("value").value = "";
  else if (needs.includes("value")) byId("value").value ||= about.values[0];
  // Best-of-n decodes in blocks only if it drops samples, which this page does not offer.
  const has = (name) => settings.includes(name) && !(name === "block" && byId("method").value === "best-of-n");
  const choices = Object.keys(CHOICES).filter(has);
  const sliders = Object.keys(SLIDERS).filter(has);
  byId("settings").replaceChildren(
    ...choices.map((name) => choice(name, defaults[name], values[name])),
    ...sliders.map((name) => slider(name, defaults[name], values[name])),
  );
}

function choice(name, usual, value) {
  const none = el("option", { value: "" }, usual ? `default (${usual})` : "default");
  const options = about.choices[name].map((option) => el("option", { value: option }, option));
  const select = el("select", { id: name, "data-setting": name }, none, ...options);
  select.value = value ?? "";
  return el("div", { class: "row" }, el("label", { for: name }, CHOICES[name]), select);
}

/** A slider and a number that follow each other. An empty number is the method's default. */
function slider(name, usual, value) {
  const [label, least, greatest, step, log] = SLIDERS[name];
  // A slider that moves by factors has 1000 places.
  const places = 1000 / Math.log(greatest / least);
  const ends = log ? { min: 0, max: 1000, step: 1 } : { min: least, max: greatest, step };
  const range = el("input", { type: "range", ...ends, "aria-label": `${label}, slider` });
  const limits = { type: "number", step: "any", min: 0, placeholder: usual ?? "default" };
  const number = el("input", { id: name, "data-setting": name, ...limits });
  const follow = () => {
    const shown = number.value === "" ? (usual ?? least) : Number(number.value);
    range.value = log ? Math.round(places * Math.log(Math.max(shown, least) / least)) : shown;
  };
  range.addEventListener("input", () => {
    const value = log ? least * Math.exp(range.value / places) : Number(range.value);
    number.value = String(Number((Math.round(value / step) * step).toFixed(4)));
  });
  number.addEventListener("input", follow);
  number.value = value ?? "";
  follow();
  const reset = el("button", {
    type: "button",
    "aria-label": `${label}: default`,
    title: "Default",
    onclick: () => {
      number.value = "";
      follow();
      number.dispatchEvent(new Event("change", { bubbles: true }));
    },
  }, "\u21ba");
  return el("div", { class: "row slider" }, el("label", { for: name }, label), range, number, reset);
}

/** The settings that are given, by name. */
function given() {
  const inputs = [...document.querySelectorAll("[data-setting]")].filter((input) => input.value !== "");
  return Object.fromEntries(inputs.map((input) => [input.dataset.setting, input.type === "number" ? Number(input.value) : input.value]));
}

/** The two requests: path, and bodies without guidance and with it. Both sample in the same way. */
export function requests() {
  const [prompt, chat] = [byId("prompt").value, byId("as").value === "chat"];
  const body = { ...(chat ? { messages: [{ role: "user", content: prompt }] } : { prompt }) };
  for (const name of ["max_tokens", "temperature", "seed"]) {
    if (byId(name).value !== "") body[name] = Number(byId(name).value);
  }
  const reward = byId("reward").value.trim() || undefined;
  const value = byId("value").value || undefined;
  const guided = { method: byId("method").value, reward, value, ...given(), trace: true };
  const { temperature, top_p } = method().defaults;
  return {
    path: chat ? "/v1/chat/completions" : "/v1/completions",
    base: { temperature, top_p, ...body, guidance: { method: "base", reward, trace: true } },
    guided: { ...body, guidance: guided },
  };
}

/** Puts the form into the address. */
export function keep() {
  if (!about) return;
  const fields = new URLSearchParams();
  for (const id of REQUEST) fields.set(id, byId(id).value);
  for (const [name, value] of Object.entries(given())) fields.set(name, value);
  try {
    history.replaceState(null, "", `#${fields}`);
  } catch {
    // Some browsers allow a number of changes per time only. The next change is kept.
  }
}

/** Reads the form from the address. What the server does not have is left as it is. */
export function restore() {
  if (!about) return;
  const fields = new URLSearchParams(location.hash.slice(1));
  for (const id of REQUEST.filter((id) => fields.has(id))) {
    const [input, value] = [byId(id), fields.get(id)];
    const known = input.tagName !== "SELECT" || [...input.options].some((option) => option.value === value);
    if (known) input.value = value;
  }
  showSettings(Object.fromEntries(fields));
}

/** Marks the input that an error names, such as `guidance.strength`. */
export function mark(field) {
  for (const input of document.querySelectorAll(".wrong")) input.classList.remove("wrong");
  const input = field && byId(field.replace(/^guidance\./, ""));
  if (input?.form) {
    input.classList.add("wrong");
    input.focus();
  }
}
