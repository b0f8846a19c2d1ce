// Numbers of the live figures: read from the state, checked, and measured. What a Mixer computes, the engine gives.

// ---------------------------------------------------------------------------------------------------- reading

/** The number of elements of an array of a shape. */
export const product = (shape) => shape.reduce((size, n) => size * n, 1);

/** The kinds of LayerNorm and of GELU that a model can have. */
export const NORMS = ["channels", "tokens_channels"];
export const GELUS = ["erf", "tanh"];

/** Whether i is a whole number from 0 to n - 1. */
export const isIndex = (i, n) => Number.isInteger(i) && i >= 0 && i < n;

/** Whether sizes are a list of n whole numbers of at least 1: with others a loop might not end. */
export const areSizes = (sizes, n) =>
  Array.isArray(sizes) && sizes.length === n && sizes.every((size) => Number.isSafeInteger(size) && size > 0);

/** Row i of an array [n, length], as a view of it. */
export const rowOf = (array, i, length) => array.subarray(i * length, (i + 1) * length);

/** The bytes of a DataView. */
export const bytes = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

/** Bits of float16 numbers, as float32. */
const fromHalves = (halves) =>
  new Float32Array(halves).map((bits) => {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 31) throw new Error("a weight is not a finite number");
    return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -24 * fraction;
  });

const TYPES = { float16: Uint16Array, float32: Float32Array, int8: Int8Array, uint8: Uint8Array, uint16: Uint16Array };

/** Whether a [name, type, shape] is such. */
const isSection = ([, type, shape]) => Object.hasOwn(TYPES, type) && areSizes(shape, shape?.length);

/** Arrays by name, from the bytes of a DataView and a list of [name, type, shape]; `what` they are, if they do not fit. */
export function readArrays(view, sections, what = "weights") {
  if (!sections.every(isSection)) throw new Error(`its ${what} are damaged or incomplete`);
  const nBytes = sections.map(([, type, shape]) => product(shape) * TYPES[type].BYTES_PER_ELEMENT);
  const total = nBytes.reduce((sum, n) => sum + n, 0);
  if (view?.byteLength !== total) throw new Error(`its ${what} are damaged or incomplete`);
  let end = view.byteOffset;
  const arrays = sections.map(([name, type], i) => {
    const numbers = new TYPES[type](view.buffer.slice(end, (end += nBytes[i]))); // copied, as it must be aligned
    return [name, type === "float16" ? fromHalves(numbers) : numbers];
  });
  return Object.fromEntries(arrays);
}

/** Tensors by name, from float16 and a list of [name, shape]. */
export function unpack(view, tensors) {
  const sections = tensors.map(([name, shape]) => [name, "float16", shape]);
  return readArrays(view, sections);
}

/** The n float32 numbers of a DataView. */
export function floats(view, n) {
  const { numbers } = readArrays(view, [["numbers", "float32", [n]]], "numbers");
  if (!numbers.every(Number.isFinite)) throw new Error("one of its numbers is not finite");
  return numbers;
}

// ---------------------------------------------------------------------------------------------------- sizes and maps

/** Sizes of a model by its configuration: the shape of its images, [C_in, H, W], and its grid of patches. */
export function sizesOf(config) {
  const size = config.image_size;
  const [H, W] = Array.isArray(size) ? size : [size, size];
  const [rows, columns] = [H / config.patch_size, W / config.patch_size];
  return { shape: [config.n_image_channel, H, W], rows, columns, nTokens: rows * columns, nChannel: config.n_channel };
}

/** The highest value; Math.max(...values) would fail for some hundred thousand of them. */
export const highest = (values) => values.reduce((most, value) => Math.max(most, value), -Infinity);

/** The largest absolute value, or 1 where all are 0. */
export function largest(values) {
  let limit = 0;
  for (const value of values) limit = Math.max(limit, Math.abs(value));
  return limit || 1;
}
