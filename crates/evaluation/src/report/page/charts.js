// Charts of curves with intervals, and their common legend.

const redraws = [];

/** The ranges of the axes, with a margin above and below. */
function ranges(chart, curves) {
  const points = curves.flatMap((curve) => curve.points);
  const xs = points.map((p) => p.x).filter((x) => finite(x) && (!chart.log_x || x > 0));
  const ys = [...points.map((p) => p.y), ...(chart.base ? [chart.base] : [])]
    .flatMap((e) => [e.mean, e.low, e.high])
    .filter(finite);
  if (!xs.length || !ys.length) return null;
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const margin = (y1 - y0) * 0.06;
  return { x: [x0, x1], y: [y0 - margin, y1 + margin] };
}

/** The ticks of settings, such as strengths: the settings themselves, if they are few numbers of few digits. */
function ownTicks(curves, x) {
  const values = [...new Set(curves.flatMap((curve) => curve.points.map((p) => p.x)))]
    .filter((v) => finite(x.at(v)))
    .sort((a, b) => a - b);
  if (values.length > 9 || values.some((v) => Number(v.toPrecision(3)) !== v)) return null;
  const ticks = [];
  for (const value of values) if (!ticks.length || apart(x, ticks.at(-1), value)) ticks.push(value);
  return ticks;
}

function curveParts(curve, x, y, names) {
  const place = (p) => tickText(Number(p.x.toPrecision(3)));
  const look = looks.get(curve.label);
  const points = curve.points.filter((p) => finite(p.x) && finite(p.y.mean) && finite(x.at(p.x)));
  const at = (p, value) => `${x.at(p.x).toFixed(1)} ${y.at(value).toFixed(1)}`;
  const whole = points.filter((p) => finite(p.y.low) && finite(p.y.high));
  const band =
    whole.length < 2
      ? null
      : svg("path", {
          class: "band",
          d:
            "M" +
            [...whole.map((p) => at(p, p.y.high)), ...whole.map((p) => at(p, p.y.low)).reverse()].join(
              "L",
            ) +
            "Z",
        });
  const bar =
    whole.length === 1
      ? svg("path", {
          class: "line",
          d: `M${at(whole[0], whole[0].y.low)}L${at(whole[0], whole[0].y.high)}`,
        })
      : null;
  const line =
    points.length < 2
      ? null
      : svg("path", {
          class: "line",
          d: "M" + points.map((p) => at(p, p.y.mean)).join("L"),
          "stroke-dasharray": look.dash,
        });
  const marks = points.map((p) =>
    svg("path", {
      class: p.degenerate ? "marker hollow" : "marker",
      d: markerPath(look.marker, x.at(p.x), y.at(p.y.mean), 4),
    }),
  );
  const stops = points.map((p) => {
    const worse = p.degenerate ? ["the text has degenerated"] : [];
    return {
      x: x.at(p.x),
      y: y.at(p.y.mean),
      lines: [
        el("b", {}, curve.label),
        [p.label, ...worse].filter(Boolean).join(", "),
        `${names.y} ${estimate(p.y)}`,
        `${names.x} ${place(p)}`,
      ],
      said: [
        curve.label,
        p.label,
        ...worse,
        `${names.y} ${estimate(p.y)}`,
        `${names.x} ${place(p)}`,
      ].join(", "),
    };
  });
  return {
    drawn: svg(
      "g",
      { class: `curve colour-${look.colour}`, "data-label": curve.label },
      band,
      bar,
      line,
      marks,
    ),
    stops,
  };
}

function drawCurves(chart, holder, width) {
  const curves = chart.curves.filter((curve) => looks.get(curve.label).shown && curve.points.length);
  const range = ranges(chart, curves);
  holder.replaceChildren();
  if (!range) return holder.append(el("p", { class: "note" }, "There is nothing to show."));
  const height = clamp(width * 0.62, 250, 400);
  const box = { left: 46, right: width - 12, top: 26, bottom: height - 46 };
  const x = scale(...range.x, box.left + 8, box.right - 8, chart.log_x, clamp(width / 90, 3, 8));
  const y = scale(...range.y, box.bottom, box.top, false, 6);
  // A measured quantity, such as KL, has round ticks.
  if (chart.log_x) x.ticks = ownTicks(curves, x) ?? x.ticks;
  const drawing = svg(
    "svg",
    {
      class: curves.length > 5 ? "plot many" : "plot",
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      tabindex: 0,
      role: "application",
      "aria-roledescription": "chart",
      "aria-label": `${plain(chart.title)}: ${plain(chart.y)} against ${plain(chart.x)}, ${count(curves.length, "curve")}. The arrow keys move between points.`,
    },
    frame(box, x, y, chart),
  );
  if (chart.base && finite(chart.base.mean)) drawing.append(baseLine(chart.base, box, y));
  const names = { x: plain(chart.x), y: plain(chart.y) };
  const parts = curves.map((curve) => curveParts(curve, x, y, names));
  drawing.append(...parts.map((part) => part.drawn));
  holder.append(drawing);
  const rows = parts.filter((part) => part.stops.length);
  standOn(
    drawing,
    holder,
    rows.map((part) => part.stops),
    (row) => {
      rows.forEach((part, i) => part.drawn.classList.toggle("on", i === row));
      if (row !== null) drawing.insertBefore(rows[row].drawn, drawing.querySelector(".ring"));
    },
  );
}

function baseLine(base, box, y) {
  const place = y.at(base.mean).toFixed(1);
  const whole = finite(base.low) && finite(base.high);
  return svg(
    "g",
    { class: "base" },
    whole
      ? svg("rect", {
          class: "band",
          x: box.left,
          width: box.right - box.left,
          y: y.at(base.high),
          height: Math.max(y.at(base.low) - y.at(base.high), 0),
        })
      : null,
    svg("path", { class: "line", d: `M${box.left} ${place}H${box.right}` }),
    svg(
      "text",
      { class: "tick", x: box.right, y: Number(place) - 5, "text-anchor": "end" },
      `base ${short(base.mean)}`,
    ),
  );
}

/** The numbers of a chart as a table, which is created when it is opened. */
function chartTable(chart) {
  const holder = el("details", { class: "data" }, el("summary", {}, "Show the numbers"));
  const head = ["curve", "point", plain(chart.x), plain(chart.y), "low", "high", "degenerate"];
  const rows = () =>
    chart.curves.flatMap((c) =>
      c.points.map((p) => [
        c.label,
        p.label,
        p.x,
        p.y.mean,
        p.y.low,
        p.y.high,
        p.degenerate ? "yes" : "",
      ]),
    );
  holder.addEventListener("toggle", () => {
    if (holder.childElementCount > 1) return;
    holder.append(
      sideways(
        chart.title,
        el(
          "table",
          { class: "numbers plain" },
          el(
            "thead",
            {},
            el(
              "tr",
              {},
              head.map((name) => el("th", { scope: "col" }, name)),
            ),
          ),
          el(
            "tbody",
            {},
            rows().map((row) =>
              el(
                "tr",
                {},
                row.map((v, i) =>
                  el(
                    i ? "td" : "th",
                    i ? {} : { scope: "row" },
                    typeof v === "number" ? short(v) : (v ?? NONE),
                  ),
                ),
              ),
            ),
          ),
        ),
      ),
      el(
        "p",
        { class: "under" },
        el(
          "button",
          {
            type: "button",
            class: "quiet",
            onclick: () =>
              save(
                `${chart.name || "chart"}.csv`,
                [head, ...rows()]
                  .map((row) => csvLine(row.map((v) => (v === null ? "" : String(v)))))
                  .join(""),
              ),
          },
          "Save as CSV",
        ),
      ),
    );
  });
  return holder;
}

function drawChart(chart) {
  const id = "chart-" + slug(chart.name || chart.title);
  const holder = el("div", { class: "drawing" });
  redraws.push(drawnToWidth(holder, (width) => drawCurves(chart, holder, width)));
  const hollow = chart.curves.some((c) => c.points.some((p) => p.degenerate))
    ? "Hollow points: the text has degenerated."
    : "";
  return el(
    "figure",
    { id, "aria-labelledby": id + "-title" },
    el(
      "h3",
      { id: id + "-title" },
      marked(chart.title),
      el("a", { class: "anchor", href: "#" + id, "aria-label": `Link to ${plain(chart.title)}` }, "#"),
    ),
    holder,
    el("figcaption", {}, marked([chart.note, hollow].filter(Boolean).join(" "))),
    chartTable(chart),
  );
}

/** One legend for all charts: one button per curve and per group. */
function drawLegend() {
  const groups = new Map();
  for (const [label, look] of looks) groups.set(look.group, [...(groups.get(look.group) ?? []), label]);
  const buttons = [];
  const show = (labels, shown) => {
    for (const label of labels) looks.get(label).shown = shown;
    for (const { button, labels: own } of buttons)
      button.setAttribute("aria-pressed", String(own.some((l) => looks.get(l).shown)));
    redraws.forEach((figure) => figure.anew());
  };
  const toggle = (labels, kind, ...content) => {
    const over = (on) =>
      document.querySelectorAll(".curve").forEach((curve) => {
        curve.classList.toggle("dim", on && !labels.includes(curve.dataset.label));
        curve.classList.toggle("on", on && labels.includes(curve.dataset.label));
      });
    const button = el(
      "button",
      {
        type: "button",
        class: kind,
        "aria-pressed": "true",
        onclick: () => show(labels, !labels.some((l) => looks.get(l).shown)),
        onpointerenter: () => over(true),
        onpointerleave: () => over(false),
        onfocus: () => button.matches(":focus-visible") && over(true),
        onblur: () => over(false),
      },
      content,
    );
    buttons.push({ button, labels });
    return button;
  };
  return el(
    "div",
    { class: "legend", role: "group", "aria-label": "Curves shown in all charts" },
    [...groups].map(([name, labels]) =>
      el(
        "div",
        { class: "legend-group", role: "group", "aria-label": name || "curves" },
        name && groups.size > 1 ? toggle(labels, "legend-all", name) : null,
        labels.map((label) => toggle([label], "legend-one", swatch(label), label)),
      ),
    ),
  );
}

function drawCharts() {
  return section(
    "charts",
    "Curves",
    "Bands and brackets are 95 percent bootstrap intervals over prompts. A click on a name hides or shows its curve in all charts.",
    drawLegend(),
    el("div", { class: "figures" }, report.charts.map(drawChart)),
  );
}
