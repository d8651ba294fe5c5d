// One of the two answers: its text, token by token, and its numbers.

import { el, list, shown } from "./dom.js";
import { isSteered, rewardOf } from "./step.js";

export class Answer {
  /** `select` is told which token is selected. */
  constructor(article, name, select) {
    Object.assign(this, { name, select, steps: [], block: null, tokens: [], at: -1 });
    this.text = el("p", { class: "text", onkeydown: (event) => this.key(event) });
    this.numbers = el("div", { class: "numbers" });
    article.replaceChildren(article.querySelector("h2"), this.text, this.numbers);
  }

  /** Adds a chunk of the stream. */
  add(chunk) {
    const [choice] = chunk.choices;
    if (!choice) return;
    const steps = choice.trace ?? [];
    for (const step of steps) {
      if (step.block) this.block = step;
      this.steps.push(step);
    }
    const piece = choice.delta?.content ?? choice.text ?? "";
    if (steps.length || piece) this.piece(piece, steps);
    if (choice.guidance) this.end(choice.guidance, choice.finish_reason);
  }

  /** Says that the answer failed. */
  fail(error) {
    this.numbers.replaceChildren(el("p", { class: "error", role: "alert" }, error.message));
  }

  piece(piece, steps) {
    const token = { step: steps.at(-1) ?? this.tokens.at(-1)?.step, block: this.block };
    const kind = this.block ? "chosen" : steps.some(isSteered) ? "steered" : "";
    const index = this.tokens.push(token) - 1;
    token.node = el("span", {
      class: `token ${kind}`,
      role: "button",
      tabindex: index ? -1 : 0,
      "aria-pressed": "false",
      onclick: () => this.choose(index),
    }, piece);
    this.text.append(token.node);
  }

  /** Arrow keys go from token to token. */
  key(event) {
    const now = this.tokens.findIndex((token) => token.node === document.activeElement);
    const to = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: this.tokens.length - 1, Enter: now, " ": now }[event.key];
    if (to === undefined || !this.tokens[to]) return;
    event.preventDefault();
    this.choose(to);
    this.tokens[to].node.focus();
  }

  choose(index) {
    this.tokens.forEach((token, i) => {
      token.node.tabIndex = i === index ? 0 : -1;
    });
    const { step, block, node } = this.tokens[index];
    if (step) this.select(this.name, step, block, node);
  }

  end(guidance, reason) {
    const { reward, rewards, kl, kl_bound, steered, tokens_run } = guidance;
    const exact = typeof kl === "number";
    this.numbers.replaceChildren(list([
      ["Reward", shown(reward, 2)],
      // A single reward is the reward.
      ...Object.entries(rewards ?? {}).filter((part, at, all) => all.length > 1).map(([name, value]) => [name, shown(value, 2)]),
      [exact ? "KL, nats" : "KL, sum of the steps", shown(kl ?? kl_bound ?? this.kl().at(-1)?.[1], 2)],
      ["Steered tokens", steered],
      ["Tokens run", tokens_run],
      ["Ended by", reason ?? "\u2013"],
    ]));
  }

  /** The reward along the answer: [token, reward]. */
  rewards() {
    const found = this.steps.map((step) => [step.step + (step.block ? step.block.continuations[step.block.chosen].length : 1), rewardOf(step)]);
    return found.filter(([, reward]) => typeof reward === "number");
  }

  /** The KL so far along the answer: [token, nats]. */
  kl() {
    let sum = 0;
    return this.steps.filter((step) => typeof step.kl === "number").map((step) => [step.step + 1, (sum += step.kl)]);
  }
}
