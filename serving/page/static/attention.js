// The attention map over the picture.
//
// The model squeezes the whole picture to a square, without cutting anything off, and
// the map's cells divide that square evenly. So the map is laid over the whole
// picture, stretched with it.

const SIDE_PX = 96; // of the smoothed map, before the browser stretches it
// A place with this many times the average attention gets the full colour, unless the
// map has a stronger one. An even map so leaves the picture as it is.
const STRONG = 4;

/** Each cell's attention as a multiple of the average; null for a map of nothing. */
export function relative(cells) {
  const count = cells.length * cells[0].length;
  const total = cells.flat().reduce((sum, value) => sum + value, 0);
  if (!(total > 0)) return null;
  return cells.map((row) => row.map((value) => (value * count) / total));
}

/**
 * A map of any size made smooth: its own values at the centres of the cells, between
 * them no value that is not between theirs, and flat beyond the outermost.
 * @param {number[][]} cells
 * @param {number} side
 * @returns {number[][]} `side` rows of `side` values.
 */
export function smooth(cells, side) {
  const alongRows = cells.map((row) => resample(row, side));
  const columns = Array.from({ length: side }, (_, x) =>
    resample(alongRows.map((row) => row[x]), side),
  );
  return Array.from({ length: side }, (_, y) => columns.map((column) => column[y]));
}

function resample(values, size) {
  const at = (i) => values[Math.min(values.length - 1, Math.max(0, i))];
  return Array.from({ length: size }, (_, i) => {
    const place = ((i + 0.5) * values.length) / size - 0.5;
    const start = Math.floor(place);
    const t = place - start;
    return at(start) + (at(start + 1) - at(start)) * t * t * (3 - 2 * t);
  });
}

/**
 * Draws a map on a canvas that covers the picture.
 * @param {HTMLCanvasElement} canvas
 * @param {number[][]} cells
 * @param {number} strength How much of the picture is covered, 0 to 1.
 * @returns {number} The strongest place, as a multiple of the average; 0 if there is
 *     nothing to draw.
 */
export function draw(canvas, cells, strength) {
  const shares = relative(cells);
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (shares === null) return 0;
  const strongest = Math.max(...shares.flat());
  const full = Math.max(STRONG, strongest);
  const image = new ImageData(SIDE_PX, SIDE_PX);
  smooth(shares, SIDE_PX).flat().forEach((value, i) => {
    const [r, g, b, cover] = colour(value, full);
    image.data.set([r, g, b, 255 * cover * strength], 4 * i);
  });
  const small = document.createElement("canvas");
  small.width = small.height = SIDE_PX;
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  return strongest;
}

// Red, green, blue in [0, 255] and cover in [0, 1] for a multiple of the average: a dark
// veil below it, nothing on it, and above it a glow from red to yellow.
function colour(value, full) {
  if (value < 1) return [10, 10, 40, 0.6 * (1 - value)];
  const heat = Math.min(1, (value - 1) / (full - 1));
  return [240 + 15 * heat, 50 + 175 * heat, 30 + 20 * heat, 0.65 * heat ** 0.7];
}
