// Numerics of the live figures: numbers read from the state, checked, and the forward pass of a Mixer.

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

// ---------------------------------------------------------------------------------------------------- functions

/** The error function, to 1.5e-7. Source: Abramowitz and Stegun, formula 7.1.26. */
function erf(x) {
  const a = Math.abs(x);
  const t = 1 / (1 + 0.3275911 * a);
  const sum = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  const result = 1 - sum * Math.exp(-a * a);
  return x < 0 ? -result : result;
}

/** GELU, exact (kind "erf") or by its approximation (kind "tanh"). */
export function gelu(x, kind = "erf") {
  if (kind === "tanh") return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x)));
  return 0.5 * x * (1 + erf(x * Math.SQRT1_2));
}

/** The derivative of GELU, of kind "erf" or "tanh". */
function geluSlope(x, kind = "erf") {
  if (kind === "tanh") {
    const root = Math.sqrt(2 / Math.PI);
    const t = Math.tanh(root * (x + 0.044715 * x * x * x));
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root * (1 + 3 * 0.044715 * x * x);
  }
  return 0.5 * (1 + erf(x * Math.SQRT1_2)) + (x * Math.exp((-x * x) / 2)) / Math.sqrt(2 * Math.PI);
}

/** x [n, nIn] times the transpose of weight [nOut, nIn], plus bias: [n, nOut]. */
function linear(x, weight, bias) {
  const nOut = bias.length;
  const nIn = weight.length / nOut;
  const n = x.length / nIn;
  const y = new Float32Array(n * nOut);
  for (let i = 0; i < n; i += 2)
    for (let j = 0; j < nOut; j += 4) linearBlock(x, weight, bias, y, i, Math.min(i + 1, n - 1), j);
  return y;
}

/**
 * Two rows of x, i0 and i1, times four rows of weight, from row j on, written to y.
 *
 * Each number that is read serves several products: more than twice as fast as one product at a time. Where weight has
 * fewer rows left, its last row is computed again in place of those missing.
 */
function linearBlock(x, weight, bias, y, i0, i1, j0) {
  const nOut = bias.length;
  const nIn = weight.length / nOut;
  const j1 = Math.min(j0 + 1, nOut - 1);
  const j2 = Math.min(j0 + 2, nOut - 1);
  const j3 = Math.min(j0 + 3, nOut - 1);
  let a0 = bias[j0];
  let a1 = bias[j1];
  let a2 = bias[j2];
  let a3 = bias[j3];
  let b0 = a0;
  let b1 = a1;
  let b2 = a2;
  let b3 = a3;
  for (let k = 0; k < nIn; k++) {
    const a = x[i0 * nIn + k];
    const b = x[i1 * nIn + k];
    const w0 = weight[j0 * nIn + k];
    const w1 = weight[j1 * nIn + k];
    const w2 = weight[j2 * nIn + k];
    const w3 = weight[j3 * nIn + k];
    a0 += a * w0;
    a1 += a * w1;
    a2 += a * w2;
    a3 += a * w3;
    b0 += b * w0;
    b1 += b * w1;
    b2 += b * w2;
    b3 += b * w3;
  }
  y[i0 * nOut + j0] = a0;
  y[i0 * nOut + j1] = a1;
  y[i0 * nOut + j2] = a2;
  y[i0 * nOut + j3] = a3;
  y[i1 * nOut + j0] = b0;
  y[i1 * nOut + j1] = b1;
  y[i1 * nOut + j2] = b2;
  y[i1 * nOut + j3] = b3;
}

/** x [rows, columns] with its axes exchanged: [columns, rows]. */
function transpose(x, rows, columns) {
  const y = new Float32Array(x.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) y[j * rows + i] = x[i * columns + j];
  return y;
}

/** LayerNorm over every stretch of x as long as `length`; the weight and the bias are repeated over the stretches. */
function layerNorm(x, weight, bias, length, eps) {
  const y = new Float32Array(x.length);
  for (let start = 0; start < x.length; start += length) {
    let mean = 0;
    for (let i = 0; i < length; i++) mean += x[start + i];
    mean /= length;
    let variance = 0;
    for (let i = 0; i < length; i++) variance += (x[start + i] - mean) ** 2;
    const scale = 1 / Math.sqrt(variance / length + eps);
    for (let i = 0; i < length; i++) y[start + i] = (x[start + i] - mean) * scale * weight[i] + bias[i];
  }
  return y;
}

/** Numbers that sum to 1, from logits. */
function softmax(logits) {
  const most = highest(logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

// ---------------------------------------------------------------------------------------------------- the Mixer

/** An image [C_in, H, W], normalised, as patches [nTokens, nPixels], pixels ordered (channel, row, column). */
export function imageToPatches(image, [C, H, W], P) {
  const columns = W / P;
  const nPixels = C * P * P;
  const patches = new Float32Array(image.length);
  for (let c = 0; c < C; c++)
    for (let y = 0; y < H; y++)
      for (let x = 0; x < W; x++) {
        const token = Math.floor(y / P) * columns + Math.floor(x / P);
        patches[token * nPixels + (c * P + (y % P)) * P + (x % P)] = image[(c * H + y) * W + x];
      }
  return patches;
}

/** Sizes of a model by its configuration: the shape of its images, [C_in, H, W], and its grid of patches. */
export function sizesOf(config) {
  const size = config.image_size;
  const [H, W] = Array.isArray(size) ? size : [size, size];
  const [rows, columns] = [H / config.patch_size, W / config.patch_size];
  return { shape: [config.n_image_channel, H, W], rows, columns, nTokens: rows * columns, nChannel: config.n_channel };
}

/** LayerNorm, linear layer, and linear layer with GELU, each a function of its input and the name of its weights. */
function layersOf(config, weights) {
  const { nTokens, nChannel } = sizesOf(config);
  const length = config.norm === "channels" ? nChannel : nTokens * nChannel;
  const pair = (name) => [weights[`${name}.weight`], weights[`${name}.bias`]];
  const dense = (x, name) => linear(x, ...pair(name));
  return {
    norm: (x, name) => layerNorm(x, ...pair(name), length, config.eps),
    dense,
    hidden(x, name) {
      const y = dense(x, name);
      for (let i = 0; i < y.length; i++) y[i] = gelu(y[i], config.gelu); // three times as fast as map
      return y;
    },
  };
}

/** y, with x added to it. */
function addTo(y, x) {
  for (let i = 0; i < y.length; i++) y[i] += x[i];
  return y;
}

/**
 * The forward pass of a Mixer on one normalised image [C_in, H, W], with every result on the way.
 *
 * `mixing[i]` false switches the token mixing of layer i off. Names and shapes of the results are those of
 * MLPMixer.forward_intermediates in Python, and beside them "pooled" [nChannel], "logits" and "probabilities".
 */
export function forward(config, weights, image, mixing = []) {
  const { shape, nTokens, nChannel } = sizesOf(config);
  const { norm, dense, hidden } = layersOf(config, weights);
  const results = { patches: imageToPatches(image, shape, config.patch_size) };
  let x = (results.tokens = dense(results.patches, "per_patch.linear")); // [nTokens, nChannel]
  for (let i = 0; i < config.n_layers; i++) {
    const token = `layers.${i}.token_mixing`;
    const channel = `layers.${i}.channel_mixing`;
    const normed = transpose(norm(x, `${token}.norm`), nTokens, nChannel); // [nChannel, nTokens]
    const units = (results[`${token}.hidden`] = hidden(normed, `${token}.fc1`)); // [nChannel, nHiddenToken]
    if (mixing[i] !== false) x = addTo(transpose(dense(units, `${token}.fc2`), nChannel, nTokens), x);
    results[token] = x;
    results[`${channel}.hidden`] = hidden(norm(x, `${channel}.norm`), `${channel}.fc1`); // [nTokens, nHiddenChannel]
    x = results[channel] = addTo(dense(results[`${channel}.hidden`], `${channel}.fc2`), x);
  }
  const normed = norm(x, "output.norm");
  const pooled = (results.pooled = new Float32Array(nChannel));
  for (let t = 0; t < nTokens; t++) for (let c = 0; c < nChannel; c++) pooled[c] += normed[t * nChannel + c] / nTokens;
  results.logits = dense(pooled, "output.linear");
  results.probabilities = softmax(results.logits);
  return results;
}

/**
 * How much each token s influences what the token-mixing MLP of a layer adds to one token t, for this very image.
 *
 * With h = W₁·LN(X) + b₁ it is the mean over the channels c of |Σᵤ W₂[t,u]·gelu′(h[c,u])·W₁[u,s]|, the size of the
 * derivative of the addition to (t, c) with respect to LN(X)[s,c]. `results` are those of `forward`. Returns [nTokens].
 */
export function influence(config, weights, results, layer, t) {
  const { nTokens, nChannel } = sizesOf(config);
  const { norm, dense } = layersOf(config, weights);
  const token = `layers.${layer}.token_mixing`;
  const [W1, W2] = [weights[`${token}.fc1.weight`], weights[`${token}.fc2.weight`]];
  const nUnits = W1.length / nTokens;
  const x = layer ? results[`layers.${layer - 1}.channel_mixing`] : results.tokens;
  const h = dense(transpose(norm(x, `${token}.norm`), nTokens, nChannel), `${token}.fc1`); // [nChannel, nUnits]
  const shares = h.map((value, i) => W2[t * nUnits + (i % nUnits)] * geluSlope(value, config.gelu));
  const slopes = linear(shares, transpose(W1, nUnits, nTokens), new Float32Array(nTokens)); // [nChannel, nTokens]
  const sizes = new Float32Array(nTokens);
  slopes.forEach((slope, i) => (sizes[i % nTokens] += Math.abs(slope) / nChannel));
  return sizes;
}

// ---------------------------------------------------------------------------------------------------- maps

/** The highest value; Math.max(...values) would fail for some hundred thousand of them. */
export const highest = (values) => values.reduce((most, value) => Math.max(most, value), -Infinity);

/** The largest absolute value, or 1 where all are 0. */
export function largest(values) {
  let limit = 0;
  for (const value of values) limit = Math.max(limit, Math.abs(value));
  return limit || 1;
}
