// MixerFlow: a whole Mixer that runs in the page, from the digit that the reader draws to the probability of each class.

import { makeBars } from "./bars.js";
import { makeBoard } from "./board.js";
import { Engine, tensorsOf } from "./engine.js";
import { areSizes, bytes, GELUS, isIndex, largest, NORMS, product, sizesOf, unpack } from "./numerics.js";
import { describe, drawImage, drawMap, drawRamp, picture } from "./canvas.js";
import { makeLayer, makeTable } from "./layer.js";
import { makeOpening } from "./opening.js";
import { h, isDark, live, newId, note, panel, percent, put, row, say, statusLine, tick, title } from "./page.js";
import { isInOrder, makeSwitches, reorder } from "./switches.js";
import { tablesOf } from "./tables.js";

const TRAITS = ["image", "example", "layer", "token", "mixing", "order"];
const HINT =
  "The whole model runs in this page, at every stroke. Draw large and in the middle: with mouse, finger or pen, or with " +
  "the arrow keys and Space.";
const CHOOSING =
  "Choose a layer by its picture and a token on its patch or in a table. Switch the token mixing of a layer off to see " +
  "what it was for.";
const READING =
  "Each small picture is a table: a row is a token, that is one patch, and a column is a channel. All are stretched to " +
  "the same size; below each stands how large it is.";
const DEFINITION =
  "Influence of token s on token t: the mean over all channels c of |Σᵤ W₂[t,u] · gelu′(h[c,u]) · W₁[u,s]|, where " +
  "h = W₁ · LN(X) + b₁. That is how strongly what is added to token t answers to a change of LN(X) at token s, for " +
  "this very image.";

/** The tensors of a model in the order of the engine; an error, unless they and no others are its weights. */
function weightsOf(config, weights) {
  const { shape, rows, columns, nChannel } = sizesOf(config);
  const { n_layers, n_hidden_token, n_hidden_channel, n_output, patch_size } = config;
  const sizes = [...shape, rows, columns, patch_size, n_layers, nChannel, n_hidden_token, n_hidden_channel, n_output];
  const nWeights = Object.keys(weights).length;
  const areRight = areSizes(sizes, 11) && n_layers < nWeights; // with others a loop might not end
  const tensors = areRight ? tensorsOf(config) : [];
  const fits = ([name, size]) => weights[name]?.length === product(size);
  if (shape[0] !== 1 || tensors.length !== nWeights || !tensors.every(fits))
    throw new Error("its sizes are not those of its weights");
  return tensors.map(([name]) => weights[name]);
}

/** An error, if a number or a choice of the configuration is not one. */
function checkOptions({ norm, gelu, eps }, mean, std) {
  const right = NORMS.includes(norm) && GELUS.includes(gelu) && [eps, mean, std].every(Number.isFinite);
  if (!right || eps < 0 || std <= 0) throw new Error("its configuration is damaged or incomplete");
}

/** An error, if a trait chooses what is not there. */
function checkChoices(model, { config, nTokens, nExamples }) {
  const choices = { example: [-1, nExamples], layer: [0, config.n_layers], token: [0, nTokens] };
  for (const [name, [first, end]] of Object.entries(choices)) {
    const chosen = model.get(name);
    if (chosen !== first && !isIndex(chosen, end)) throw new Error(`there is no ${name} ${chosen}`);
  }
  const mixing = model.get("mixing");
  const right = mixing.length === config.n_layers && mixing.every((on) => typeof on === "boolean");
  if (!right) throw new Error("its switches of token mixing are damaged or incomplete");
  const order = model.get("order");
  const isOrder =
    order.length === nTokens && new Set(order).size === nTokens && order.every((t) => isIndex(t, nTokens));
  if (!isOrder) throw new Error("its order of the patches is damaged or incomplete");
}

/** The state's model and images, checked. */
function readMixer(model) {
  const [config, names, labels] = ["config", "class_names", "labels"].map((name) => model.get(name));
  const [mean, std] = [model.get("mean"), model.get("std")];
  const weights = weightsOf(config, unpack(model.get("weights"), model.get("tensors")));
  checkOptions(config, mean, std);
  const { shape, rows, columns, nTokens } = sizesOf(config);
  const [, H, W] = shape;
  const stored = bytes(model.get("images"));
  const nExamples = stored.length / (H * W);
  if (!Number.isInteger(nExamples) || !nExamples) throw new Error("its stored images are damaged or incomplete");
  const named = names.length === config.n_output && names.every((name) => typeof name === "string");
  if (!named) throw new Error("its class names are damaged or incomplete");
  const labelled = labels.length === 0 || labels.length === nExamples;
  if (!labelled || !labels.every((label) => isIndex(label, names.length)))
    throw new Error("its labels are damaged or incomplete");
  const example = (i) => stored.slice(i * H * W, (i + 1) * H * W);
  const caption = (i) => `stored image ${i}${labels.length ? `, of class ${names[labels[i]]}` : ""}`;
  return { config, weights, names, mean, std, example, caption, shape, H, W, rows, columns, nTokens, nExamples };
}

/**
 * A function that runs the model, once for each image, order of its patches and choice of mixing. It returns the tables,
 * the image as the model gets it, and as `before` the probabilities of the whole model, if these are others.
 */
function makeRun(model, mixer, engine) {
  const { config, weights, mean, std } = mixer;
  let [known, done] = [[]];
  engine.hold(config, weights, { mean: [mean], std: [std] });
  return (image, mixing, order, isWhole) => {
    const key = [isWhole && model.get("image"), mixing, order]; // what is not yet whole changes at every frame
    if (isWhole && key.every((part, i) => part === known[i])) return done;
    known = key;
    const isShuffled = !isInOrder(order);
    const seen = reorder(image, order, mixer);
    const isAltered = isShuffled || !mixing.every(Boolean);
    const before = isAltered ? engine.read(image).slice() : undefined;
    const shares = engine.read(seen, mixing);
    if (isWhole) put(model, "probabilities", [...shares]);
    return (done = { results: tablesOf(engine, config), seen, isShuffled, before });
  };
}

/** Agreement of board and choice: the stored image goes on the board, or else none counts as chosen. Returns the choice. */
function agree(model, mixer, before) {
  const chosen = model.get("example");
  if (chosen < 0) return chosen;
  const [image, stored] = [bytes(model.get("image")), mixer.example(chosen)];
  if (stored.every((value, i) => value === image[i])) return chosen;
  if (chosen === before) put(model, "example", -1);
  else put(model, "image", new DataView(stored.buffer));
  return model.get("example");
}

/** A bar for the probability of each class. */
function makeAnswer({ names }) {
  const { el, draw } = makeBars(names);
  const show = ({ isEmpty, best, results, before }) =>
    isEmpty
      ? draw("Nothing is drawn yet")
      : draw(`The model says: ${names[best]}`, results.probabilities, best, before);
  return { el, draw: show };
}

/** The stored images to choose from: radio buttons, each with a picture. */
function makeGallery(model, { H, W, nExamples, example, caption }) {
  const name = newId();
  const choose = (i) => {
    model.set("example", i);
    put(model, "image", new DataView(example(i).buffer));
  };
  const examples = Array.from({ length: nExamples }, (_, i) => {
    const input = h("input", { type: "radio", name, "aria-label": caption(i), onchange: () => choose(i) });
    const canvas = h("canvas", { "aria-hidden": "true" });
    drawImage(canvas, example(i), [1, H, W]);
    return { input, el: h("label", { title: caption(i) }, input, canvas) };
  });
  const draw = (scene) => examples.forEach(({ input }, i) => (input.checked = i === scene.example));
  const legend = h("legend", { class: "mx-title" }, "Or choose a stored image");
  return { el: h("fieldset", { class: "mx-gallery" }, legend, ...examples.map(({ el }) => el)), draw };
}

/** One layer among the tables: a button that chooses it, and the switch of its token mixing. */
function makeLayerCard(model, i, size) {
  const canvas = h("canvas", { "aria-hidden": "true" });
  const look = { type: "button", "aria-label": `Look inside layer ${i}`, onclick: () => put(model, "layer", i) };
  const button = h("button", look, canvas);
  const changed = (on) => model.get("mixing").map((old, k) => (k === i ? on : old));
  const box = tick("token mixing", { change: (on) => put(model, "mixing", changed(on)) });
  describe(box.input, `token mixing of layer ${i}`);
  return { el: panel("", title(`Layer ${i}`), button, note(size), box.el), canvas, button, box };
}

/** All tables in the order in which the data flow. */
function makeStrip(model, { config, nTokens, mean, std }) {
  const [P, C] = [config.patch_size, config.n_channel];
  const patches = picture(`The patches: a row of ${P * P} pixels for each of ${nTokens} patches.`);
  const tokens = picture(`The tokens: a row of ${C} numbers for each of ${nTokens} patches.`);
  const pooled = picture(`The mean over all ${nTokens} rows, after the last LayerNorm: ${C} numbers.`);
  const size = `${nTokens} × ${C}`;
  const layers = Array.from({ length: config.n_layers }, (_, i) => makeLayerCard(model, i, size));
  const el = h(
    "div",
    { class: "mx-strip" },
    panel("", title("Patches"), patches, note(`${nTokens} × ${P * P}`)),
    panel("", title("Tokens"), tokens, note(size)),
    ...layers.map((card) => card.el),
    panel("", title("Mean"), pooled, note(`1 × ${C}`)),
  );
  const grey = (value) => 255 * (value * std + mean);
  const draw = ({ results, layer, mixing, dark }) => {
    const table = (canvas, values, rows) => drawMap(canvas, values, rows, C, largest(values), dark);
    drawImage(patches, results.patches.map(grey), [1, nTokens, P * P]);
    table(tokens, results.tokens, nTokens);
    table(pooled, results.pooled, 1);
    layers.forEach(({ canvas, button, box }, i) => {
      table(canvas, results[`layers.${i}.channel_mixing`], nTokens);
      button.setAttribute("aria-pressed", i === layer);
      box.set(mixing[i]);
    });
  };
  return { el, draw };
}

/** The meaning of the colours of the tables. */
function makeLegend() {
  const ramp = h("canvas", { class: "mx-ramp", "aria-hidden": "true" });
  const el = note("Numbers below 0 ", ramp, " above 0; each table has its own scale, ± its largest number.");
  return { el, draw: () => drawRamp(ramp, 20) };
}

/** The sources of the chosen token, in words. */
function sourcesInWords(sizes, token, layer, mixing) {
  if (!mixing[layer]) {
    const off = mixing.flatMap((on, i) => (on ? [] : [i]));
    return `Token mixing is off in layer${off.length > 1 ? "s" : ""} ${off.join(", ")}.`;
  }
  const order = Array.from(sizes.keys()).sort((a, b) => sizes[b] - sizes[a]);
  return `In layer ${layer}, token ${token} is mixed most from the tokens ${order.slice(0, 3).join(", ")}.`;
}

/** The table that is seen to change without a look inside: the one after the last layer. */
function makeLast(model, { config, nTokens: T }) {
  const last = config.n_layers - 1;
  const size = `${T} tokens × ${config.n_channel} channels`;
  const { el, draw } = makeTable(model, `After layer ${last}`, size, [T, config.n_channel], true);
  el.classList.add("mx-last");
  return { el, draw: (scene) => draw(scene.results[`layers.${last}.channel_mixing`], scene) };
}

const bestOf = (shares) => shares.indexOf(Math.max(...shares));

/** The answer in a sentence, and where the chosen token comes from, if that is looked at. */
function makeFacts({ names }, inside) {
  const el = statusLine();
  const inWords = (shares) => `${names[bestOf(shares)]} with ${percent(shares[bestOf(shares)])}`;
  const draw = ({ isEmpty, isWhole, results, before, sources }) => {
    if (!isWhole) return; // screen readers would announce every part of it
    const old = before ? ` The whole model, with the patches in order, says ${inWords(before)}.` : "";
    const answer = `The model says ${inWords(results.probabilities)}.${old}`;
    say(el, `${isEmpty ? "Nothing is drawn yet." : answer}${inside.open ? ` ${sources}` : ""}`);
  };
  return { el, draw };
}

/** All that the parts draw, computed from the traits. */
function makeScene(model, mixer, engine, run, opening, example) {
  const { caption, nTokens } = mixer;
  const [layer, token, mixing, order] = ["layer", "token", "mixing", "order"].map((name) => model.get(name));
  if (model.get("image").byteLength !== mixer.H * mixer.W) throw new Error("its image is damaged or incomplete");
  const [image, isWhole] = [opening.image(), opening.isOver()];
  const { results, seen, isShuffled, before } = run(image, mixing, order, isWhole);
  const sizes = mixing[layer] ? engine.influence(layer, token, nTokens) : new Float32Array(nTokens);
  const best = bestOf(results.probabilities);
  const isEmpty = !image.some(Boolean);
  const what = isEmpty ? "nothing" : example < 0 ? "a drawing" : caption(example);
  const sources = sourcesInWords(sizes, token, layer, mixing);
  const answer = { results, best, before, sizes, sources };
  return { ...answer, image, seen, isShuffled, isEmpty, isWhole, example, what, layer, token, mixing, dark: isDark() };
}

async function build(model, box, later) {
  const mixer = readMixer(model);
  const engine = await Engine.start(bytes(model.get("engine")));
  const run = makeRun(model, mixer, engine);
  const opening = makeOpening(model, mixer, later);
  const empty = () => opening.isFirst() && new Uint8Array(mixer.H * mixer.W);
  const board = makeBoard(model, mixer, "Draw here", empty);
  const [bars, last, gallery] = [makeAnswer(mixer), makeLast(model, mixer), makeGallery(model, mixer)];
  const switches = makeSwitches(model, mixer);
  const inner = [makeStrip(model, mixer), makeLayer(model, mixer), makeLegend()];
  const [strip, layer, legend] = inner.map(({ el }) => el);
  const parts = [note(CHOOSING), strip, note(READING), layer, legend, note(DEFINITION)];
  const inside = h("details", { class: "mx-inside", ontoggle: later }, h("summary", {}, "Look inside"), ...parts);
  const facts = makeFacts(mixer, inside);
  box.classList.add("mx-flow");
  box.append(
    row(board.el, panel("mx-answer", bars.el, switches.el, last.el)),
    facts.el,
    note(HINT),
    gallery.el,
    inside,
  );
  board.el.append(switches.shown);
  opening.watch(board.surface);

  let example = model.get("example");
  return () => {
    const start = performance.now();
    checkChoices(model, mixer);
    example = agree(model, mixer, example);
    const scene = makeScene(model, mixer, engine, run, opening, example);
    for (const part of [board, bars, switches, last, gallery, facts, ...(inside.open ? inner : [])]) part.draw(scene);
    performance.measure("MixerFlow", { start, end: performance.now() });
  };
}

export default { render: (view) => live(view, TRAITS, build) };
