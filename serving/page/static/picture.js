// The field for a picture: dropped, pasted, chosen, or taken with the telephone.

import * as api from "./api.js";
import { draw } from "./attention.js";
import { element, readable } from "./element.js";
import { mebibytes, prepare } from "./upright.js";

// What the model reads; a telephone that stores another kind then hands over a JPEG.
const KINDS = "image/jpeg,image/png,image/gif,image/bmp,image/webp";
const MAP_PX = 640; // longer side of the canvas over the picture

export class PictureField {
  /**
   * @param {{name: string}} field
   * @param {number} maxBytes Of what is sent.
   * @param {() => void} changed
   */
  constructor(field, maxBytes, changed) {
    this.maxBytes = maxBytes;
    this.changed = changed;
    this.url = "";
    this.#build(readable(field.name));
    this.clear();
  }

  /** The key of the picture, "" if there is none; sends it if it was not yet. */
  async value() {
    if (!this.blob) return "";
    this.sent ??= api.picture(this.blob);
    const sent = this.sent;
    try {
      return await sent;
    } catch (error) {
      if (this.sent === sent) this.sent = null;
      throw error;
    }
  }

  get filled() {
    return this.blob !== null;
  }

  /** The server does not know the picture any more. */
  forget() {
    this.sent = null;
  }

  clear() {
    this.turn = (this.turn ?? 0) + 1; // a file that is still being read comes too late
    this.blob = this.sent = null;
    URL.revokeObjectURL(this.url);
    this.image.removeAttribute("src");
    this.chooser.value = this.camera.value = "";
    this.about.textContent = this.note.textContent = "";
    this.showStatus(null);
    this.showMaps([]);
    this.root.dataset.filled = "no";
  }

  /** Takes the first of some files. */
  async take(files) {
    if (files.length === 0) return;
    this.clear();
    const turn = this.turn;
    const file = files[0];
    let prepared;
    try {
      prepared = await prepare(file, this.maxBytes);
    } catch (error) {
      if (turn === this.turn) {
        this.showStatus({ bad: true, words: error.message });
        this.changed();
      }
      return;
    }
    if (turn !== this.turn) return;
    this.blob = prepared.blob;
    this.url = URL.createObjectURL(prepared.blob);
    this.image.src = this.url;
    this.root.dataset.filled = "yes";
    this.root.dataset.seen = "yes";
    this.about.textContent = [file.name, mebibytes(prepared.blob.size)].filter(Boolean).join(" · ");
    const others = files.length > 1 ? `The first of ${files.length} files. ` : "";
    this.note.textContent = others + prepared.note;
    this.changed();
  }

  /** What became of the picture: `{bad, words}`, or null while nothing is known. */
  showStatus(status) {
    this.status.textContent = status?.words ?? "";
    this.status.classList.toggle("bad", status?.bad ?? false);
  }

  /** The attention maps, `{name, cells}`; those of nothing are left out. */
  showMaps(maps) {
    const chosen = this.which.value;
    this.maps = maps;
    this.which.replaceChildren(
      ...maps.map((map) => element("option", { value: map.name }, readable(map.name || "map"))),
    );
    if (maps.some((map) => map.name === chosen)) this.which.value = chosen;
    this.which.hidden = maps.length < 2;
    this.#draw();
  }

  #draw() {
    const map = this.maps.find((x) => x.name === this.which.value) ?? this.maps[0];
    const strength = this.strength.value / 100;
    const strongest = map ? draw(this.canvas, map.cells, strength) : 0;
    this.canvas.hidden = strongest === 0 || !this.isShown.checked;
    this.mapTools.hidden = strongest === 0;
    this.strength.disabled = !this.isShown.checked;
    this.mapWords.textContent =
      strongest === 0
        ? ""
        : `Coloured: more than the average attention, at most ${strongest.toFixed(1)} times. Dark: less.`;
  }

  #loaded() {
    const { naturalWidth: width, naturalHeight: height } = this.image;
    const ratio = MAP_PX / Math.max(width, height);
    this.canvas.width = Math.max(1, Math.round(width * ratio));
    this.canvas.height = Math.max(1, Math.round(height * ratio));
    this.frame.style.setProperty("--ratio", width / height);
    this.#draw();
  }

  #build(name) {
    const file = (properties) =>
      element("input", {
        type: "file",
        hidden: true, // the buttons stand for it
        onchange: (event) => this.take([...event.target.files]),
        ...properties,
      });
    this.chooser = file({ accept: KINDS });
    this.camera = file({ accept: "image/*", capture: "environment" });
    const button = (words, properties) => element("button", { type: "button", ...properties }, words);
    this.image = element("img", {
      alt: "The picture that was added",
      onload: () => this.#loaded(),
      // A kind that the browser cannot show; what the model says of it counts.
      onerror: () => (this.root.dataset.seen = "no"),
    });
    this.canvas = element("canvas", { hidden: true, "aria-hidden": "true" });
    this.frame = element("div", { class: "frame" }, this.image, this.canvas);
    this.isShown = element("input", { type: "checkbox", checked: true, onchange: () => this.#draw() });
    this.strength = element("input", {
      type: "range",
      min: 10,
      max: 100,
      value: 85,
      "aria-label": "Strength of the map",
      oninput: () => this.#draw(),
    });
    this.which = element("select", {
      hidden: true,
      "aria-label": "Which part of the model looked",
      onchange: () => this.#draw(),
    });
    this.mapWords = element("p", { class: "note" });
    this.mapTools = element(
      "div",
      { class: "map", hidden: true },
      element("label", {}, this.isShown, " Show where the model looked"),
      this.which,
      this.strength,
      this.mapWords,
    );
    this.about = element("span", { class: "about" });
    this.note = element("p", { class: "note" });
    this.status = element("p", { class: "note", role: "status" });
    const remove = button("Remove", {
      class: "plain",
      onclick: () => {
        this.clear();
        this.choose.focus();
        this.changed();
      },
    });
    this.choose = button("Choose a file", { onclick: () => this.chooser.click() });
    const drop = element(
      "div",
      { class: "drop" },
      element("p", { class: "with-mouse" }, "Drop a picture here, paste it, or"),
      this.choose,
      button("Take a photo", { class: "with-finger", onclick: () => this.camera.click() }),
    );
    const preview = element(
      "div",
      { class: "preview" },
      this.frame,
      element("p", { class: "no-preview" }, "No preview of this kind of file"),
      element("div", { class: "line" }, this.about, remove),
      this.mapTools,
    );
    this.root = element(
      "fieldset",
      {
        class: "field picture",
        ondragover: (event) => {
          event.preventDefault();
          this.root.classList.add("over");
        },
        ondragleave: () => this.root.classList.remove("over"),
        ondrop: (event) => {
          event.preventDefault();
          event.stopPropagation();
          this.root.classList.remove("over");
          this.take([...event.dataTransfer.files]);
        },
      },
      element("legend", {}, name),
      this.chooser,
      this.camera,
      drop,
      preview,
      this.note,
      this.status,
    );
  }
}
