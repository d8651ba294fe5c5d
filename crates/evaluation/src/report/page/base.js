"use strict";

// Texts come from language models, so they are inserted as text and never parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";
const MINUS = "\u2212";
const NONE = "\u2013";

/** Creates an element with attributes (`on...` are listeners) and children: nodes and texts. */
function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** Creates an SVG element. */
function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(
    ...children.flat().filter((child) => child !== null && child !== undefined && child !== ""),
  );
  return node;
}

/** A text without code marks, for places that hold no markup. */
const plain = (text) => text.replace(/`/g, "");

/** A text as nodes: what stands between backticks is code. */
const marked = (text) =>
  text
    .split(/`([^`]+)`/)
    .map((part, i) => (i % 2 ? el("code", {}, part) : plain(part)))
    .filter((part) => part !== "");

const byId = (id) => document.getElementById(id);
const finite = (value) => typeof value === "number" && Number.isFinite(value);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** Rounds to a number of decimals, halves to the even digit as in the table files. */
function rounded(value, digits) {
  const all = value.toFixed(digits + 40);
  const kept = all.slice(0, digits ? -40 : -41);
  const isHalf = /^50*$/.test(all.slice(-40));
  return isHalf && /[02468]$/.test(kept) ? kept : value.toFixed(digits);
}

/** A number with a fixed number of decimals. Zero has no sign. */
function fixed(value, digits) {
  if (!finite(value)) return NONE;
  const text = rounded(value, digits);
  return text.startsWith("-") ? (/[1-9]/.test(text) ? MINUS + text.slice(1) : text.slice(1)) : text;
}

/** A number with three significant digits. */
function short(value) {
  if (!finite(value)) return NONE;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2).replace(/-/g, MINUS);
  return fixed(value, clamp(2 - Math.floor(Math.log10(size)), 0, 6));
}

/** A number with three significant digits and its sign. */
const signed = (value) => (finite(value) && value > 0 ? "+" : "") + short(value);

/** An estimate as text: mean [low, high]. */
const estimate = (value) => `${short(value.mean)} [${short(value.low)}, ${short(value.high)}]`;

/** A name for anchors: lower case, with hyphens. */
const slug = (text) =>
  text
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, "-")
    .replace(/^-+|-+$/g, "") || "part";

const count = (n, one, many = one + "s") => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

/** Announces a text to screen readers. */
function say(text) {
  byId("spoken").textContent = text;
}

const UNREADABLE = "This part cannot be unpacked: the file is damaged, or the browser is older than 2023.";

/** Unpacks the JSON that an element holds, gzipped and in base64. */
async function unpacked(id) {
  const text = byId(id).textContent;
  const bytes = Uint8Array.fromBase64
    ? Uint8Array.fromBase64(text)
    : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** Saves a text as a file. */
function save(name, text) {
  const url = URL.createObjectURL(new Blob(["\ufeff" + text], { type: "text/csv" }));
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** One line of CSV. */
const csvLine = (fields) =>
  fields.map((f) => (/[",\r\n]/.test(f) ? `"${String(f).replace(/"/g, '""')}"` : (f ?? ""))).join(",") +
  "\n";

const report = JSON.parse(byId("report").textContent);

/** The look of each label in all charts: colour, marker and dash. No two labels have all three in common. */
const looks = new Map();

const COLOURS = 8;
const MARKERS = ["circle", "square", "triangle", "diamond", "cross", "down", "star"];
const DASHES = ["", "7 4", "2 4", "10 4 2 4"];

function nameLooks() {
  const groups = [];
  for (const chart of report.charts) {
    for (const { label, group } of chart.curves) {
      if (!groups.includes(group)) groups.push(group);
      if (looks.has(label)) continue;
      const n = looks.size;
      const dash = DASHES[groups.indexOf(group) % DASHES.length];
      looks.set(label, {
        group,
        colour: n % COLOURS,
        marker: MARKERS[n % MARKERS.length],
        dash,
        shown: true,
      });
    }
  }
}

/** The path of a marker around a point. */
function markerPath(kind, x, y, r = 4) {
  const at = (points) =>
    "M" + points.map(([a, b]) => `${(x + a * r).toFixed(1)} ${(y + b * r).toFixed(1)}`).join("L") + "Z";
  switch (kind) {
    case "square":
      return at([
        [-0.9, -0.9],
        [0.9, -0.9],
        [0.9, 0.9],
        [-0.9, 0.9],
      ]);
    case "triangle":
      return at([
        [0, -1.2],
        [1.1, 0.8],
        [-1.1, 0.8],
      ]);
    case "down":
      return at([
        [0, 1.2],
        [1.1, -0.8],
        [-1.1, -0.8],
      ]);
    case "diamond":
      return at([
        [0, -1.3],
        [1.1, 0],
        [0, 1.3],
        [-1.1, 0],
      ]);
    case "cross":
      return at([
        [-0.4, -1.1],
        [0.4, -1.1],
        [0.4, -0.4],
        [1.1, -0.4],
        [1.1, 0.4],
        [0.4, 0.4],
        [0.4, 1.1],
        [-0.4, 1.1],
        [-0.4, 0.4],
        [-1.1, 0.4],
        [-1.1, -0.4],
        [-0.4, -0.4],
      ]);
    case "star":
      return at(
        Array.from({ length: 10 }, (_, i) => {
          const size = i % 2 ? 0.55 : 1.35,
            angle = (Math.PI * i) / 5;
          return [Math.sin(angle) * size, -Math.cos(angle) * size];
        }),
      );
    default:
      return `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
  }
}

/** The line and marker before a label. */
function swatch(label) {
  const look = looks.get(label);
  if (!look) return null;
  return svg(
    "svg",
    {
      class: `swatch colour-${look.colour}`,
      width: 26,
      height: 12,
      viewBox: "0 0 26 12",
      "aria-hidden": "true",
    },
    svg("path", { class: "line", d: "M0 6H26", "stroke-dasharray": look.dash }),
    svg("path", { class: "marker", d: markerPath(look.marker, 13, 6, 4) }),
  );
}
