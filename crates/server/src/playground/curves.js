// Reward and KL along the answers.

import { el, shown, svg } from "./dom.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM, PAD] = [440, 160, 48, 20, 10];

/** A chart of named lines of points [x, y]. */
export function chart(title, lines) {
  const points = lines.flatMap(([, points]) => points);
  if (!points.length) return null;
  const last = Math.max(1, ...points.map(([x]) => x));
  let [low, high] = [Math.min(0, ...points.map(([, y]) => y)), Math.max(0, ...points.map(([, y]) => y))];
  if (low === high) high = low + 1;
  const x = (value) => LEFT + (value / last) * (WIDTH - LEFT - PAD);
  const y = (value) => PAD + ((high - value) / (high - low)) * (HEIGHT - BOTTOM - PAD);
  const ticks = [...new Set([low, 0, high])].map((value) => [
    svg("line", { class: "axis", x1: LEFT, x2: WIDTH - PAD, y1: y(value), y2: y(value) }),
    svg("text", { x: LEFT - 4, y: y(value) + 4, "text-anchor": "end" }, shown(value, 2)),
  ]);
  const present = lines.filter(([, points]) => points.length);
  const drawn = present.map(([name, points]) => [
    svg("polyline", { class: name, points: points.map(([a, b]) => `${x(a)},${y(b)}`).join(" ") }),
    svg("circle", { class: name, cx: x(points.at(-1)[0]), cy: y(points.at(-1)[1]), r: 3 }),
  ]);
  const said = present.map(([name, points]) => `${name} ${shown(points.at(-1)[1], 2)}`);
  return el("figure", {},
    el("figcaption", {}, `${title}: `, ...present.map(([name], i) => el("span", { class: name }, `${i ? ", " : ""}${name}`))),
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title} at the end: ${said.join(", ")}` },
      ...ticks.flat(), ...drawn.flat(),
      svg("text", { x: LEFT, y: HEIGHT - 5 }, "token 0"),
      svg("text", { x: WIDTH - PAD, y: HEIGHT - 5, "text-anchor": "end" }, `token ${last}`)));
}
