// Nodes and numbers. Texts come from language models, so they are inserted as text and never parsed as HTML.

export const byId = (id) => document.getElementById(id);

/** Creates an element with attributes (`on...` are listeners) and children: nodes and texts. */
export const el = (name, attributes = {}, ...children) =>
  filled(document.createElement(name), attributes, children);

/** Creates an SVG element. */
export const svg = (name, attributes = {}, ...children) =>
  filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** A number for people: a dash if there is none. */
export const shown = (value, digits = 3) =>
  typeof value === "number" ? value.toFixed(digits).replace("-", "\u2212") : "\u2013";

/** A list of names and values. */
export const list = (entries) =>
  el("dl", {}, ...entries.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))));
