// Win rates between methods, and histograms.

/** The colour of a cell: from -4, where nearly all prompts are lost, to 4. */
function heat(wins) {
  const total = wins.win + wins.tie + wins.lose;
  return total ? clamp(Math.round(((wins.win - wins.lose) / total) * 5), -4, 4) : 0;
}

function winsCell(wins, row, column) {
  if (!wins) return el("td", { class: "none" }, NONE);
  const total = wins.win + wins.tie + wins.lose;
  const share = total ? Math.round((100 * (wins.win + wins.tie / 2)) / total) : 0;
  const certain = finite(wins.p) && wins.p < 0.05;
  const words = `${row} against ${column}: ${wins.win} won, ${wins.tie} tied, ${wins.lose} lost, p ${short(wins.p)}`;
  return el(
    "td",
    { class: `heat heat-${heat(wins)}${certain ? " certain" : ""}`, title: words },
    el(certain ? "b" : "span", { class: "mean" }, String(share)),
    el("span", { class: "interval" }, `${wins.win}·${wins.tie}·${wins.lose}`),
  );
}

function drawMatrix(matrix) {
  const id = "matrix-" + slug(matrix.title);
  const csv = () =>
    csvLine(["row", "column", "win", "tie", "lose", "p"]) +
    matrix.cells
      .map((cells, r) =>
        cells
          .map((wins, c) =>
            wins
              ? csvLine(
                  [matrix.labels[r], matrix.labels[c], wins.win, wins.tie, wins.lose, wins.p].map((v) =>
                    String(v ?? ""),
                  ),
                )
              : "",
          )
          .join(""),
      )
      .join("");
  return section(
    id,
    matrix.title,
    matrix.note,
    sideways(
      matrix.title,
      el(
        "table",
        { class: "matrix" },
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            el("td", {}, "row against column"),
            matrix.labels.map((label) => el("th", { scope: "col" }, el("span", {}, label))),
          ),
        ),
        el(
          "tbody",
          {},
          matrix.cells.map((cells, r) =>
            el(
              "tr",
              {},
              el("th", { scope: "row" }, swatch(matrix.labels[r]), matrix.labels[r]),
              cells.map((wins, c) => winsCell(wins, matrix.labels[r], matrix.labels[c])),
            ),
          ),
        ),
      ),
    ),
    el(
      "p",
      { class: "under" },
      el(
        "span",
        {},
        "Large number: percentage of prompts that the row wins, where a tie counts as half. Small numbers: won·tied·lost. Bold: p < 0.05 in the sign test.",
      ),
      el(
        "button",
        { type: "button", class: "quiet", onclick: () => save(`${slug(matrix.title)}.csv`, csv()) },
        "Save as CSV",
      ),
    ),
  );
}

/** The edges of the bin that contains the median. */
function middle(histogram, total) {
  let seen = 0;
  for (let i = 0; i < histogram.counts.length; i++) {
    seen += histogram.counts[i];
    if (2 * seen >= total) return [histogram.edges[i], histogram.edges[i + 1]];
  }
  return null;
}

function drawBars(histogram, holder, width, said) {
  const height = 150;
  const box = { left: 34, right: width - 8, top: 10, bottom: height - 40 };
  const edges = histogram.edges;
  const x = scale(edges[0], edges.at(-1), box.left, box.right, false, clamp(width / 70, 2, 6));
  const y = scale(0, Math.max(...histogram.counts, 1), box.bottom, box.top, false, 3);
  y.ticks = y.ticks.filter(Number.isInteger);
  const bars = [],
    stops = [];
  histogram.counts.forEach((n, i) => {
    const [left, right, top] = [x.at(edges[i]), x.at(edges[i + 1]), y.at(n)];
    if (n)
      bars.push(
        svg("rect", {
          class: "bar",
          x: left + 0.5,
          width: Math.max(right - left - 1, 0.5),
          y: top,
          height: box.bottom - top,
        }),
      );
    const where = `${short(edges[i])} to ${short(edges[i + 1])}`;
    stops.push({
      x: (left + right) / 2,
      y: top,
      lines: [el("b", {}, n.toLocaleString("en")), where],
      said: `${where}: ${n}`,
    });
  });
  const look = looks.get(histogram.label);
  const drawing = svg(
    "svg",
    {
      class: look ? `plot colour-${look.colour}` : "plot",
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      tabindex: 0,
      role: "application",
      "aria-roledescription": "histogram",
      "aria-label": `${said} The arrow keys move between bars.`,
    },
    frame(box, x, y, { x: histogram.x }),
    bars,
  );
  holder.replaceChildren(drawing);
  standOn(drawing, holder, [stops]);
}

function drawHistogram(histogram) {
  const total = histogram.counts.reduce((a, b) => a + b, 0);
  const half = middle(histogram, total);
  const under = `${total.toLocaleString("en")} values${half && total ? `, median between ${short(half[0])} and ${short(half[1])}` : ""}.`;
  const holder = el("div", { class: "drawing" });
  drawnToWidth(holder, (width) => drawBars(histogram, holder, width, `${plain(histogram.label)}: ${under}`));
  return el(
    "figure",
    {},
    el("h3", {}, swatch(histogram.label), marked(histogram.label)),
    holder,
    el("figcaption", {}, under),
  );
}

const drawHistograms = () =>
  section(
    "histograms",
    "Thresholds",
    "",
    el("div", { class: "figures small" }, report.histograms.map(drawHistogram)),
  );
