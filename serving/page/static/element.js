// Building the page. Nothing here or elsewhere reads markup from a text: labels,
// titles and file names stay text.

/**
 * Makes an element: properties by name (`class`, `data-*` and `aria-*` as attributes,
 * `on*` as listeners), then children, of which strings become text.
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class" || name.includes("-")) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** The element of the page with an id. */
export const byId = (id) => document.getElementById(id);

/** Puts a text into the element with an id; one that is there is not said again. */
export function say(id, words) {
  if (byId(id).textContent !== words) byId(id).textContent = words;
}

/** An input's name as a seller reads it: `main_colour` is "Main colour". */
export function readable(name) {
  if (name === "image") return "Picture";
  const words = name.replaceAll("_", " ").trim() || name;
  return words[0].toUpperCase() + words.slice(1);
}

/** A score in [0, 1]: "0.83"; what is there and rounds to nothing is "<0.01". */
export function score(value) {
  return value > 0 && value < 0.005 ? "<0.01" : value.toFixed(2);
}

/** A change with its sign, U+2212 for minus: "+0.42", "−0.05", "0.00". */
export function signed(value) {
  const text = Math.abs(value).toFixed(2);
  if (Number(text) === 0) return text;
  return (value < 0 ? "−" : "+") + text;
}
