// The state of TokenMixingExplorer, read and checked: sizes, models and arrays.

import { areSizes, isIndex, product, readArrays } from "./numerics.js";

export const ORDERS = {
  norm: "by norm, largest first",
  frequency: "by mean frequency, lowest first",
  opposite: "in pairs, most opposite first",
};

/** What a state of such sizes stores, as [name, type, shape]. */
function sectionsOf({ nTokens, nLayers, nUnits, models, images }) {
  const per = [nLayers, nUnits, images?.n_top]; // layer, unit and rank
  const excitations = {
    chosen: ["uint16", per],
    channels: ["uint16", per],
    pre_activations: ["float32", per],
    contributions: ["int8", [...per, nTokens]],
    contribution_scales: ["float32", [...per, 1]],
  };
  const partsOf = ({ steps }) => ({
    maps: ["int8", [steps.length, nLayers, 2, nUnits, nTokens]],
    scales: ["float32", [steps.length, nLayers, 2, 1, 1]],
    limits: ["float32", [nLayers, 2]],
    biases: ["float32", [steps.length, nLayers, nUnits]],
    orders: ["uint16", [nLayers, Object.keys(ORDERS).length, nUnits]],
    ...(images && excitations),
  });
  const all = models.flatMap((one, m) =>
    Object.entries(partsOf(one)).map(([name, about]) => [`${m}.${name}`, ...about]),
  );
  return images ? [...all, ["images", "uint8", [images.used.length, ...images.shape]]] : all;
}

/** An error, unless the sizes are those of what is stored: with wrong ones a loop might not end. */
function checkSizes(library, sections) {
  const { rows, columns, nLayers, nUnits, nAcross, images } = library;
  const stored = new Map(sections.map(([name, ...about]) => [name, String(about)]));
  const right =
    areSizes([rows, columns, nLayers, nUnits, nAcross], 5) &&
    nAcross <= nUnits + 1 &&
    (!images || areSizes([images.n_top, ...images.shape], 4)) &&
    sectionsOf(library).every(([name, ...about]) => stored.get(name) === String(about));
  if (!right) throw new Error("its sizes are not those of its weights");
}

const areIndices = (list, n) => list.every((i) => isIndex(i, n));

const areFinite = (list) => !(list instanceof Float32Array) || list.every(Number.isFinite);

/** An error, unless the stored numbers of units, images, pixels and steps are such, and all others finite. */
function checkNumbers({ nUnits, models, images, stored }) {
  const right = models.every(
    ({ steps, pixel_order: pixels }, m) =>
      areIndices(steps, Infinity) &&
      areIndices(stored[`${m}.orders`], nUnits) &&
      (!images || areIndices(stored[`${m}.chosen`], images.used.length)) &&
      (!images || !pixels || (areIndices(pixels, pixels.length) && pixels.length === product(images.shape.slice(1)))),
  );
  const used = !images || areIndices(images.used, Infinity);
  if (!right || !used || !Object.values(stored).every(areFinite)) throw new Error("a number that it stores is damaged");
}

/** Sizes, models and arrays of the state, checked. */
export function readLibrary(model) {
  const { rows, columns, ...rest } = model.get("geometry");
  const { n_layers: nLayers, n_units: nUnits, n_columns: nAcross, models, images, sections } = rest;
  const stored = readArrays(model.get("numbers"), sections);
  const pictureSize = images && product(images.shape);
  const sizes = { rows, columns, nTokens: rows * columns, nLayers, nUnits, nAcross, pictureSize };
  const library = { ...sizes, models, images, stored };
  checkSizes(library, sections);
  checkNumbers(library);
  return library;
}
