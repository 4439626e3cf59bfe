// Questions to the page's own server, by paths below wherever it is.

/** A question that has no answer: `code` for this script, `message` for the seller. */
export class Refused extends Error {
  constructor(code, words) {
    super(words);
    this.code = code;
  }
}

async function ask(path, options) {
  let reply, body;
  try {
    reply = await fetch(path, options);
    body = await reply.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (reply?.ok === false) {
      throw new Refused("PAGE", "This page's server could not answer.");
    }
    throw new Refused("PAGE_DOWN", "This page's server cannot be reached.");
  }
  if (!reply.ok) {
    throw new Refused(body.error.code, body.error.words);
  }
  return body;
}

/** The model and its fields. */
export const model = () => ask("api/model", {});

/** Sends a picture once; the answer is the key that questions name it by. */
export async function picture(blob, signal) {
  const headers = { "content-type": "application/octet-stream" };
  return (await ask("api/picture", { method: "POST", body: blob, headers, signal })).key;
}

/** Asks "suggest" or "explain" about a product: values by field name. */
export function question(path, values, signal) {
  const headers = { "content-type": "application/json" };
  const body = JSON.stringify({ values });
  return ask(`api/${path}`, { method: "POST", body, headers, signal });
}
