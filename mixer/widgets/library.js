// The state of TokenMixingExplorer, read and checked: sizes, models, arrays, and the weights at any training step.

import { tensorsOf } from "./engine.js";
import { areSizes, bytes, GELUS, isIndex, NORMS, product, readArrays, rowOf, sizesOf } from "./numerics.js";

export const ORDERS = {
  norm: "by norm, largest first",
  frequency: "by mean frequency, lowest first",
  opposite: "in pairs, most opposite first",
};

/** Whether the matrix of a token-mixing MLP has this name: it is stored as maps, and not with the network. */
export const isMap = (name) => /token_mixing\.fc[12]\.weight$/.test(name);

/** The number of weights of a network that are not stored as maps. */
const countRest = (config) =>
  tensorsOf(config).reduce((sum, [name, shape]) => sum + (isMap(name) ? 0 : product(shape)), 0);

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
  const partsOf = ({ steps, network }) => ({
    maps: ["int8", [steps.length, nLayers, 2, nUnits, nTokens]],
    scales: ["float32", [1, nLayers, 2, 1, 1]],
    limits: ["float32", [nLayers, 2]],
    biases: ["float32", [steps.length, nLayers, nUnits]],
    orders: ["uint16", [nLayers, Object.keys(ORDERS).length, nUnits]],
    ...(network && { network: ["float16", [countRest(network.config)]] }),
    ...(images && excitations),
  });
  const all = models.flatMap((one, m) =>
    Object.entries(partsOf(one)).map(([name, about]) => [`${m}.${name}`, ...about]),
  );
  return images ? [...all, ["images", "uint8", [images.used.length, ...images.shape]]] : all;
}

/** An error, unless the sizes are those of what is stored: with wrong ones a loop might not end. */
function checkSizes(library, sections) {
  const { rows, columns, nLayers, nUnits, nAcross, images, models } = library;
  const stored = new Map(sections.map(([name, ...about]) => [name, String(about)]));
  const right =
    areSizes([rows, columns, nLayers, nUnits, nAcross], 5) &&
    nAcross <= nUnits + 1 &&
    (!images || areSizes([images.n_top, ...images.shape], 4)) &&
    models.every(({ network }) => !network || fits(network.config, library)) &&
    sectionsOf(library).every(([name, ...about]) => stored.get(name) === String(about));
  if (!right) throw new Error("its sizes are not those of its weights");
}

/** Whether the configuration of a network has the sizes of its maps. */
function fits(config, { rows, columns, nLayers, nUnits }) {
  const { shape, ...grid } = sizesOf(config);
  const { patch_size, n_channel, n_hidden_channel, n_output, n_layers, n_hidden_token } = config;
  const mixings = [config.token_mixing, config.channel_mixing];
  return (
    areSizes([...shape, patch_size, n_channel, n_hidden_channel, n_output], 7) &&
    [shape[0], n_layers, n_hidden_token].join() === [1, nLayers, nUnits].join() &&
    [grid.rows, grid.columns].join() === [rows, columns].join() &&
    mixings.every((kind) => kind === "mlp")
  );
}

/** An error, if a number or a choice of a network is not one. */
function checkNetwork({ config, mean, std, class_names: names }) {
  const { norm, gelu, eps, n_output } = config;
  const right = NORMS.includes(norm) && GELUS.includes(gelu) && [eps, mean, std].every(Number.isFinite);
  const named = names.length === n_output && names.every((name) => typeof name === "string");
  if (!right || !named || eps < 0 || std <= 0) throw new Error("its configuration is damaged or incomplete");
}

const areIndices = (list, n) => list.every((i) => isIndex(i, n));

const areFinite = (list) => !(list instanceof Float32Array) || list.every(Number.isFinite);

const isRising = (list) => list.every((value, i) => i === 0 || value > list[i - 1]);

/** Whether a history is none, or a list of points [step, loss]. */
const isHistory = (history) =>
  !history || (history.length > 0 && history.every((point) => point.length === 2 && point.every(Number.isFinite)));

/** An error, unless the stored numbers of units, images, pixels and steps are such, and all others finite. */
function checkNumbers({ nUnits, models, images, stored }) {
  const right = models.every(
    ({ steps, history, pixel_order: pixels }, m) =>
      areIndices(steps, Infinity) &&
      isRising(steps) &&
      isHistory(history) &&
      stored[`${m}.scales`].every((scale) => scale > 0) &&
      stored[`${m}.limits`].every((limit) => limit > 0) &&
      areIndices(stored[`${m}.orders`], nUnits) &&
      (!images || areIndices(stored[`${m}.chosen`], images.used.length)) &&
      (!images || !pixels || (areIndices(pixels, pixels.length) && pixels.length === product(images.shape.slice(1)))),
  );
  const used = !images || areIndices(images.used, Infinity);
  if (!right || !used || !Object.values(stored).every(areFinite)) throw new Error("a number that it stores is damaged");
}

/** The bytes of a DataView that Python's zlib has made smaller. */
async function inflate(view) {
  const stream = new Blob([bytes(view)]).stream().pipeThrough(new DecompressionStream("deflate"));
  try {
    return new DataView(await new Response(stream).arrayBuffer());
  } catch {
    throw new Error("its weights are damaged or incomplete");
  }
}

/** Sizes, models and arrays of the state, checked. */
export async function readLibrary(model) {
  const { rows, columns, ...rest } = model.get("geometry");
  const { n_layers: nLayers, n_units: nUnits, n_columns: nAcross, models, images, sections } = rest;
  const stored = readArrays(await inflate(model.get("numbers")), sections);
  const pictureSize = images && product(images.shape);
  const sizes = { rows, columns, nTokens: rows * columns, nLayers, nUnits, nAcross, pictureSize };
  const library = { ...sizes, models, images, stored };
  checkSizes(library, sections);
  checkNumbers(library);
  for (const { network } of models) if (network) checkNetwork(network);
  models.forEach(({ steps }, m) => {
    const maps = stored[`${m}.maps`]; // of each step, the difference to the one before
    const size = maps.length / steps.length;
    for (let i = size; i < maps.length; i++) maps[i] += maps[i - size];
  });
  return library;
}

/** The snapshots around a training step, and how far it is on the way from the first to the second. */
export function around(steps, step) {
  const after = Math.max(
    0,
    steps.findIndex((one) => one >= step),
  );
  const before = steps[after] === step ? after : Math.max(0, after - 1);
  return { before, after, share: after > before ? (step - steps[before]) / (steps[after] - steps[before]) : 0 };
}

/** The input maps (which = 0) or the output maps (which = 1) of a layer of model m, and their scale of colours. */
export function mapsAt({ nLayers, nUnits, nTokens, stored }, m, { before, after, share }, layer, which) {
  const size = nUnits * nTokens;
  const [a, b] = [before, after].map((i) => rowOf(stored[`${m}.maps`], (i * nLayers + layer) * 2 + which, size));
  const [scale, limit] = ["scales", "limits"].map((name) => stored[`${m}.${name}`][layer * 2 + which]);
  const numbers = new Float32Array(size);
  for (let i = 0; i < size; i++) numbers[i] = scale * (a[i] + share * (b[i] - a[i]));
  return { numbers, limit, map: (unit) => rowOf(numbers, unit, nTokens) };
}

export function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}
export const norm = (a) => Math.sqrt(dot(a, a));
