// The rival of token mixing: a kernel of 3×3 that slides over the map, and which answer follows a shift of the image.

import { fill, makeCells } from "./cells.js";
import { largest } from "./numerics.js";
import { h, note, panel, say, title } from "./page.js";

const SMALL = 3; // patches on a side of the small kernel

/** Numbers, one per token, on the patch grid: an array of rows. */
export const fold = (numbers, [rows, columns]) =>
  Array.from({ length: rows }, (_, y) => numbers.slice(y * columns, (y + 1) * columns));

/** The places of a kernel that covers so much of a length. */
const placesOf = (length, covered) => Array.from({ length: length - covered + 1 }, (_, i) => i);

/**
 * What conv2d computes: the cross-correlation of a map with a kernel, both arrays of rows, at every place where the
 * kernel lies wholly on the map. A kernel as large as the map has one such place, so the result is a map of 1×1.
 */
export function correlate(map, kernel) {
  const rowSum = (weights, y, x) => weights.reduce((sum, weight, j) => sum + weight * map[y][x + j], 0);
  const at = (y, x) => kernel.reduce((sum, weights, i) => sum + rowSum(weights, y + i, x), 0);
  return placesOf(map.length, kernel.length).map((y) => placesOf(map[0].length, kernel[0].length).map((x) => at(y, x)));
}

/** Numbers [rows, columns] in one list, moved down and to the right on a ring: what leaves comes in on the other side. */
export function rolled(numbers, [rows, columns], [down, right]) {
  const from = (y, x) => ((y + rows - (down % rows)) % rows) * columns + ((x + columns - (right % columns)) % columns);
  return numbers.map((_, i) => numbers[from(Math.floor(i / columns), i % columns)]);
}

/** The window of 3×3 of a kernel, an array of rows, that has the largest norm; smaller where the kernel is. */
function windowOf(kernel) {
  const [height, width] = [kernel, kernel[0]].map(({ length }) => Math.min(SMALL, length));
  const places = placesOf(kernel.length, height).flatMap((y) => placesOf(kernel[0].length, width).map((x) => [y, x]));
  const windows = places.map(([y, x]) => kernel.slice(y, y + height).map((line) => line.slice(x, x + width)));
  const sizes = windows.map((lines) => lines.flatMap((line) => [...line]).reduce((sum, value) => sum + value ** 2, 0));
  return windows[sizes.indexOf(Math.max(...sizes))];
}

const middle = (length) => Math.floor((length - 1) / 2);

/** The answers of a small kernel at every place of a map, which is closed to a ring so that no border is in the way. */
function slide(numbers, grid, kernel) {
  const [rows, columns] = grid;
  const [top, left] = [middle(kernel.length), middle(kernel[0].length)];
  const map = fold([...rolled(numbers, grid, [top, left])], grid);
  const lines = Array.from({ length: rows + kernel.length - 1 }, (_, y) => map[y % rows]);
  const ring = lines.map((line) => Array.from({ length: columns + kernel[0].length - 1 }, (_, x) => line[x % columns]));
  return correlate(ring, kernel).flat();
}

/** A linear layer on one list of numbers: weights · values + bias. */
const linear = (weights, bias, values) =>
  Float64Array.from(bias, (start, i) => values.reduce((sum, x, j) => sum + weights[i * values.length + j] * x, start));

/** What token mixing writes for a channel of LN(X): W₂ · gelu(W₁ · x + b₁) + b₂, [nTokens]. */
const mixTokens = (column, { W1, b1, W2, b2 }, gelu) => linear(W2, b2, linear(W1, b1, column).map(gelu));

/** Both answers to a channel, before the shift and after it, and how far they are from having moved along. */
export function rivalsOf(data, column, weights, shift, gelu) {
  const { grid } = data;
  const small = windowOf(fold([...weights], grid));
  const layers = [(numbers) => slide([...numbers], grid, small), (numbers) => mixTokens(numbers, data, gelu)];
  const rivals = layers.map((layer) => {
    const [before, after] = [layer(column), layer(rolled(column, grid, shift))];
    const along = rolled(before, grid, shift);
    return { before, after, difference: Math.max(...after.map((value, i) => Math.abs(value - along[i]))) };
  });
  return { small, rivals };
}

/** A row of maps: what a layer gives before the shift, and after it. */
function makeAnswers(name, [rows, columns], pick) {
  const maps = ["before the shift", "after the shift"].map((when) => {
    const cells = makeCells(rows * columns, columns, "mx-map", pick);
    return { when, cells, el: panel("", note(when), cells.el) };
  });
  const verdict = note();
  const draw = ({ before, after, difference }, isShifted, lit, end) => {
    const limit = largest([...before, ...after]);
    [before, after].forEach((values, i) => {
      const colours = Array.from(values, (value) => fill(value, limit));
      maps[i].cells.paint(colours, `${name} ${maps[i].when}`, lit, end);
    });
    const moved = difference < 1e-4 * limit ? "follows the shift" : "does not follow the shift";
    const words = `It ${moved}: moved along, the map before differs from the map after by ${difference.toFixed(5)}.`;
    say(verdict, isShifted ? words : "Shift the image to see whether it follows.");
  };
  return { maps: maps.map(({ el }) => el), verdict, draw };
}

const fields = (...parts) => h("div", { class: "mx-fields" }, ...parts);

/** The small kernel, which visits one place for each product that is added, beside token mixing; both before and after. */
export function makeRival(data, pick) {
  const { grid, nTokens } = data;
  const [rows, columns] = grid.map((n) => Math.min(SMALL, n));
  const size = `${rows}×${columns}`;
  const kernel = makeCells(rows * columns, columns, "mx-map", () => {});
  const [small, full] = ["The answers of the small kernel", "What token mixing writes"].map((name) =>
    makeAnswers(name, grid, pick),
  );
  const cut = note(
    `It is cut out of the unit's kernel, where that is largest, and gives ${nTokens} answers: one for each place.`,
  );
  const whole = note(
    "All hidden units together, written back through W₂. Their kernels have one place, and a weight of its own for each patch.",
  );
  function draw({ rivals }, [, , , nAdded, down, right]) {
    const isShifted = down + right > 0;
    const weights = rivals.small.flatMap((line) => [...line]);
    const limit = largest(weights);
    kernel.paint(
      weights.map((weight) => fill(weight, limit)),
      `The small kernel of ${size}`,
    );
    small.draw(rivals.rivals[0], isShifted, nAdded - 1, nAdded);
    full.draw(rivals.rivals[1], isShifted);
  }
  const el = h(
    "div",
    { class: "mx-views" },
    h(
      "section",
      {},
      title(`A kernel of ${size} slides`),
      fields(panel("", note("kernel"), kernel.el), ...small.maps),
      cut,
      small.verdict,
    ),
    h("section", {}, title("Token mixing does not"), fields(...full.maps), whole, full.verdict),
  );
  return { el, draw };
}
