// MixerFlow: a whole Mixer that runs in the page, from the digit that the reader draws to the probability of each class.

const INK = [255, 140, 0]; // influence: the more, the more of this colour on the image
const DIM = 0.5; // how bright the image is behind it

// ---------------------------------------------------------------------------------------------------- numbers

/** The derivative of GELU, of kind "erf" or "tanh". */
export function geluSlope(x, kind = "erf") {
  if (kind === "tanh") {
    const root = Math.sqrt(2 / Math.PI);
    const t = Math.tanh(root * (x + 0.044715 * x * x * x));
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root * (1 + 3 * 0.044715 * x * x);
  }
  return 0.5 * (1 + erf(x * Math.SQRT1_2)) + (x * Math.exp((-x * x) / 2)) / Math.sqrt(2 * Math.PI);
}

/**
 * How much each token s influences what the token-mixing MLP of a layer adds to one token t, for this very image.
 *
 * With h = W₁·LN(X) + b₁ it is the mean over the channels c of |Σᵤ W₂[t,u]·gelu′(h[c,u])·W₁[u,s]|, the size of the
 * derivative of the addition to (t, c) with respect to LN(X)[s,c]. `results` are those of `forward`. Returns [nTokens].
 */
export function influence(config, weights, results, layer, t) {
  const { rows, columns } = geometry(config);
  const [T, C, U] = [rows * columns, config.n_channel, config.n_hidden_token];
  const weight = (name) => weights[`layers.${layer}.token_mixing.${name}`];
  const [W1, W2] = [weight("fc1.weight"), weight("fc2.weight")];
  const x = layer ? results[`layers.${layer - 1}.channel_mixing`] : results.tokens;
  const length = config.norm === "channels" ? C : T * C;
  const normed = layerNorm(x, weight("norm.weight"), weight("norm.bias"), length, config.eps);
  const h = linear(transpose(normed, T, C), W1, weight("fc1.bias")); // [C, U]
  const shares = h.map((value, i) => W2[t * U + (i % U)] * geluSlope(value, config.gelu)); // [C, U]
  const slopes = linear(shares, transpose(W1, U, T), new Float32Array(T)); // [C, T]
  const sizes = new Float32Array(T);
  slopes.forEach((slope, i) => (sizes[i % T] += Math.abs(slope) / C));
  return sizes;
}

/** A copy of an image [H, W] of bytes with a soft line on it, 2 pixels wide on 28, from one point [x, y] to another. */
export function paint(image, [H, W], [x0, y0], [x1, y1]) {
  const radius = Math.max(0.6, W / 28);
  const [dx, dy] = [x1 - x0, y1 - y0];
  return image.map((old, i) => {
    const [x, y] = [(i % W) + 0.5 - x0, Math.floor(i / W) + 0.5 - y0];
    const share = within(0, (x * dx + y * dy) / (dx * dx + dy * dy || 1), 1);
    const distance = Math.hypot(x - share * dx, y - share * dy);
    return Math.max(old, Math.round(255 * within(0, radius + 0.5 - distance, 1)));
  });
}

/** An error, if the configuration is not that of the weights: with a wrong size a loop might not end. */
function checkSizes({ n_layers, n_channel, n_image_channel, patch_size }, weights, nTokens) {
  const length = (name) => weights[name]?.length;
  const first = "layers.0.token_mixing.fc1";
  const right =
    n_channel === length("per_patch.linear.bias") &&
    n_channel * n_image_channel * patch_size ** 2 === length("per_patch.linear.weight") &&
    n_layers === Object.keys(weights).filter((name) => name.endsWith("token_mixing.fc1.bias")).length &&
    nTokens * length(`${first}.bias`) === length(`${first}.weight`);
  if (!right) throw new Error("its sizes are not those of its weights");
}

/** What the state holds of the model and of its images, checked. */
function readMixer(model) {
  const [config, names, labels] = ["config", "class_names", "labels"].map((name) => model.get(name));
  const { shape, rows, columns } = geometry(config);
  const [, H, W] = shape;
  const stored = bytes(model.get("images"));
  const nExamples = stored.length / (H * W);
  if (!Number.isInteger(nExamples) || !nExamples) throw new Error("its stored images are damaged or incomplete");
  if (names.length !== config.n_output) throw new Error("its class names are damaged or incomplete");
  const weights = unpack(model.get("weights"), model.get("tensors"));
  checkSizes(config, weights, rows * columns);
  const [mean, std] = [model.get("mean"), model.get("std")];
  const example = (i) => stored.slice(i * H * W, (i + 1) * H * W);
  const describe = (i) => `stored image ${i}${labels.length ? `, of class ${names[labels[i]]}` : ""}`;
  const place = (t) => `${t} (row ${Math.floor(t / columns)}, column ${t % columns})`;
  const sizes = { H, W, rows, columns, nTokens: rows * columns, nExamples };
  return { config, weights, names, mean, std, example, describe, place, ...sizes };
}

// ---------------------------------------------------------------------------------------------------- parts

const title = (...words) => h("p", { class: "mx-title" }, ...words);
const note = (...words) => h("p", { class: "mx-note" }, ...words);
const panel = (kind, ...children) => h("div", { class: `mx-panel ${kind}` }, ...children);
const picture = (words = "") => h("canvas", { role: "img", "aria-label": words });
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const within = (low, value, high) => Math.max(low, Math.min(high, value));
const sayIn = (element, text) => element.textContent !== text && (element.textContent = text);

/** Where a pointer is on an element, in rows and columns of what it shows: [x, y], not rounded. */
function spot(element, { clientX, clientY }, rows, columns) {
  const { left, top, width, height } = element.getBoundingClientRect();
  return [((clientX - left) / width) * columns, ((clientY - top) / height) * rows];
}

/** The row and the column under a pointer. */
function cell(element, event, rows, columns) {
  const [x, y] = spot(element, event, rows, columns).map(Math.floor);
  return [within(0, y, rows - 1), within(0, x, columns - 1)];
}

/** Draw on the board with a pointer: mouse, pen or finger. */
function drawByPointer(board, { H, W }, read, show) {
  let last;
  const point = (event) => spot(board, event, H, W);
  board.addEventListener("pointerdown", (event) => {
    if (event.button || last) return;
    board.setPointerCapture(event.pointerId);
    last = point(event);
    show(paint(read(), [H, W], last, last));
  });
  board.addEventListener("pointermove", (event) => {
    if (!board.hasPointerCapture(event.pointerId)) return;
    const steps = event.getCoalescedEvents?.() ?? [];
    let image = read();
    for (const step of steps.length ? steps : [event]) image = paint(image, [H, W], last, (last = point(step)));
    show(image);
  });
  board.addEventListener("lostpointercapture", () => (last = undefined));
}

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Draw on the board with the keys: the arrows move a cursor, Space or Enter puts the pen down and lifts it. */
function drawByKeys(board, { H, W }, read, show) {
  const cursor = h("div", { class: "mx-cursor", style: `width: ${100 / W}%; height: ${100 / H}%` });
  board.append(cursor);
  let [at, down] = [[Math.floor(W / 2), Math.floor(H / 2)], false];
  const line = (from, to) => show(paint(read(), [H, W], ...[from, to].map(([x, y]) => [x + 0.5, y + 0.5])));
  const place = () => {
    Object.assign(cursor.style, { left: `${(100 * at[0]) / W}%`, top: `${(100 * at[1]) / H}%` });
    cursor.classList.toggle("mx-down", down);
  };
  board.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (!step && event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    const next = step ? [within(0, at[0] + step[0], W - 1), within(0, at[1] + step[1], H - 1)] : at;
    if (!step) down = !down;
    if (down) line(at, next);
    at = next;
    place();
  });
  board.addEventListener("blur", () => {
    down = false;
    place();
  });
  place();
}

/** The board on which the reader draws. Returns { el, draw }, as all parts do. */
function makeBoard(model, mixer) {
  const { H, W, rows, columns } = mixer;
  const canvas = picture();
  const keys = "Drawing board. Arrow keys move the cursor. Space or Enter puts the pen down, and lifts it again.";
  const style = `--rows: ${rows}; --columns: ${columns}`;
  const board = h("div", { class: "mx-board", style, tabindex: 0, role: "application", "aria-label": keys }, canvas);
  const read = () => bytes(model.get("image"));
  const show = (image) => {
    model.set("example", -1);
    put(model, "image", new DataView(image.buffer));
  };
  drawByPointer(board, mixer, read, show);
  drawByKeys(board, mixer, read, show);
  const clear = h("button", { type: "button", onclick: () => show(new Uint8Array(H * W)) }, "Clear");
  const draw = ({ image, what }) => {
    drawImage(canvas, image, [1, H, W]);
    canvas.setAttribute("aria-label", `The board, ${rows} by ${columns} patches. On it is ${what}.`);
  };
  return { el: panel("mx-draw", title("Draw here"), board, clear), draw };
}

/** A bar for the probability of each class. */
function makeBars({ names }) {
  const heading = title();
  const bars = names.map((name) => {
    const [bar, number] = [h("div"), h("span")];
    return { bar, number, el: h("li", {}, h("span", {}, name), h("div", {}, bar), number) };
  });
  const draw = ({ image, results, best }) => {
    sayIn(heading, image.some((value) => value) ? `The model says: ${names[best]}` : "Nothing is drawn yet");
    bars.forEach(({ bar, number, el }, i) => {
      bar.style.width = `${100 * results.probabilities[i]}%`;
      sayIn(number, percent(results.probabilities[i]));
      el.classList.toggle("mx-best", i === best);
    });
  };
  return { el: h("div", {}, heading, h("ul", { class: "mx-bars" }, ...bars.map(({ el }) => el))), draw };
}

/** The stored images to choose from: radio buttons, each with a picture. */
function makeGallery(model, { H, W, nExamples, example, describe }) {
  const name = newId();
  const inputs = Array.from({ length: nExamples }, (_, i) => {
    const choose = () => {
      model.set("example", i);
      put(model, "image", new DataView(example(i).buffer));
    };
    return h("input", { type: "radio", name, "aria-label": describe(i), onchange: choose });
  });
  const pictures = inputs.map((input, i) => {
    const canvas = h("canvas", { "aria-hidden": "true" });
    drawImage(canvas, example(i), [1, H, W]);
    return h("label", { title: describe(i) }, input, canvas);
  });
  const draw = (scene) => inputs.forEach((input, i) => (input.checked = i === scene.example));
  const legend = h("legend", { class: "mx-title" }, "Or choose a stored image");
  return { el: h("fieldset", { class: "mx-gallery" }, legend, ...pictures), draw };
}

/** All tables in the order in which the data flow. A layer is chosen here, and its token mixing switched off. */
function makeStrip(model, { config, nTokens }) {
  const [P, C] = [config.patch_size, config.n_channel];
  const patches = picture(`The patches: a row of ${P * P} pixels for each of ${nTokens} patches.`);
  const tokens = picture(`The tokens: a row of ${C} numbers for each of ${nTokens} patches.`);
  const pooled = picture(`The mean over all ${nTokens} rows, after the last LayerNorm: ${C} numbers.`);
  const layers = Array.from({ length: config.n_layers }, (_, i) => {
    const canvas = h("canvas", { "aria-hidden": "true" });
    const look = { type: "button", "aria-label": `Look inside layer ${i}`, onclick: () => put(model, "layer", i) };
    const button = h("button", look, canvas);
    const change = (on) => put(model, "mixing", model.get("mixing").map((old, k) => (k === i ? on : old)));
    const box = tick("token mixing", { value: true, change });
    box.input.setAttribute("aria-label", `token mixing of layer ${i}`);
    return { canvas, button, box };
  });
  const card = (name, canvas, ...more) => panel("", title(name), canvas, ...more);
  const el = h(
    "div",
    { class: "mx-strip" },
    card("Patches", patches, note(`${nTokens} × ${P * P}`)),
    card("Tokens", tokens, note(`${nTokens} × ${C}`)),
    ...layers.map(({ button, box }, i) => card(`Layer ${i}`, button, note(`${nTokens} × ${C}`), box.el)),
    card("Mean", pooled, note(`1 × ${C}`)),
  );
  const draw = ({ image, results, layer, mixing, dark }) => {
    drawImage(patches, imageToPatches(image, geometry(config).shape, P), [1, nTokens, P * P]);
    drawMap(tokens, results.tokens, nTokens, C, largest(results.tokens), dark);
    drawMap(pooled, results.pooled, 1, C, largest(results.pooled), dark);
    layers.forEach(({ canvas, button, box }, i) => {
      const table = results[`layers.${i}.channel_mixing`];
      drawMap(canvas, table, nTokens, C, largest(table), dark);
      button.setAttribute("aria-pressed", i === layer);
      box.set(mixing[i]);
    });
  };
  return { el, draw };
}

/** A large table. Where its rows are tokens, one is framed, and a click chooses another. */
function makeTable(model, name, size, [rows, columns], ofTokens) {
  const canvas = picture();
  const frame = h("div", { style: `height: ${100 / rows}%` });
  const table = h("div", { class: "mx-table" }, canvas);
  const caption = note();
  if (ofTokens) {
    table.append(frame);
    table.addEventListener("click", (event) => put(model, "token", cell(table, event, rows, columns)[0]));
  }
  const draw = (values, { token, dark }) => {
    const limit = largest(values);
    drawMap(canvas, values, rows, columns, limit, dark);
    frame.style.top = `${(100 * token) / rows}%`;
    const words = `${size}, ±\u00a0${limit.toFixed(1)}`;
    sayIn(caption, words);
    canvas.setAttribute("aria-label", `${name}: ${words}.`);
  };
  return { el: panel("", title(name), table, caption), draw };
}

/** What one token is mixed from: the influence of each token, drawn on its patch of the image. */
function makeInfluence(model, { H, W, rows, columns, nTokens, place }) {
  const scale = Math.ceil(280 / W);
  const canvas = picture();
  Object.assign(canvas, { width: W * scale, height: H * scale });
  const copy = h("canvas");
  const heading = title();
  const ramp = h("span", { class: "mx-ramp", style: `background: linear-gradient(to right, #000, rgb(${INK}))` });
  const most = h("span");
  const legend = note("Influence: 0 ", ramp, " to ", most, ". White frame: the token.");
  const token = slider("Token", { max: nTokens - 1, value: 0, text: place, change: (t) => put(model, "token", t) });
  canvas.addEventListener("click", (event) => {
    const [row, column] = cell(canvas, event, rows, columns);
    put(model, "token", row * columns + column);
  });
  const [width, height] = [canvas.width / columns, canvas.height / rows];
  const corner = (t) => [(t % columns) * width, Math.floor(t / columns) * height];
  const draw = ({ image, sizes, token: chosen, layer, sources }) => {
    drawImage(copy, image.map((value) => DIM * value), [1, H, W]);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(copy, 0, 0, canvas.width, canvas.height);
    const limit = largest(sizes);
    sizes.forEach((size, t) => {
      context.fillStyle = `rgba(${INK}, ${(0.9 * size) / limit})`;
      context.fillRect(...corner(t), width, height);
    });
    const [x, y] = corner(chosen);
    context.strokeStyle = "#fff";
    context.lineWidth = 4;
    context.strokeRect(x + 2, y + 2, width - 4, height - 4);
    token.set(chosen);
    sayIn(heading, `What token ${chosen} is mixed from`);
    sayIn(most, Math.max(...sizes).toFixed(2));
    canvas.setAttribute("aria-label", `The image with the influence on token ${chosen} in layer ${layer}. ${sources}`);
  };
  return { el: panel("mx-look", heading, canvas, token.el, legend), draw };
}

/** The chosen layer at large. */
function makeLayer(model, mixer) {
  const { config, nTokens: T } = mixer;
  const [C, U, V] = [config.n_channel, config.n_hidden_token, config.n_hidden_channel];
  const map = makeInfluence(model, mixer);
  const table = (...about) => makeTable(model, ...about);
  const tables = {
    "token_mixing.hidden": table("Token mixing: hidden", `${C} channels × ${U} hidden units`, [C, U], false),
    token_mixing: table("After token mixing", `${T} tokens × ${C} channels`, [T, C], true),
    "channel_mixing.hidden": table("Channel mixing: hidden", `${T} tokens × ${V} hidden units`, [T, V], true),
    channel_mixing: table("After channel mixing", `${T} tokens × ${C} channels`, [T, C], true),
  };
  const grid = h("div", { class: "mx-tables" }, ...Object.values(tables).map(({ el }) => el));
  const heading = title();
  const draw = (scene) => {
    sayIn(heading, `Inside layer ${scene.layer}${scene.mixing[scene.layer] ? "" : ", its token mixing off"}`);
    map.draw(scene);
    for (const name in tables) tables[name].draw(scene.results[`layers.${scene.layer}.${name}`], scene);
  };
  return { el: h("div", {}, heading, h("div", { class: "mx-row" }, map.el, grid)), draw };
}

/** What the colours of the tables mean. */
function makeLegend() {
  const ramp = h("canvas", { class: "mx-ramp", "aria-hidden": "true" });
  const shares = Array.from({ length: 41 }, (_, i) => i / 20 - 1);
  const el = note("Numbers below 0 ", ramp, " above 0; each table has its own scale, ± its largest number.");
  return { el, draw: ({ dark }) => drawMap(ramp, shares, 1, shares.length, 1, dark) };
}

// ---------------------------------------------------------------------------------------------------- the figure

const HINT =
  "The whole model runs here, at every stroke. Press Clear, then draw large and in the middle: with mouse, finger or " +
  "pen, or with the arrow keys and Space. Choose a layer by its picture and a token on its patch or in a table. Switch " +
  "the token mixing of a layer off to see what it was for.";
const TABLES =
  "Each small picture is a table: a row is a token, that is one patch, and a column is a channel. All are stretched to " +
  "the same size; below each stands how large it is.";
const DEFINITION =
  "Influence of token s on token t: the mean over all channels c of |Σᵤ W₂[t,u] · gelu′(h[c,u]) · W₁[u,s]|, where " +
  "h = W₁ · LN(X) + b₁. That is how strongly what is added to token t answers to a change of LN(X) at token s, for " +
  "this very image.";

/** A function that runs the model, once for each image and each choice of mixing. */
function makeRun(model, { config, weights, mean, std }) {
  let [known, mixed, results] = [];
  return (image, mixing) => {
    if (known === model.get("image") && mixed === mixing) return results;
    [known, mixed] = [model.get("image"), mixing];
    const pixels = Float32Array.from(image, (value) => (value / 255 - mean) / std);
    results = forward(config, weights, pixels, mixing);
    put(model, "probabilities", results.probabilities);
    return results;
  };
}

/** Let the board show the stored image that was chosen, or else say that it shows another. Returns the choice. */
function agree(model, mixer, before) {
  const chosen = model.get("example");
  if (chosen < 0) return chosen;
  const [image, stored] = [bytes(model.get("image")), mixer.example(chosen)];
  if (stored.every((value, i) => value === image[i])) return chosen;
  if (chosen === before) put(model, "example", -1);
  else put(model, "image", new DataView(stored.buffer));
  return model.get("example");
}

/** What the chosen token is mixed from, in words. */
function sourcesInWords(sizes, token, layer, mixing) {
  if (!mixing[layer]) {
    const off = mixing.flatMap((on, i) => (on ? [] : [i]));
    return `Token mixing is off in layer${off.length > 1 ? "s" : ""} ${off.join(", ")}.`;
  }
  const order = Array.from(sizes.keys()).sort((a, b) => sizes[b] - sizes[a]);
  return `In layer ${layer}, token ${token} is mixed most from the tokens ${order.slice(0, 3).join(", ")}.`;
}

function render({ model, el }) {
  return live({ model, el }, ["image", "example", "layer", "token", "mixing"], (box) => {
    const mixer = readMixer(model);
    const { config, weights, names, nTokens } = mixer;
    const run = makeRun(model, mixer);
    const [board, bars, gallery] = [makeBoard(model, mixer), makeBars(mixer), makeGallery(model, mixer)];
    const [strip, inside, legend] = [makeStrip(model, mixer), makeLayer(model, mixer), makeLegend()];
    const facts = h("p", { role: "status" });
    const top = h("div", { class: "mx-row" }, board.el, panel("mx-answer", bars.el, gallery.el));
    box.classList.add("mx-flow");
    box.append(note(HINT), top, strip.el, note(TABLES), inside.el, facts, legend.el, note(DEFINITION));

    let example = model.get("example");
    return () => {
      const start = performance.now();
      example = agree(model, mixer, example);
      const [layer, token, mixing] = ["layer", "token", "mixing"].map((name) => model.get(name));
      const image = bytes(model.get("image"));
      if (image.length !== mixer.H * mixer.W) throw new Error("its image is damaged or incomplete");
      const results = run(image, mixing);
      const sizes = mixing[layer] ? influence(config, weights, results, layer, token) : new Float32Array(nTokens);
      const best = results.probabilities.indexOf(Math.max(...results.probabilities));
      const what = example < 0 ? "a drawing" : mixer.describe(example);
      const sources = sourcesInWords(sizes, token, layer, mixing);
      const scene = { image, results, sizes, best, example, what, sources, layer, token, mixing, dark: isDark() };
      for (const part of [board, bars, gallery, strip, inside, legend]) part.draw(scene);
      sayIn(facts, `The model says ${names[best]} with ${percent(results.probabilities[best])}. ${sources}`);
      performance.measure("MixerFlow", { start, end: performance.now() });
    };
  });
}

export default { render };
