// A picture as it is sent. The model reads a file's pixels as they are stored, so most
// files go as they are. Two kinds are drawn anew by the browser: photographs that the
// camera stored lying down, with a note to turn them, and files over the limit.

// Longest side of a picture that is drawn anew. Models look at 64 to 300 pixels.
const DRAWN_PX = 2048;
const DRAWN_QUALITY = 0.92;

/**
 * How a JPEG says that it is to be turned: EXIF's orientation, 1 to 8.
 * @param {ArrayBuffer} buffer The file, or its beginning.
 * @returns {number} 1 if it is upright, says nothing, or is no JPEG.
 */
export function orientation(buffer) {
  const view = new DataView(buffer);
  if (view.byteLength < 4 || view.getUint16(0) !== 0xffd8) return 1;
  let at = 2;
  while (at + 4 <= view.byteLength) {
    const marker = view.getUint16(at);
    if (marker < 0xff00 || marker === 0xffda) return 1; // no segment, or pixels begin
    const size = view.getUint16(at + 2);
    if (marker === 0xffe1 && at + 18 <= view.byteLength && view.getUint32(at + 4) === 0x45786966) {
      return orientationIn(view, at + 10);
    }
    at += 2 + size;
  }
  return 1;
}

// The same inside of an EXIF segment, a TIFF file that begins at `start`.
function orientationIn(view, start) {
  const little = view.getUint16(start) === 0x4949;
  const entries = start + view.getUint32(start + 4, little);
  if (entries + 2 > view.byteLength) return 1;
  const count = view.getUint16(entries, little);
  for (let i = 0; i < count; i++) {
    const entry = entries + 2 + 12 * i;
    if (entry + 10 > view.byteLength) return 1;
    if (view.getUint16(entry, little) === 0x0112) {
      const value = view.getUint16(entry + 8, little);
      return value >= 1 && value <= 8 ? value : 1;
    }
  }
  return 1;
}

/**
 * What to send for a file.
 * @param {File} file
 * @param {number} maxBytes
 * @returns {Promise<{blob: Blob, note: string}>} `note` says what was done, if anything.
 * @throws {Error} If it is too large and cannot be drawn; its message is for the seller.
 */
export async function prepare(file, maxBytes) {
  const turned = orientation(await file.slice(0, 128 * 1024).arrayBuffer()) !== 1;
  const large = file.size > maxBytes;
  if (!turned && !large) return { blob: file, note: "" };
  const blob = await drawn(file);
  if (blob && blob.size <= maxBytes) {
    const note = turned
      ? "Turned upright for the model, which does not read how the camera was held."
      : "Made smaller, for the file is over the limit.";
    return { blob, note };
  }
  if (large) {
    throw new Error(`The file has ${mebibytes(file.size)}; at most ${mebibytes(maxBytes)} are sent.`);
  }
  return { blob: file, note: "" };
}

// A JPEG of the picture as the browser shows it; null if the browser cannot read it.
async function drawn(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return null;
  }
  const ratio = Math.min(1, DRAWN_PX / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * ratio));
  canvas.height = Math.max(1, Math.round(bitmap.height * ratio));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white"; // what the model puts behind transparent pixels
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", DRAWN_QUALITY));
}

/** "3.2 MiB", "48 KiB". */
export function mebibytes(bytes) {
  if (bytes < 2 ** 20) return `${Math.ceil(bytes / 1024)} KiB`;
  return `${(bytes / 2 ** 20).toFixed(1).replace(/\.0$/, "")} MiB`;
}
