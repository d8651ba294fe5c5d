// The trace of an answer: its tokens, and the candidates of the selected token.

/** The button that switches between an answer's text and its tokens. */
function traceButton(card, text, index, name) {
  const button = el(
    "button",
    { type: "button", class: "per-token", "aria-expanded": "false" },
    "Token by token",
  );
  let view = null;
  const close = () => {
    view.remove();
    view = null;
    text.hidden = false;
    card.classList.remove("wide");
    button.textContent = "Token by token";
    button.setAttribute("aria-expanded", "false");
    button.focus();
  };
  button.addEventListener("click", async () => {
    if (view) return close();
    let trace = null;
    try {
      trace = await unpacked(`trace-${index}`);
    } catch {
      return button.after(el("p", { class: "note" }, UNREADABLE));
    }
    if (view) return;
    view = traceView(trace, name, close);
    text.hidden = true;
    text.after(view);
    card.classList.add("wide");
    button.textContent = "Back to the text";
    button.setAttribute("aria-expanded", "true");
    view.querySelector("button.token")?.focus();
  });
  return button;
}

const steered = (step) => finite(step.base) && step.chosen !== step.base;

/** A token's text with visible spaces and line breaks. */
const visible = (text) =>
  text
    .replace(/\n/g, "↵")
    .replace(/\t/g, "⇥")
    .replace(/^ +| +$/g, (blanks) => "·".repeat(blanks.length)) || "∅";

function traceView(trace, name, close) {
  const steps = trace.steps;
  const tokens = el("div", {
    class: "tokens",
    role: "group",
    "aria-label": `Tokens of ${name}. The arrow keys move between tokens, Enter opens the candidates, Escape closes.`,
  });
  const below = el("div", { class: "step" });
  let place = 0,
    open = false;
  steps.forEach((step, i) => {
    const changed = steered(step),
      skipped = !step.rewards;
    const said = [
      `token ${i + 1}: ${visible(step.text)}`,
      changed ? "not the base policy's choice" : "",
      skipped ? (trace.values ? "no value computed" : "no reward computed") : "",
      step.warning ? `warning: ${step.warning}` : "",
    ];
    tokens.append(
      el(
        "button",
        {
          type: "button",
          tabindex: i ? -1 : 0,
          "data-place": i,
          "aria-label": said.filter(Boolean).join(", "),
          class: ["token", changed && "changed", skipped && "skipped", step.warning && "warned"]
            .filter(Boolean)
            .join(" "),
        },
        step.text.replace(/\n/g, "↵") || "∅",
      ),
    );
    if (step.text.includes("\n")) tokens.append(el("br"));
  });
  const buttons = [...tokens.querySelectorAll(".token")];
  const stand = (next, focus) => {
    buttons[place]?.setAttribute("tabindex", -1);
    place = clamp(next, 0, steps.length - 1);
    buttons[place].setAttribute("tabindex", 0);
    if (focus) buttons[place].focus();
    if (open) show();
  };
  const show = () => {
    open = true;
    buttons.forEach((button, i) =>
      i === place ? button.setAttribute("aria-current", "true") : button.removeAttribute("aria-current"),
    );
    below.replaceChildren(stepTable(steps[place], place, trace.values));
  };
  const other = (way) => {
    for (let i = place + way; i >= 0 && i < steps.length; i += way) if (steered(steps[i])) return i;
    return place;
  };
  tokens.addEventListener("click", (event) => {
    const button = event.target.closest(".token");
    if (!button) return;
    open = true;
    stand(Number(button.dataset.place), true);
  });
  tokens.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const next = {
      ArrowRight: () => place + 1,
      ArrowLeft: () => place - 1,
      Home: () => 0,
      End: () => steps.length - 1,
      ArrowDown: () => other(1),
      ArrowUp: () => other(-1),
    }[event.key];
    if (event.key === "Escape") close();
    else if (next) stand(next(), true);
    else return;
    event.preventDefault();
  });
  const changed = steps.filter(steered).length,
    skipped = steps.filter((step) => !step.rewards).length,
    warned = steps.filter((step) => step.warning).length,
    reward = trace.values ? "value" : "reward";
  return el(
    "div",
    { class: "trace" },
    el(
      "p",
      { class: "note" },
      `${count(steps.length, "token")}, `,
      el("span", { class: "token changed" }, `${changed} not the base policy's choice`),
      skipped ? [", ", el("span", { class: "token skipped" }, `${skipped} without a ${reward}`)] : "",
      warned ? `, ${count(warned, "with a warning", "with warnings")}` : "",
      ". The left and right arrow keys move between tokens, up and down between changed tokens. Enter opens the candidates.",
    ),
    tokens,
    below,
  );
}

/** A small scale in a table row: the reward as a dot, and the threshold as a line through all rows. */
function strip(value, low, high, threshold) {
  const at = (v) => (high > low ? 6 + (68 * (v - low)) / (high - low) : 40).toFixed(1);
  return svg(
    "svg",
    { class: "strip", width: 80, height: 22, viewBox: "0 0 80 22", "aria-hidden": "true" },
    svg("path", { class: "grid", d: "M4 11H76" }),
    finite(threshold) ? svg("path", { class: "threshold", d: `M${at(threshold)} 0V22` }) : null,
    finite(value)
      ? svg("circle", {
          class: finite(threshold) && value >= threshold ? "dot over" : "dot",
          cx: at(value),
          cy: 11,
          r: 4,
        })
      : null,
  );
}

function stepTable(step, place, values) {
  const reward = values ? "value" : "reward";
  const { tokens, logits, rewards, shaped, fused, threshold, chosen, base } = step;
  const known = [...(rewards ?? []), threshold].filter(finite);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const over = (i) => rewards && finite(threshold) && rewards[i] >= threshold;
  const heads = [
    "candidate",
    "",
    values ? "base log-probability" : "base logit",
    ...(rewards ? [reward, ""] : []),
    ...(shaped ? ["shaped"] : []),
    "fused",
  ];
  const rows = tokens.map((token, i) =>
    el(
      "tr",
      { class: i === chosen ? "chosen" : null },
      el("th", { scope: "row", dir: "auto" }, visible(token)),
      el(
        "td",
        { class: "marks" },
        i === chosen ? el("span", { class: "mark" }, "chosen") : null,
        i === base ? el("span", { class: "mark of-base" }, "base") : null,
      ),
      el("td", {}, short(logits[i])),
      rewards
        ? [
            el("td", {}, over(i) ? el("b", {}, short(rewards[i])) : short(rewards[i])),
            el("td", { class: "place" }, strip(rewards[i], low, high, threshold)),
          ]
        : [],
      shaped ? el("td", {}, short(shaped[i])) : [],
      el("td", {}, short(fused[i])),
    ),
  );
  return el(
    "div",
    {},
    el(
      "h5",
      {},
      `Token ${place + 1}: `,
      el("span", { class: "token" }, visible(step.text)),
      finite(threshold)
        ? el("span", { class: "interval" }, ` threshold m* = ${short(threshold)}`)
        : null,
    ),
    step.warning ? el("p", { class: "warnings" }, `⚠ ${step.warning}`) : null,
    rewards ? null : el("p", { class: "note" }, `The ${reward} was not computed in this step.`),
    finite(chosen) ? null : el("p", { class: "note" }, "The token was not among the candidates."),
    sideways(
      "Candidates",
      el(
        "table",
        { class: "numbers plain candidates" },
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            heads.map((name) => (name ? el("th", { scope: "col" }, name) : el("td", {}))),
          ),
        ),
        el("tbody", {}, rows),
      ),
    ),
  );
}
