// Tables with intervals.

/** A section with a heading, a link to itself, and a note. */
function section(id, title, note, ...children) {
  return el(
    "section",
    { id, "aria-labelledby": id + "-title" },
    el(
      "h2",
      { id: id + "-title" },
      el("span", {}, marked(title)),
      el("a", { class: "anchor", href: "#" + id, "aria-label": `Link to ${plain(title)}` }, "#"),
    ),
    note ? el("p", { class: "note" }, marked(note)) : null,
    children,
  );
}

/**
 * A box that scrolls horizontally, by keyboard too, if its content is wider than the page. Then a shade at its right edge
 * shows that there is more: it sticks to the edge, and is covered by `end` where the content ends.
 */
const sideways = (name, content) =>
  el(
    "div",
    { class: "sideways", tabindex: 0, role: "region", "aria-label": plain(name) },
    content,
    el("div", { class: "more", "aria-hidden": "true" }),
    el("div", { class: "end", "aria-hidden": "true" }),
  );

function tableCell(cell) {
  if (!cell) return el("td", { class: "none" }, NONE);
  const mean = fixed(cell.mean, cell.digits);
  return el(
    "td",
    {},
    el(cell.bold ? "b" : "span", { class: "mean" }, mean),
    cell.differs
      ? el(
          "span",
          { class: cell.differs > 0 ? "above" : "below" },
          el("span", { "aria-hidden": "true" }, cell.differs > 0 ? "▲" : "▼"),
          el("span", { class: "unseen" }, cell.differs > 0 ? " clearly higher " : " clearly lower "),
        )
      : null,
    cell.interval
      ? el(
          "span",
          { class: "interval" },
          `[${fixed(cell.interval[0], cell.digits)}, ${fixed(cell.interval[1], cell.digits)}]`,
        )
      : null,
  );
}

/** Groups of consecutive rows. */
function grouped(rows) {
  const groups = [];
  for (const row of rows) {
    if (!groups.length || groups.at(-1).name !== row.group) groups.push({ name: row.group, rows: [] });
    groups.at(-1).rows.push(row);
  }
  return groups;
}

function tableCsv(table) {
  const wide = table.columns.map((_, i) => table.rows.some((row) => row.cells[i]?.interval));
  const digits = (value) => (finite(value) ? String(value) : "");
  let text = csvLine([
    "group",
    "name",
    ...table.columns.flatMap((name, i) => (wide[i] ? [name, name + " low", name + " high"] : [name])),
  ]);
  for (const row of table.rows) {
    const cells = row.cells.flatMap((cell, i) => [
      digits(cell?.mean),
      ...(wide[i] ? [digits(cell?.interval?.[0]), digits(cell?.interval?.[1])] : []),
    ]);
    text += csvLine([row.group, row.label, ...cells]);
  }
  return text;
}

function drawTable(table) {
  const id = "table-" + slug(table.name || table.title);
  const columns = table.columns.map((name) => el("th", { scope: "col" }, marked(name)));
  const bodies = grouped(table.rows).map(({ name, rows }) =>
    el(
      "tbody",
      {},
      name
        ? el(
            "tr",
            { class: "group" },
            el("th", { scope: "rowgroup", colspan: table.columns.length + 1 }, el("span", {}, name)),
          )
        : null,
      rows.map((row) =>
        el("tr", {}, el("th", { scope: "row" }, swatch(row.label), row.label), row.cells.map(tableCell)),
      ),
    ),
  );
  const bold = table.rows.some((row) => row.cells.some((cell) => cell?.bold));
  const legend = [
    table.rows.some((row) => row.cells.some((cell) => cell?.interval))
      ? "Brackets: 95 percent bootstrap intervals over prompts."
      : "",
    bold ? "Bold: the best value of its group, if the interval of its difference from the second best excludes 0." : "",
  ]
    // A table with a note does not need the legend.
    .filter((words) => words && !table.note)
    .join(" ");
  return section(
    id,
    table.title || table.name,
    table.note,
    sideways(
      table.title,
      el("table", { class: "numbers" }, el("thead", {}, el("tr", {}, el("td", {}), columns)), bodies),
    ),
    el(
      "p",
      { class: "under" },
      legend ? el("span", {}, legend) : null,
      el(
        "button",
        {
          type: "button",
          class: "quiet",
          onclick: () => save(`${table.name || "table"}.csv`, tableCsv(table)),
        },
        "Save as CSV",
      ),
    ),
  );
}
