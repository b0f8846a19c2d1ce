// What the live figures share: the numerics of a Mixer, colours, and controls. Every figure's module follows these lines.

// ---------------------------------------------------------------------------------------------------- numbers

/** The numbers of a DataView of float16, little-endian, as float32. */
export function halves(view) {
  const numbers = new Float32Array(view.byteLength / 2);
  for (let i = 0; i < numbers.length; i++) {
    const bits = view.getUint16(2 * i, true);
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 31) throw new Error("a weight is not a finite number");
    numbers[i] = exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -24 * fraction;
  }
  return numbers;
}

/** The bytes of a DataView. */
export const bytes = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

/** Tensors by name, from float16 and a list of [name, shape]; an error says so if their sizes do not match. */
export function unpack(view, tensors) {
  const size = (shape) => shape.reduce((product, n) => product * n, 1);
  const total = tensors.reduce((sum, [, shape]) => sum + size(shape), 0);
  if (!view || view.byteLength !== 2 * total) throw new Error("its weights are damaged or incomplete");
  const numbers = halves(view);
  let start = 0;
  return Object.fromEntries(
    tensors.map(([name, shape]) => [name, numbers.subarray(start, (start += size(shape)))]),
  );
}

/** The error function, to 1.5e-7. Source: Abramowitz and Stegun, formula 7.1.26. */
export function erf(x) {
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

/**
 * x [n, nIn] times the transpose of weight [nOut, nIn], plus bias: [n, nOut].
 *
 * Two rows of x and four of the weight at a time, so that each number that is read serves several products: more than
 * twice as fast as one by one. Where fewer rows are left, the last one is computed again in place of those missing.
 */
export function linear(x, weight, bias) {
  const nOut = bias.length;
  const nIn = weight.length / nOut;
  const n = x.length / nIn;
  const y = new Float32Array(n * nOut);
  for (let i = 0; i < n; i += 2) {
    const i1 = Math.min(i + 1, n - 1);
    for (let j = 0; j < nOut; j += 4) {
      const j1 = Math.min(j + 1, nOut - 1);
      const j2 = Math.min(j + 2, nOut - 1);
      const j3 = Math.min(j + 3, nOut - 1);
      let a0 = bias[j];
      let a1 = bias[j1];
      let a2 = bias[j2];
      let a3 = bias[j3];
      let b0 = a0;
      let b1 = a1;
      let b2 = a2;
      let b3 = a3;
      for (let k = 0; k < nIn; k++) {
        const a = x[i * nIn + k];
        const b = x[i1 * nIn + k];
        const w0 = weight[j * nIn + k];
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
      y[i * nOut + j] = a0;
      y[i * nOut + j1] = a1;
      y[i * nOut + j2] = a2;
      y[i * nOut + j3] = a3;
      y[i1 * nOut + j] = b0;
      y[i1 * nOut + j1] = b1;
      y[i1 * nOut + j2] = b2;
      y[i1 * nOut + j3] = b3;
    }
  }
  return y;
}

/** x [rows, columns] with its axes exchanged: [columns, rows]. */
export function transpose(x, rows, columns) {
  const y = new Float32Array(x.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) y[j * rows + i] = x[i * columns + j];
  return y;
}

/** LayerNorm over every stretch of x as long as `length`; the weight and the bias are repeated over the stretches. */
export function layerNorm(x, weight, bias, length, eps) {
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
export function softmax(logits) {
  const highest = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - highest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

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

/** The shape of the images of a model, [C_in, H, W], and its grid of patches, from its configuration. */
export function geometry(config) {
  const size = config.image_size;
  const [H, W] = Array.isArray(size) ? size : [size, size];
  return { shape: [config.n_image_channel, H, W], rows: H / config.patch_size, columns: W / config.patch_size };
}

/**
 * A whole Mixer on one normalised image [C_in, H, W], with every result on the way.
 *
 * `mixing[i]` false switches the token mixing of layer i off. Names and shapes of the results are those of
 * MLPMixer.forward_intermediates in Python, and beside them "pooled" [nChannel], "logits" and "probabilities".
 */
export function forward(config, weights, image, mixing = []) {
  const { shape, rows, columns } = geometry(config);
  const T = rows * columns;
  const C = config.n_channel;
  const length = config.norm === "channels" ? C : T * C;
  const norm = (x, name) => layerNorm(x, weights[`${name}.weight`], weights[`${name}.bias`], length, config.eps);
  const dense = (x, name) => linear(x, weights[`${name}.weight`], weights[`${name}.bias`]);
  const activate = (x) => {
    for (let i = 0; i < x.length; i++) x[i] = gelu(x[i], config.gelu);
    return x;
  };
  const sum = (x, y) => {
    const z = new Float32Array(x.length);
    for (let i = 0; i < z.length; i++) z[i] = x[i] + y[i];
    return z;
  };

  const results = { patches: imageToPatches(image, shape, config.patch_size) };
  let x = (results.tokens = dense(results.patches, "per_patch.linear")); // [T, C]
  for (let i = 0; i < config.n_layers; i++) {
    const token = `layers.${i}.token_mixing`;
    const channel = `layers.${i}.channel_mixing`;
    const normed = transpose(norm(x, `${token}.norm`), T, C); // [C, T]
    results[`${token}.hidden`] = activate(dense(normed, `${token}.fc1`)); // [C, nHiddenToken]
    if (mixing[i] !== false) x = sum(x, transpose(dense(results[`${token}.hidden`], `${token}.fc2`), C, T));
    results[token] = x;
    results[`${channel}.hidden`] = activate(dense(norm(x, `${channel}.norm`), `${channel}.fc1`)); // [T, nHiddenChannel]
    x = results[channel] = sum(x, dense(results[`${channel}.hidden`], `${channel}.fc2`));
  }
  const normed = norm(x, "output.norm");
  const pooled = (results.pooled = new Float32Array(C));
  for (let t = 0; t < T; t++) for (let c = 0; c < C; c++) pooled[c] += normed[t * C + c] / T;
  results.logits = dense(pooled, "output.linear");
  results.probabilities = softmax(results.logits);
  return results;
}

/** The power of each spatial frequency of a map [rows, columns], frequency 0 in the middle. */
export function spectrum(map, rows, columns) {
  const power = new Float32Array(rows * columns);
  for (let v = 0; v < rows; v++)
    for (let u = 0; u < columns; u++) {
      let real = 0;
      let imaginary = 0;
      for (let y = 0; y < rows; y++)
        for (let x = 0; x < columns; x++) {
          const angle = 2 * Math.PI * ((v * y) / rows + (u * x) / columns);
          real += map[y * columns + x] * Math.cos(angle);
          imaginary -= map[y * columns + x] * Math.sin(angle);
        }
      const row = (v + Math.floor(rows / 2)) % rows;
      const column = (u + Math.floor(columns / 2)) % columns;
      power[row * columns + column] = real * real + imaginary * imaginary;
    }
  return power;
}

/** The largest absolute value, or 1 where all are 0. */
export function largest(values) {
  let limit = 0;
  for (const value of values) limit = Math.max(limit, Math.abs(value));
  return limit || 1;
}

// ---------------------------------------------------------------------------------------------------- colours

/** Whether the page is dark: the book's theme, JupyterLab's, Colab's, or else what the system prefers. */
export function isDark() {
  const page = document.documentElement;
  const theme = page.dataset.theme ?? page.getAttribute("theme");
  if (theme === "dark" || theme === "light") return theme === "dark";
  if (document.body.dataset.jpThemeLight) return document.body.dataset.jpThemeLight === "false";
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Call back whenever the theme changes; returns a function that ends it. */
export function onTheme(callback) {
  const observer = new MutationObserver(callback);
  observer.observe(document.documentElement, { attributeFilter: ["data-theme", "theme"] });
  observer.observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", callback);
  return () => {
    observer.disconnect();
    system.removeEventListener("change", callback);
  };
}

const LIGHT = { below: [33, 102, 172], zero: [247, 247, 247], above: [178, 24, 43] };
const DARK = { below: [96, 172, 240], zero: [32, 34, 40], above: [244, 120, 100] };

/** A weight as [red, green, blue]: blue below 0, red above, pale at 0 on a light page and dark on a dark one. */
export function colour(value, limit, dark) {
  const { below, zero, above } = dark ? DARK : LIGHT;
  const share = Math.min(1, Math.abs(value) / limit);
  const end = value < 0 ? below : above;
  return zero.map((z, i) => Math.round(z + share * (end[i] - z)));
}

/** Give a canvas its size, if it has another: even the same one again would cost a layout of the page. */
function resize(canvas, width, height) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
}

/** Draw a map [rows, columns] of weights on a canvas, one canvas pixel a weight; CSS makes it large. */
export function drawMap(canvas, values, rows, columns, limit = largest(values), dark = isDark()) {
  resize(canvas, columns, rows);
  const context = canvas.getContext("2d");
  const picture = context.createImageData(columns, rows);
  const { data } = picture; // it rounds what is put into it
  const { below, zero, above } = dark ? DARK : LIGHT;
  for (let i = 0; i < rows * columns; i++) {
    const share = Math.min(1, Math.abs(values[i]) / limit);
    const end = values[i] < 0 ? below : above;
    data[4 * i] = zero[0] + share * (end[0] - zero[0]);
    data[4 * i + 1] = zero[1] + share * (end[1] - zero[1]);
    data[4 * i + 2] = zero[2] + share * (end[2] - zero[2]);
    data[4 * i + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
}

/** Draw an image [C, H, W] of bytes on a canvas, grey or in colour. */
export function drawImage(canvas, image, [C, H, W]) {
  resize(canvas, W, H);
  const context = canvas.getContext("2d");
  const picture = context.createImageData(W, H);
  for (let i = 0; i < H * W; i++) {
    for (let c = 0; c < 3; c++) picture.data[4 * i + c] = image[(C === 1 ? 0 : c) * H * W + i];
    picture.data[4 * i + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
}

// ---------------------------------------------------------------------------------------------------- the page

/** An element with attributes and children; attributes that begin with "on" are listeners, strings become text. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

let count = 0;
const newId = () => `mx-${++count}-${Math.random().toString(36).slice(2, 8)}`;

/** A labelled slider over whole numbers; `text` says a value in words. Returns { el, set, range }. */
export function slider(label, { min = 0, max, value, text = String, change }) {
  const id = newId();
  const input = h("input", { id, type: "range", min, max, step: 1 });
  const output = h("output", { for: id, "aria-live": "off" }); // aria-valuetext says the same
  const set = (now) => {
    input.value = now;
    output.textContent = text(Number(input.value));
    input.setAttribute("aria-valuetext", output.textContent);
  };
  const range = (lowest, highest) => {
    input.min = lowest;
    input.max = highest;
  };
  input.addEventListener("input", () => {
    set(input.value);
    change(Number(input.value));
  });
  set(value);
  return { el: h("div", { class: "mx-control" }, h("label", { for: id }, label), input, output), set, range, input };
}

/** A labelled choice among [value, words] pairs. Returns { el, set }. */
export function choice(label, options, { value, change }) {
  const id = newId();
  const select = h("select", { id }, ...options.map(([key, words]) => h("option", { value: key }, words)));
  select.addEventListener("change", () => change(select.value));
  const set = (now) => (select.value = now);
  set(value);
  return { el: h("div", { class: "mx-control" }, h("label", { for: id }, label), select), set, select };
}

/** A labelled box to tick. Returns { el, set }. */
export function tick(label, { value, change }) {
  const id = newId();
  const input = h("input", { id, type: "checkbox" });
  input.addEventListener("change", () => change(input.checked));
  const set = (now) => (input.checked = now);
  set(value);
  return { el: h("div", { class: "mx-control" }, input, h("label", { for: id }, label)), set, input };
}

/** Set a trait and tell the kernel, if there is one. */
export function put(model, name, value) {
  model.set(name, value);
  model.save_changes();
}

/**
 * Run `build`, which draws a figure in `el` and returns its `draw`, and call `draw` again when a trait or the theme
 * changes, at most once a frame. Returns what ends it, as anywidget expects. An error shows as a sentence in its place.
 */
export function live({ model, el }, traits, build) {
  const box = h("div", { class: "mx" });
  // With this attribute JupyterLab leaves the keys to a control; without it an arrow key would move to the next cell.
  box.addEventListener("focusin", ({ target }) => target.setAttribute("data-lm-suppress-shortcuts", "true"));
  el.append(box);
  let frame = 0;
  let ended = false;
  const fail = (error) => {
    end();
    box.replaceChildren(h("p", { role: "alert" }, `This figure cannot come to life: ${error.message}`));
  };
  let draw;
  const drawSafely = () => {
    frame = 0;
    try {
      draw();
    } catch (error) {
      fail(error);
    }
  };
  const later = () => {
    if (!ended) frame ||= requestAnimationFrame(drawSafely);
  };
  const events = traits.map((name) => `change:${name}`);
  const endTheme = onTheme(later);
  const end = () => {
    ended = true;
    cancelAnimationFrame(frame);
    events.forEach((event) => model.off(event, later));
    endTheme();
  };
  try {
    draw = build(box);
    draw();
    events.forEach((event) => model.on(event, later));
  } catch (error) {
    fail(error);
  }
  return end;
}

/** Whether movement should be left out, as the reader has asked the system. */
export const stillness = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
