// The numbers of FilterExplorer: its state, checked, and what a filter gives at every place of an image.

import { areSizes, bytes, floats, isIndex, largest, rowOf } from "./numerics.js";

export const FILTER_TRAITS = ["filter", "row", "column", "stride"];
export const COLOUR_NAMES = { 1: ["grey"], 3: ["red", "green", "blue"] };
const MOST_FILTERS = 32; // as in filter.py

/** The image, its normalised pixels, the filters and their names, checked. */
export function readState(model) {
  const [shape, P, names] = ["shape", "patch_size", "names"].map((name) => model.get(name));
  const [mean, std] = ["mean", "std"].map((name) => model.get(name));
  const right = areSizes(shape, 3) && areSizes([P], 1) && Object.hasOwn(COLOUR_NAMES, shape[0]);
  if (!right || shape[1] % P || shape[2] % P) throw new Error("its sizes are damaged or incomplete");
  const [C, H, W] = shape;
  const image = bytes(model.get("image"));
  if (image.length !== C * H * W) throw new Error("its image is damaged or incomplete");
  const areNames = Array.isArray(names) && names.length > 0 && names.every((name) => typeof name === "string");
  if (!areNames || names.length > MOST_FILTERS) throw new Error("its filters are damaged or incomplete");
  const areNumbers = [mean, std].every(
    (list) => Array.isArray(list) && list.length === C && list.every(Number.isFinite),
  );
  if (!areNumbers || !std.every((s) => s > 0)) throw new Error("its mean and std are damaged or incomplete");
  const weights = floats(model.get("weight"), names.length * C * P * P);
  const biases = floats(model.get("bias"), names.length);
  const channel = (i) => Math.floor(i / (H * W));
  const pixels = Float64Array.from(image, (value, i) => (value / 255 - mean[channel(i)]) / std[channel(i)]);
  const filterOf = (i) => rowOf(weights, i, C * P * P);
  return { shape, C, H, W, P, names, image, pixels, limit: largest(pixels), filterOf, biases };
}

/** What the reader chose, checked; a place is moved up and to the left to one that the stride reaches. */
export function readChoices(model, { H, W, P, names }) {
  const [filter, top, left, stride] = FILTER_TRAITS.map((name) => model.get(name));
  if (!isIndex(filter, names.length)) throw new Error(`there is no filter ${filter}`);
  if (stride !== 1 && stride !== P) throw new Error(`there is no stride ${stride}`);
  if (!isIndex(top, H - P + 1)) throw new Error(`there is no row ${top}`);
  if (!isIndex(left, W - P + 1)) throw new Error(`there is no column ${left}`);
  const [y, x] = [top - (top % stride), left - (left % stride)];
  return { filter, stride, y, x, rows: (H - P) / stride + 1, columns: (W - P) / stride + 1 };
}

/** The numbers [C, P, P] of an image [C, H, W] under a patch, in their order in a row of the table of patches. */
export function patchAt(values, { C, H, W, P }, y, x) {
  const lines = Array.from({ length: C * P }, (_, i) => (Math.floor(i / P) * H + y + (i % P)) * W + x);
  return lines.flatMap((start) => [...values.subarray(start, start + P)]);
}

/** The number that a filter gives at every pixel where it fits, [H - P + 1, W - P + 1]: the convolution with stride 1. */
function slide({ H, W, P, pixels }, weights, bias) {
  const [rows, columns] = [H - P + 1, W - P + 1];
  const map = new Float64Array(rows * columns).fill(bias);
  for (let k = 0; k < weights.length; k++) {
    const [c, i, j] = [Math.floor(k / (P * P)), Math.floor(k / P) % P, k % P];
    for (let y = 0; y < rows; y++) {
      const start = (c * H + y + i) * W + j;
      for (let x = 0; x < columns; x++) map[y * columns + x] += weights[k] * pixels[start + x];
    }
  }
  return { map, limit: largest(map), columns };
}

/** The numbers of a map at stride 1 that a larger stride meets. */
const thinned = ({ map, columns: n }, { rows, columns, stride }) =>
  Float64Array.from({ length: rows * columns }, (_, i) => {
    const [y, x] = [Math.floor(i / columns), i % columns];
    return map[y * stride * n + x * stride];
  });

const sumOf = (values) => values.reduce((total, value) => total + value, 0);

/** All that is shown: the patch, the filter, their products, the sums, and the map. Maps are kept for each filter. */
export function computing(source) {
  const maps = [];
  const { C, P, filterOf, biases, pixels } = source;
  return (chosen) => {
    const { filter, y, x } = chosen;
    const [weights, bias] = [filterOf(filter), biases[filter]];
    maps[filter] ??= slide(source, weights, bias);
    const patch = patchAt(pixels, source, y, x);
    const products = patch.map((pixel, k) => pixel * weights[k]);
    const sums = Array.from({ length: C }, (_, c) => sumOf(products.slice(c * P * P, (c + 1) * P * P)));
    const numbers = thinned(maps[filter], chosen);
    return { patch, weights, products, sums, sum: sumOf(sums), bias, numbers, limit: maps[filter].limit };
  };
}
