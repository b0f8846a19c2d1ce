// MixerFlow: a whole Mixer that runs in the page, from the digit that the reader draws to the probability of each class.

import { makeBars } from "./bars.js";
import { makeBoard } from "./board.js";
import { Engine, tensorsOf } from "./engine.js";
import { areSizes, bytes, GELUS, isIndex, NORMS, product, sizesOf, unpack } from "./numerics.js";
import { cellOn, drawImage, drawRamp } from "./canvas.js";
import { strongest } from "./influence.js";
import { makeLayer, makeTable } from "./layer.js";
import { Look, makeChosen, makeLookControls, makeReading } from "./look.js";
import { makeOpening } from "./opening.js";
import { h, isDark, live, newId, note, panel, percent, place, put, row, say, statusLine } from "./page.js";
import { makeStrip } from "./strip.js";
import { isInOrder, makeSwitches, reorder } from "./switches.js";
import { tablesOf } from "./tables.js";

const TRAITS = ["image", "example", "layer", "token", "mixing", "order"];
const HINT =
  "The whole model runs in this page, at every stroke. Draw large and in the middle: with mouse, finger or pen, or with " +
  "the arrow keys and Space.";
const CHOOSING =
  "Point at a cell, or tap it, to read its number and to see its token (orange) and its channel (blue) everywhere. " +
  "Choose a layer by its picture. Switch the token mixing of a layer off to see what it was for.";
const READING =
  "Each small picture is a table: a row is a token, that is one patch, and a column is a channel, or a pixel of the " +
  "patches. The mean has one row. Folded into maps, each channel is a small image with one pixel for each patch.";
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
function makeGallery(model, { H, W, nExamples, example, caption }, board) {
  const name = newId();
  const choose = (i) => {
    board.remember();
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

/** The meaning of the colours of the tables. */
function makeLegend(look) {
  const ramp = h("canvas", { class: "mx-ramp", "aria-hidden": "true" });
  const scale = h("span");
  const draw = () => {
    drawRamp(ramp, 20);
    say(scale, look.held ? "all layers have one scale." : "each table has its own scale, ± its largest number.");
  };
  return { el: note("Numbers below 0 ", ramp, " above 0; ", scale), draw };
}

/** The sources of the chosen token, in words. */
function sourcesInWords(sizes, token, layer, mixing) {
  if (!mixing[layer]) {
    const off = mixing.flatMap((on, i) => (on ? [] : [i]));
    return `Token mixing is off in layer${off.length > 1 ? "s" : ""} ${off.join(", ")}.`;
  }
  return `In layer ${layer}, token ${token} is mixed most from the tokens ${strongest(sizes)}.`;
}

/** The table that is seen to change without a look inside: the one after the last layer. */
function makeLast(look, { config, nTokens: T, rows, columns }) {
  const [last, C] = [config.n_layers - 1, config.n_channel];
  const grid = { rows, columns };
  const size = `${T} tokens × ${C} channels`;
  const about = { name: `After layer ${last}`, rows: T, columns: C, rowIs: "token", columnIs: "channel", grid, size };
  const { el, draw } = makeTable(look, about);
  const before = look.before[`layers.${last}.token_mixing`];
  return { el, draw: (scene) => draw(scene, `layers.${last}.channel_mixing`, before) };
}

/** A frame on the board around the patch of the token that is pointed at, and the token where the board is. */
function linkBoard({ surface }, look, { rows, columns }, model) {
  const frame = h("div", { class: "mx-patch" });
  surface.append(frame);
  surface.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "mouse" || event.buttons) return;
    const [y, x] = cellOn(surface, event, rows, columns);
    look.point({ about: { name: "Patch", rowIs: "token" }, row: model.get("order").indexOf(y * columns + x) });
  });
  surface.addEventListener("pointerleave", (event) => look.leave(event));
  const draw = () => {
    const token = look.over?.token;
    frame.hidden = token === undefined;
    const patch = model.get("order")[token ?? 0];
    const [top, left] = [Math.floor(patch / columns) / rows, (patch % columns) / columns];
    place(frame, { left, top, width: 1 / columns, height: 1 / rows });
  };
  return { draw };
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
  return {
    ...answer,
    image,
    seen,
    isShuffled,
    isEmpty,
    isWhole,
    example,
    what,
    layer,
    token,
    mixing,
    palette: isDark() ? "dark" : "light",
  };
}

/** What a look inside unfolds: all tables, and how to look at them. */
function makeInside(model, look, mixer) {
  const [strip, layer, legend] = [makeStrip(model, look, mixer), makeLayer(model, look, mixer), makeLegend(look)];
  const [controls, reading] = [makeLookControls(look, mixer), makeChosen(look, mixer)];
  const summary = h("summary", {}, "Look inside");
  const parts = [
    note(CHOOSING),
    controls.el,
    strip.el,
    note(READING),
    layer.el,
    reading.el,
    legend.el,
    note(DEFINITION),
  ];
  const el = h("details", { class: "mx-inside", ontoggle: () => look.later() }, summary, ...parts);
  const draw = (scene) => el.open && [controls, strip, layer, legend, reading].forEach((part) => part.draw(scene));
  return { el, draw };
}

async function build(model, box, later) {
  const mixer = readMixer(model);
  const engine = await Engine.start(bytes(model.get("engine")));
  const run = makeRun(model, mixer, engine);
  const opening = makeOpening(model, mixer, later);
  const look = new Look(model, mixer, later);
  const empty = () => opening.isFirst() && new Uint8Array(mixer.H * mixer.W);
  const board = makeBoard(model, mixer, "Draw here", empty);
  const [bars, last, gallery] = [makeAnswer(mixer), makeLast(look, mixer), makeGallery(model, mixer, board)];
  const [switches, reading] = [makeSwitches(model, mixer), makeReading(look)];
  const inside = makeInside(model, look, mixer);
  const facts = makeFacts(mixer, inside.el);
  box.classList.add("mx-flow");
  const answer = panel("mx-answer", bars.el, switches.el, last.el, reading.el);
  box.append(row(board.el, answer), facts.el, note(HINT), gallery.el, inside.el);
  board.el.append(switches.shown);
  const parts = [board, bars, switches, last, gallery, facts, reading, inside, linkBoard(board, look, mixer, model)];
  opening.watch(board.surface);

  let example = model.get("example");
  return () => {
    const start = performance.now();
    checkChoices(model, mixer);
    example = agree(model, mixer, example);
    look.step();
    const scene = makeScene(model, mixer, engine, run, opening, example);
    for (const part of parts) part.draw(scene);
    look.isNew = false;
    performance.measure("MixerFlow", { start, end: performance.now() });
  };
}

export default { render: (view) => live(view, TRAITS, build) };
