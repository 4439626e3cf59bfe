// The page: a form made from the model's inputs, and questions as the seller types.

import * as api from "./api.js";
import { AnswerView } from "./answer.js";
import { byId, readable, say } from "./element.js";
import { TableField, TextField, TextsField } from "./fields.js";
import { PictureField } from "./picture.js";

// Quiet time before a question. An explanation costs the model several answers.
const SUGGEST_AFTER_MS = 250;
const EXPLAIN_AFTER_MS = 600;
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 10000;
// Between looks whether the model is still there, while nothing is asked.
const LOOK_EVERY_MS = 15000;
// Refusals that pass by themselves; others stay until the seller changes something.
const PASSING = new Set([
  ...["UNAVAILABLE", "CANCELLED", "NOT_FOUND", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"],
  ...["MISFIT", "FORM_CHANGED", "PAGE", "PAGE_DOWN"],
]);

const answer = new AnswerView();
let about = null; // the model, as /api/model tells
let fields = []; // [{name, kind, columns, field}]
let turn = 0; // of the newest question; an answer to an older one is dropped
let waiting = null; // aborts the question under way
let timer = 0;
let retryTimer = 0;
let retryMs = FIRST_WAIT_MS;

function state(kind, words) {
  byId("state").dataset.kind = kind;
  say("state", words);
}

function make(field) {
  if (field.kind === "image") return new PictureField(field, about.limits.picture_bytes, changed);
  if (field.kind === "table") return new TableField(field, changed);
  if (field.columns.length > 0) return new TextsField(field, changed);
  const first = about.fields.find((x) => x.kind === "text");
  return new TextField(field, field === first ? 1 : 3, changed);
}

// Reads the model's form. Fields that are as they were keep what the seller wrote.
// Returns whether the form changed.
async function load() {
  const found = await api.model();
  const isSame = JSON.stringify(found) === JSON.stringify(about);
  about = found;
  if (!isSame) {
    const before = fields;
    fields = found.fields.map((x) => {
      const alike = before.find((old) => old.key === JSON.stringify(x));
      return { ...x, key: JSON.stringify(x), field: alike?.field ?? make(x) };
    });
    byId("fields").replaceChildren(...fields.map((x) => x.field.root));
    answer.reset(found.task);
  }
  state("ready", `Model “${found.model}” is ready`);
  return !isSame;
}

// Tries until the model is there, then asks what was left unasked.
async function recover() {
  clearTimeout(retryTimer);
  try {
    await load();
  } catch (error) {
    failed(error);
    return;
  }
  ask();
}

// Looks whether the model is there, and whether it is another one by now.
async function look() {
  if (document.hidden || byId("state").dataset.kind !== "ready") return;
  try {
    if (await load()) ask();
  } catch (error) {
    failed(error);
  }
}

function failed(error) {
  if (!(error instanceof api.Refused)) throw error; // a mistake of this script
  clearTimeout(retryTimer);
  if (!PASSING.has(error.code)) {
    answer.fail(error.message, "");
    return;
  }
  state("down", "Not ready");
  answer.fail(error.message, "The page tries again by itself.");
  retryTimer = setTimeout(recover, retryMs);
  retryMs = Math.min(LONGEST_WAIT_MS, 2 * retryMs);
}

function isFilled({ field, kind }) {
  return kind === "image" ? field.filled : field.value().length > 0;
}

async function values() {
  const given = fields.filter(isFilled);
  const pairs = given.map(async ({ name, field }) => [name, await field.value()]);
  return Object.fromEntries(await Promise.all(pairs));
}

// A question with the pictures' keys; a picture that was forgotten is sent again.
async function question(path, signal) {
  try {
    return await api.question(path, await values(), signal);
  } catch (error) {
    if (error.code !== "PICTURE_GONE") throw error;
    for (const { field, kind } of fields) if (kind === "image") field.forget();
    return api.question(path, await values(), signal);
  }
}

function changed() {
  clearTimeout(timer);
  turn++;
  waiting?.abort();
  answer.stale = true;
  timer = setTimeout(ask, SUGGEST_AFTER_MS);
}

async function ask() {
  clearTimeout(timer);
  if (about === null) return;
  const mine = ++turn;
  waiting?.abort();
  waiting = new AbortController();
  const { signal } = waiting;
  const isEmpty = !fields.some(isFilled);
  byId("reset").disabled = isEmpty;
  if (isEmpty) {
    answer.show(null);
    answer.stale = false;
    retryMs = FIRST_WAIT_MS;
    return;
  }
  answer.stale = true;
  try {
    const said = await question("suggest", signal);
    if (mine !== turn) return;
    answer.outdateExplanation();
    answer.show(said.suggestions);
    answer.stale = false;
    showPictures(said.pictures);
    state("ready", `Model “${about.model}” is ready`);
    retryMs = FIRST_WAIT_MS;
    if (about.explains) timer = setTimeout(() => explain(mine, signal, said.pictures), EXPLAIN_AFTER_MS);
  } catch (error) {
    if (mine !== turn) return;
    if (error.code === "FORM_CHANGED") recover();
    else failed(error);
  }
}

async function explain(mine, signal, pictures) {
  try {
    const said = await question("explain", signal);
    if (mine !== turn) return;
    showMaps(said.maps, pictures);
    answer.explain(said.contributions?.map((x) => withNote(x, pictures)) ?? null);
  } catch (error) {
    if (mine !== turn) return;
    if (!(error instanceof api.Refused)) throw error;
    // The suggestions stand; what is shown of an older answer must not.
    answer.explain(null, error.message);
    showMaps([], pictures);
    look();
  }
}

function withNote(part, pictures) {
  const field = fields.find((x) => x.name === part.name);
  // As the seller knows it.
  const isMade = field.kind === "text" && field.columns.length > 0;
  const title = readable(isMade ? field.columns.join(", ") : field.name);
  const isUnused = field.kind === "image" && !pictures[part.name].used;
  const note = !isFilled(field) ? "not given" : isUnused ? "not looked at" : "";
  return { title, note, parts: part.parts };
}

function showPictures(pictures) {
  for (const { name, field } of fields) {
    if (!(name in pictures)) continue;
    field.showStatus(field.filled ? pictures[name] : null);
    if (!pictures[name].used) field.showMaps([]);
  }
}

function showMaps(maps, pictures) {
  for (const { name, field } of fields) {
    if (name in pictures) field.showMaps(pictures[name].used ? maps : []);
  }
}

const pictureField = () => fields.find((x) => x.kind === "image")?.field;

byId("form").addEventListener("submit", (event) => event.preventDefault());
byId("reset").addEventListener("click", () => {
  for (const { field } of fields) field.clear();
  answer.reset(about?.task);
  changed();
  byId("fields").querySelector("textarea, input, button")?.focus();
});
byId("copy").addEventListener("click", async () => {
  const text = byId("result-text");
  try {
    await navigator.clipboard.writeText(text.value);
    byId("result-note").textContent = "Copied.";
  } catch {
    // Pages that are not on https or on this machine may not write there.
    text.select();
    byId("result-note").textContent = "Selected; copy it with the keyboard or the menu.";
  }
});
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length === 0) return;
  event.preventDefault();
  pictureField()?.take(files);
});
// A file that misses the field would replace the page.
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  pictureField()?.take([...event.dataTransfer.files]);
});

answer.reset(null);
recover();
setInterval(look, LOOK_EVERY_MS);
