// A table of numbers on a canvas, with whole pixels to a cell: as a table, or folded into maps, one image per channel.

import { colour, picture, pointerOn } from "./canvas.js";
import { h } from "./page.js";

const N_STEPS = 255; // colours on each side of 0
const ROW = "#ffb000"; // a token
const COLUMN = "#2f8fff"; // a channel

/** Colours from the lowest number to the highest, each as four bytes of a pixel. */
function coloursOf(kind) {
  const bytesOf = (i) => {
    if (kind === "grey") return Array(3).fill(Math.max(0, i));
    return colour(i, N_STEPS, kind === "dark");
  };
  const rgba = Array.from({ length: 2 * N_STEPS + 1 }, (_, i) => [...bytesOf(i - N_STEPS), 255]);
  return new Uint32Array(new Uint8ClampedArray(rgba.flat()).buffer);
}
const colours = Object.fromEntries(["light", "dark", "grey"].map((kind) => [kind, coloursOf(kind)]));

/** Places of the cells of a table as it is: `at` gives column and row of a cell on a sheet of so many. */
const asTable = (rows, columns) => ({ width: columns, height: rows, at: (r, c) => [c, r] });

/** Maps, each with a grid of the rows, so many side by side: one for each column. */
const asMaps = (grid, columns, side) => ({
  width: side * (grid.columns + 1) - 1,
  height: Math.ceil(columns / side) * (grid.rows + 1) - 1,
  isSquare: true,
  at: (r, c) => [
    (c % side) * (grid.columns + 1) + (r % grid.columns),
    Math.floor(c / side) * (grid.rows + 1) + Math.floor(r / grid.columns),
  ],
});

/** The image: each row is a patch of P by P pixels. */
const asImage = (grid, P) => ({
  width: grid.columns * P,
  height: grid.rows * P,
  isSquare: true,
  at: (r, c) => [(r % grid.columns) * P + (c % P), Math.floor(r / grid.columns) * P + Math.floor(c / P)],
});

const whole = (scale) => (scale < 1 ? scale : Math.floor(scale));

/** Width and height of a cell in pixels of the canvas: whole ones, unless there are more cells than pixels. */
function scaleOf({ width, height, isSquare }, [W, H]) {
  const [x, y] = [W / width, H / height];
  return isSquare ? [whole(Math.min(x, y)), whole(Math.min(x, y))] : [whole(x), whole(y)];
}

/** The layout of maps with the largest cells. */
function bestMaps(grid, columns, size) {
  const layouts = Array.from({ length: columns }, (_, i) => asMaps(grid, columns, i + 1));
  const areas = layouts.map((layout) => Math.min(size[0] / layout.width, size[1] / layout.height));
  return layouts[areas.indexOf(Math.max(...areas))];
}

/** Left, top, right and bottom of every cell of a layout on a canvas. */
function boxesOf({ rows, columns }, layout, size) {
  const boxes = new Int32Array(4 * rows * columns);
  const scale = scaleOf(layout, size);
  for (let i = 0; i < rows * columns; i++) {
    const place = layout.at(Math.floor(i / columns), i % columns);
    for (let side = 0; side < 4; side++) {
      const axis = side % 2;
      boxes[4 * i + side] = Math.round((place[axis] + (side > 1 ? 1 : 0)) * scale[axis]);
    }
  }
  return boxes;
}

/** Boxes on the way from one layout to another. */
const between = (start, end, share) => start.map((edge, i) => Math.round(edge + share * (end[i] - edge)));

/** For each pixel of a canvas the number of the cell whose box it lies in, or the number of all cells where there is none. */
function ownersOf(boxes, [W, H]) {
  const n = boxes.length / 4;
  const owners = new Int32Array(W * H).fill(n);
  for (let i = 0; i < n; i++) {
    const [left, top, right, bottom] = boxes.subarray(4 * i, 4 * i + 4);
    for (let y = top; y < Math.min(H, bottom); y++) owners.fill(i, y * W + left, y * W + Math.min(W, right));
  }
  return owners;
}

/** Write the colours of the numbers to the pixels of their cells. */
function paintCells(pixels, owners, numbers, limit, palette) {
  const shades = new Uint32Array(numbers.length + 1); // the last is clear
  for (let i = 0; i < numbers.length; i++) {
    const step = Math.round((N_STEPS * numbers[i]) / limit);
    shades[i] = palette[N_STEPS + Math.max(-N_STEPS, Math.min(N_STEPS, step))];
  }
  for (let i = 0; i < pixels.length; i++) pixels[i] = shades[owners[i]];
}

/** Frame all cells between two. */
function frameBoxes(canvas, boxes, first, last, style) {
  const context = canvas.getContext("2d");
  const [left, top] = [boxes[4 * first], boxes[4 * first + 1]];
  const [right, bottom] = [boxes[4 * last + 2], boxes[4 * last + 3]];
  context.strokeStyle = style;
  context.lineWidth = Math.max(2, Math.round(1.5 * devicePixelRatio));
  context.strokeRect(left, top, right - left, bottom - top);
}

/** Frame the row and the column of the look; of maps the map, and in it the cell. */
function frameLook(canvas, boxes, look, { rows, columns, rowIs, columnIs, grid, patch }) {
  const [row, column] = [look[rowIs], look[columnIs]];
  const isMaps = look.share === 1 && grid && !patch;
  const frame = (...ends) => frameBoxes(canvas, boxes, ...ends);
  if (column !== undefined) frame(column, (rows - 1) * columns + column, COLUMN);
  if (row !== undefined && !isMaps) frame(row * columns, (row + 1) * columns - 1, rowIs === "token" ? ROW : COLUMN);
  if (row !== undefined && isMaps && columnIs) frame(row * columns + column, row * columns + column, ROW);
}

/** Call the look with the cell under the pointer; `read` gives what is drawn. */
function linkCells(el, look, about, read) {
  const cellAt = (event) => {
    const { numbers, owners, size } = read();
    if (!numbers) return undefined;
    const [x, y] = pointerOn(el, event).map((share, axis) => Math.floor(share * size[axis]));
    const i = owners[y * size[0] + x];
    if (numbers[i] === undefined) return undefined; // between the cells
    return { about, row: Math.floor(i / about.columns), column: i % about.columns, value: numbers[i] };
  };
  el.addEventListener("pointermove", (event) => look.point(cellAt(event)));
  el.addEventListener("pointerleave", (event) => look.leave(event));
  el.addEventListener("click", (event) => look.choose(cellAt(event)));
}

/**
 * A canvas for a table [rows, columns], of which `rowIs` and `columnIs` say what a row and a column are: "token",
 * "channel", or nothing that can be framed. A table with a `grid` of its rows folds into maps, one with a `patch` size
 * into the image. `draw` takes the numbers, or none, the largest of them, and the name of the colours.
 */
export function makeCells(look, about) {
  const { rows, columns, grid, patch } = about;
  const canvas = picture();
  const el = h("span", { class: "mx-cells" }, canvas);
  let [size, ends, boxes, owners, image, share, numbers] = [[0, 0]];
  linkCells(el, look, about, () => ({ numbers, owners, size }));
  new ResizeObserver(() => look.set("isNew", true)).observe(el);

  function resize() {
    const now = [el.clientWidth, el.clientHeight].map((length) => Math.round(length * devicePixelRatio));
    if (now.every((length, axis) => length === size[axis])) return;
    [size, share] = [now];
    [canvas.width, canvas.height] = size;
    const table = asTable(rows, columns);
    const folded = patch ? asImage(grid, patch) : grid ? bestMaps(grid, columns, size) : table;
    ends = [table, folded].map((layout) => boxesOf(about, layout, size));
    image = size[0] && size[1] ? canvas.getContext("2d").createImageData(...size) : undefined;
  }
  function fold() {
    if (share === look.share || !image) return;
    share = look.share;
    boxes = share % 1 ? between(...ends, share) : ends[share];
    owners = ownersOf(boxes, size);
  }
  function draw(now, limit, palette) {
    if (look.isNew || !image) resize();
    fold();
    numbers = now;
    if (!image) return; // folded away
    const context = canvas.getContext("2d");
    if (!numbers) return context.clearRect(0, 0, ...size);
    paintCells(new Uint32Array(image.data.buffer), owners, numbers, limit, colours[palette]);
    context.putImageData(image, 0, 0);
    if (share % 1 === 0) frameLook(canvas, boxes, look, about);
  }
  return { el, canvas, draw };
}
