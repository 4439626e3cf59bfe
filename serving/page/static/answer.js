// What the model says, on the right of the page: verdict, suggestions, contributions.

import { byId, element, say, score, signed } from "./element.js";

const list = (labels) =>
  labels.length < 2 ? labels.join("") : `${labels.slice(0, -1).join(", ")} and ${labels.at(-1)}`;

/** The verdict in words: kind ("nudge", "filed", "choose"), the sentence, and more. */
export function verdict(suggestions) {
  if (suggestions === null) {
    return ["nudge", "Nothing filled in yet", "Suggestions appear with the first word or picture."];
  }
  const assigned = suggestions.filter((x) => x.assigned).map((x) => x.label);
  if (assigned.length > 0) {
    return ["filed", `Would be filed automatically under ${list(assigned)}`, "You can still choose another category."];
  }
  const first = suggestions[0];
  return ["choose", "Please choose", `The model is not sure enough. Its first guess is ${first.label}, ${score(first.score)}.`];
}

/** The answer's part of the page. */
export class AnswerView {
  #suggestions = null;
  #chosen = null; // labels that the seller chose; null follows the model
  #focus = null; // the label whose contributions are shown
  #explanation = null;
  #problem = "";
  #isSingle = false;

  /** Begins anew for a form: `single_label` lets the seller choose one label. */
  reset(task) {
    this.#isSingle = task === "single_label";
    this.#chosen = this.#focus = null;
    this.show(null);
  }

  /** Shows suggestions, best first; null where nothing is filled in. */
  show(suggestions) {
    this.#suggestions = suggestions;
    const [kind, words, more] = verdict(suggestions);
    byId("verdict").dataset.kind = kind;
    say("verdict-words", words);
    say("verdict-more", more);
    byId("suggested").hidden = suggestions === null;
    if (suggestions === null) this.explain(null);
    this.#draw();
  }

  /** Says in the verdict's place why there is none; what is shown is of before. */
  fail(words, more) {
    byId("verdict").dataset.kind = "down";
    say("verdict-words", words);
    say("verdict-more", more);
    byId("verdict").classList.remove("stale");
  }

  /** What is shown is of before: another question is under way or failed. */
  set stale(isStale) {
    byId("answer").classList.toggle("stale", isStale);
    byId("verdict").classList.toggle("stale", isStale);
    byId("suggested").setAttribute("aria-busy", isStale);
  }

  /**
   * Shows contributions to the suggestions that are shown; null for none.
   * @param {{title: string, parts: number[], note: string}[]?} parts
   * @param {string} problem Why there are none, if something went wrong.
   */
  explain(parts, problem = "") {
    this.#explanation = parts;
    this.#problem = problem;
    byId("why").classList.remove("stale");
    this.#drawWhy();
  }

  /** The contributions are of the answer before. */
  outdateExplanation() {
    byId("why").classList.add("stale");
  }

  get #selected() {
    if (this.#chosen !== null) return this.#chosen;
    return this.#suggestions.filter((x) => x.assigned).map((x) => x.label);
  }

  #choose(label, isChecked) {
    const others = this.#isSingle ? [] : this.#selected.filter((x) => x !== label);
    this.#chosen = isChecked ? [...others, label] : others;
    this.#focus = label;
    this.#drawResult();
    this.#drawWhy();
  }

  #draw() {
    if (this.#suggestions === null) return;
    const focused = document.activeElement?.closest?.("#suggestions li")?.dataset.label;
    // A choice stays on the list when the model suggests it no longer.
    const gone = (this.#chosen ?? []).filter(
      (label) => !this.#suggestions.some((x) => x.label === label),
    );
    const rows = this.#suggestions.map((x) => this.#row(x.label, x));
    byId("suggestions").replaceChildren(...rows, ...gone.map((x) => this.#row(x, null)));
    if (focused !== undefined) {
      rows.find((row) => row.dataset.label === focused)?.querySelector("input").focus();
    }
    this.#drawResult();
    this.#drawWhy();
  }

  #row(label, said) {
    const control = element("input", {
      type: this.#isSingle ? "radio" : "checkbox",
      name: "chosen",
      value: label,
      checked: this.#selected.includes(label),
      onchange: (event) => this.#choose(label, event.target.checked),
    });
    const bar = element("span", { class: "bar", "aria-hidden": "true" }, element("span"));
    bar.firstChild.style.inlineSize = `${100 * (said?.score ?? 0)}%`;
    const row = element(
      "label",
      {},
      control,
      element("bdi", { class: "name" }, label),
      said?.assigned ? element("span", { class: "tag" }, "automatic") : null,
      element("span", { class: "score" }, said ? score(said.score) : "not suggested now"),
      bar,
    );
    return element("li", { "data-label": label }, row);
  }

  #drawResult() {
    const labels = this.#selected;
    byId("result-text").value = labels.join(" | ");
    byId("result-text").placeholder = "no category yet";
    byId("copy").disabled = labels.length === 0;
    const whose = this.#chosen === null ? "As the model would file it." : "Your choice.";
    say("result-note", labels.length === 0 ? "" : whose);
  }

  #drawWhy() {
    const parts = this.#explanation;
    const labels = this.#suggestions?.map((x) => x.label) ?? [];
    byId("why").hidden = labels.length === 0 || (parts === null && !this.#problem);
    if (byId("why").hidden) return;
    if (parts === null) {
      byId("why-title").textContent = "What spoke for it cannot be told now";
      byId("parts").replaceChildren();
      byId("why-words").textContent = this.#problem;
      return;
    }
    const wanted = [this.#focus, ...this.#selected].find((x) => labels.includes(x));
    const place = wanted === undefined ? 0 : labels.indexOf(wanted);
    const total = this.#suggestions[place].score;
    const values = parts.map((part) => part.parts[place]);
    const start = total - values.reduce((sum, value) => sum + value, 0);
    byId("why-title").replaceChildren("What spoke for ", element("bdi", {}, labels[place]));
    const lowest = Math.min(0, ...values);
    // Small sums must not look like large ones.
    const highest = Math.max(total, start, ...values, 0.5);
    const scale = { lowest, width: highest - lowest };
    byId("parts").replaceChildren(
      ...partRow("How common it is", score(Math.max(0, start)), start, scale, "start", ""),
      ...parts.flatMap((part, i) =>
        partRow(part.title, signed(values[i]), values[i], scale, values[i] < 0 ? "less" : "more", part.note),
      ),
      ...partRow("Score", score(total), total, scale, "total", ""),
    );
    byId("why-words").textContent =
      "How common the category is in the catalog, plus what each part added or took away, is the score.";
  }
}

// A line of the sum: its name, a bar from zero, the number.
function partRow(name, number, value, scale, kind, note) {
  const bar = element("span", { class: `part ${kind}`, "aria-hidden": "true" }, element("span"));
  const percent = (x) => `${(100 * x) / scale.width}%`;
  bar.style.setProperty("--zero", percent(-scale.lowest));
  bar.firstChild.style.insetInlineStart = percent(Math.min(0, value) - scale.lowest);
  bar.firstChild.style.inlineSize = percent(Math.abs(value));
  bar.firstChild.hidden = value === 0;
  const words = note ? element("small", {}, ` ${note}`) : null;
  return [
    element("dt", { class: kind }, name, words),
    element("dd", { class: kind }, bar, element("span", { class: "score" }, number)),
  ];
}
