// Axes, and the selection of points in a figure by keyboard or pointer.

/** Multiples of 1, 2 or 5 times a power of ten that cover a range. */
function ticks(low, high, wanted) {
  const rough = (high - low) / Math.max(wanted, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999) ?? rough;
  const out = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++)
    out.push(Number((i * step).toPrecision(12)));
  return out;
}

/** The multiples in `between` of every `every`th power of ten, in a range. */
function logTicks(low, high, between, every = 1) {
  const out = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
    if (e % every) continue;
    for (const m of between) {
      const value = Number((m * 10 ** e).toPrecision(6));
      if (value >= low * 0.999 && value <= high * 1.001) out.push(value);
    }
  }
  return out;
}

/** Sets of round ticks of a horizontal axis, from many to few. */
function* tickSets(low, high, log, wanted) {
  if (log) {
    const sets = [logTicks(low, high, [1, 2, 5]), logTicks(low, high, [1])];
    // A range within a decade may contain few of these numbers.
    if (sets[0].length > 2) yield* sets.filter((set) => set.length > 1);
    for (let every = 2; sets[1].length / every > 2; every++) yield logTicks(low, high, [1], every);
  }
  for (let n = Math.floor(wanted); n > 0; n--) yield ticks(low, high, n);
}

/** An estimate of a label's half width in pixels. */
const halfWidth = (value) => 3.6 * tickText(value).length;

/** Whether the labels of two ticks of a horizontal axis do not overlap. */
const apart = (x, one, other) =>
  Math.abs(x.at(other) - x.at(one)) >= halfWidth(one) + halfWidth(other) + 8;

/** Maps numbers to positions: `at(value)`. Has the ticks, too; those of a horizontal axis do not overlap. */
function scale(low, high, from, to, log, wanted) {
  if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
  const f = log ? Math.log : (v) => v;
  const at = (value) => from + ((f(value) - f(low)) / (f(high) - f(low))) * (to - from);
  if (to < from) return { at, low, high, ticks: ticks(low, high, wanted) };
  const fits = (set) => set.every((value, i) => !i || apart({ at }, set[i - 1], value));
  let last = [];
  for (last of tickSets(low, high, log, wanted)) if (last.length && fits(last)) break;
  return { at, low, high, ticks: fits(last) ? last : last.slice(0, 1) };
}

/** The label of a tick: all its digits, without trailing zeros. */
function tickText(value) {
  const short = Number(value.toPrecision(6));
  const size = Math.abs(short);
  const text = size >= 1e6 || (size && size < 1e-4) ? short.toExponential().replace("+", "") : String(short);
  return text.replace(/-/g, MINUS);
}

/** The frame of a figure: grid, ticks, names of the axes. */
function frame(box, x, y, names) {
  const parts = [];
  for (const value of y.ticks) {
    const place = y.at(value).toFixed(1);
    parts.push(
      svg("path", { class: "grid", d: `M${box.left} ${place}H${box.right}` }),
      svg(
        "text",
        { class: "tick", x: box.left - 8, y: place, dy: "0.32em", "text-anchor": "end" },
        tickText(value),
      ),
    );
  }
  for (const value of x.ticks) {
    const place = x.at(value).toFixed(1);
    parts.push(
      svg("path", { class: "notch", d: `M${place} ${box.bottom}v4` }),
      svg(
        "text",
        { class: "tick", x: place, y: box.bottom + 18, "text-anchor": "middle" },
        tickText(value),
      ),
    );
  }
  parts.push(svg("path", { class: "axis", d: `M${box.left} ${box.bottom}H${box.right}` }));
  if (names.x)
    parts.push(
      svg(
        "text",
        { class: "name", x: (box.left + box.right) / 2, y: box.bottom + 38, "text-anchor": "middle" },
        plain(names.x),
      ),
    );
  if (names.y) parts.push(svg("text", { class: "name", x: 0, y: 12 }, plain(names.y)));
  return parts;
}

/**
 * Selects points of a drawing by pointer and arrow keys. `rows` are lists of `{x, y, lines, said}`: left and right move
 * within a row, up and down to the nearest point of the next row. A drawing is one stop of the Tab key. `onrow` is
 * called with the selected row, and with null if there is none.
 */
function standOn(drawing, holder, rows, onrow = () => {}) {
  const ring = svg("circle", { class: "ring", r: 8, visibility: "hidden" });
  const tip = el("div", { class: "tip", hidden: true, "aria-hidden": "true" });
  drawing.append(ring);
  holder.append(tip);
  let row = 0,
    place = 0;
  const point = () => rows[row]?.[place];
  function show(spoken) {
    const p = point();
    if (!p) return;
    ring.setAttribute("cx", p.x);
    ring.setAttribute("cy", p.y);
    ring.setAttribute("visibility", "visible");
    tip.replaceChildren(...p.lines.map((line) => el("div", {}, line)));
    tip.hidden = false;
    const left = clamp(p.x + 12, 0, Math.max(holder.clientWidth - tip.offsetWidth - 2, 0));
    const above = p.y - tip.offsetHeight - 12;
    tip.style.left = `${left}px`;
    tip.style.top = `${above < 0 ? p.y + 14 : above}px`;
    onrow(row);
    if (spoken) say(p.said);
  }
  function hide() {
    tip.hidden = true;
    ring.setAttribute("visibility", "hidden");
    onrow(null);
  }
  function nearest(x, y, within) {
    let best = within;
    rows.forEach((points, r) =>
      points.forEach((p, i) => {
        const far = Math.hypot(p.x - x, p.y - y);
        if (far < best) [best, row, place] = [far, r, i];
      }),
    );
    return best < within;
  }
  drawing.addEventListener("pointermove", (event) => {
    const edge = drawing.getBoundingClientRect();
    if (nearest(event.clientX - edge.left, event.clientY - edge.top, 40)) show(false);
    else hide();
  });
  drawing.addEventListener("pointerleave", hide);
  drawing.addEventListener("focus", () => {
    if (drawing.matches(":focus-visible")) show(true);
  });
  drawing.addEventListener("blur", hide);
  drawing.addEventListener("keydown", (event) => {
    const p = point();
    if (event.key === "Escape") return hide();
    if (!p || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "ArrowRight") place = Math.min(place + 1, rows[row].length - 1);
    else if (event.key === "ArrowLeft") place = Math.max(place - 1, 0);
    else if (event.key === "Home") place = 0;
    else if (event.key === "End") place = rows[row].length - 1;
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      row = (row + (event.key === "ArrowDown" ? 1 : rows.length - 1)) % rows.length;
      const far = rows[row].map((q) => Math.abs(q.x - p.x));
      place = far.indexOf(Math.min(...far));
    } else return;
    event.preventDefault();
    show(true);
  });
}

/** Draws a figure again whenever its width changes. */
function drawnToWidth(holder, draw) {
  let last = 0;
  const again = () => {
    const width = Math.floor(holder.clientWidth);
    if (width < 40 || width === last) return;
    last = width;
    draw(width);
  };
  new ResizeObserver(again).observe(holder);
  return {
    again,
    anew: () => {
      last = 0;
      again();
    },
  };
}
