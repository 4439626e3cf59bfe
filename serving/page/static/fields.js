// Fields for texts and for a table's cells. Every field has `root`, `value()`,
// `clear()` and calls `changed` when the seller changed it.

import { element, readable } from "./element.js";

let count = 0;

function labelled(words, control) {
  control.id = `field-${++count}`;
  const label = element("label", { htmlFor: control.id }, words);
  return element("div", { class: "field" }, label, control);
}

/** A text of any length; it grows with what is in it. */
export class TextField {
  constructor({ name }, rows, changed) {
    this.control = element("textarea", {
      rows,
      name,
      dir: "auto",
      spellcheck: false,
      oninput: () => {
        this.fit();
        changed();
      },
    });
    this.root = labelled(readable(name), this.control);
  }

  // Browsers with `field-sizing` do it by themselves.
  fit() {
    if (CSS.supports("field-sizing", "content")) return;
    this.control.style.height = "auto";
    this.control.style.height = `${this.control.scrollHeight + 2}px`;
  }

  value() {
    return this.control.value.trim() ? this.control.value : "";
  }

  clear() {
    this.control.value = "";
    this.fit();
  }
}

/** A text that is made of several, such as title and description. */
export class TextsField {
  constructor(field, changed) {
    this.parts = field.columns.map(
      (name, i) => new TextField({ name }, i === 0 ? 1 : 3, changed),
    );
    this.root = element("div", {}, ...this.parts.map((part) => part.root));
  }

  value() {
    const texts = this.parts.map((part) => part.value());
    return texts.some(Boolean) ? texts : [];
  }

  clear() {
    for (const part of this.parts) part.clear();
  }
}

/** A row of a table, a field for each column. */
export class TableField {
  constructor(field, changed) {
    this.controls = field.columns.map((column) =>
      element("input", { type: "text", name: `${field.name}.${column}`, dir: "auto", oninput: changed }),
    );
    const cells = this.controls.map((control, i) =>
      labelled(readable(field.columns[i]), control),
    );
    this.root = element(
      "fieldset",
      { class: "field" },
      element("legend", {}, readable(field.name)),
      element("div", { class: "cells" }, ...cells),
    );
  }

  value() {
    const cells = this.controls.map((control) => control.value.trim());
    return cells.some(Boolean) ? cells : [];
  }

  clear() {
    for (const control of this.controls) control.value = "";
  }
}
