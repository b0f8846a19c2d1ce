// ConvolutionTwin: one hidden unit of token mixing, as a row of W1 and as a kernel, adding up the same number twice.

import { describe, drawImage, picture } from "./canvas.js";
import { fill, fills, makeCells } from "./cells.js";
import { Engine } from "./engine.js";
import { areSizes, bytes, floats, GELUS, highest, isIndex, largest, product, rowOf } from "./numerics.js";
import { decimal, h, live, note, panel, place, playButton, put, row, say, slider, statusLine, title } from "./page.js";
import { correlate, fold, makeRival, rivalsOf, rolled } from "./rival.js";

const TRAITS = ["unit", "channel", "example", "n_added", "down", "right"];
const LABELS = ["Hidden unit", "Channel", "Image", "Products added", "Shift down", "Shift right"];
const PLAY_TIME = 8000; // milliseconds to add up all products
const HINT =
  "Add the products one by one, or play, and compare the sums. A click on a cell adds up to its token. " +
  "A shift moves the image and its maps by whole patches, on a ring.";
const COLOURS = [
  "above 0. Each strip has a scale of its own, and the map of the same numbers has the same scale.",
  "Empty cells are not added yet; the frame marks the token that was added last.",
];

/** What does not change: the weights, the normalised tables, the images, and their sizes. */
function readState(model) {
  const [counts, grid, shape] = ["counts", "grid", "shape"].map((name) => model.get(name));
  const { unit, channel, example, n_added: nStops, down, right: across } = counts;
  const nTokens = product(grid);
  const right = areSizes(grid, 2) && areSizes(shape, 3) && areSizes([unit, channel, example], 3);
  if (!right || nStops !== nTokens + 1 || String([down, across]) !== String(grid))
    throw new Error("its sizes are damaged or incomplete");
  if (!GELUS.includes(model.get("gelu"))) throw new Error("its kind of GELU is not known");
  if (!isIndex(model.get("layer"), Infinity)) throw new Error(`there is no layer ${model.get("layer")}`);
  const images = bytes(model.get("images"));
  const size = product(shape);
  if (images.length !== example * size) throw new Error("its images are damaged or incomplete");
  return {
    counts,
    grid,
    shape,
    nTokens,
    W1: floats(model.get("W1"), unit * nTokens),
    b1: floats(model.get("b1"), unit),
    W2: floats(model.get("W2"), nTokens * unit),
    b2: floats(model.get("b2"), nTokens),
    normed: floats(model.get("normed"), example * channel * nTokens),
    imageOf: (i) => rowOf(images, i, size),
  };
}

/** All that is shown of a unit on a channel of an image when `nAdded` products are added, in both views. */
function compute(data, [unit, channel, example, nAdded, ...shift], gelu) {
  const { counts, grid, nTokens, W1, b1, normed } = data;
  const unshifted = rowOf(normed, example * counts.channel + channel, nTokens);
  const column = rolled(unshifted, grid, shift);
  const weights = rowOf(W1, unit, nTokens);
  const products = weights.map((weight, t) => weight * column[t]);
  let sum = 0;
  const sums = Array.from(weights, (weight, t) => (sum += weight * column[t])); // of the first 1, 2, 3 … products
  const map = fold(column, grid);
  const rowSumsOf = (kernel) => kernel.map((weightRow, y) => correlate([map[y]], [weightRow])[0][0]);
  const added = weights.map((weight, t) => (t < nAdded ? weight : 0));
  const kernel = fold(added, grid);
  const rowSums = rowSumsOf(kernel);
  const rowLimit = largest(rowSumsOf(fold(weights, grid)));
  const totals = [nAdded ? sums[nAdded - 1] : 0, correlate(map, kernel)[0][0]];
  const biased = totals.map((total) => total + b1[unit]);
  const activations = biased.map(gelu);
  const rivals = rivalsOf(data, unshifted, weights, shift, gelu);
  return { column, weights, products, sums, rowSums, rowLimit, totals, bias: b1[unit], biased, activations, rivals };
}

/** Bars between 0 and each sum as CSS pictures, in a frame from the lowest to the highest, and the line at 0. */
function barsOf(sums) {
  const top = Math.max(0, highest(sums));
  const height = top + Math.max(0, highest(sums.map((sum) => -sum))) || 1;
  const stripe = (from, to, ink) => {
    const [above, below] = [from, to].map((value) => `${(100 * (top - value)) / height}%`);
    return `linear-gradient(transparent ${above}, ${ink} ${above} ${below}, transparent ${below})`;
  };
  const bar = (sum) => stripe(Math.max(0, sum), Math.min(0, sum), fill(Math.sign(sum), 1));
  return { bars: sums.map(bar), zero: stripe(height / 100, -height / 100, "var(--mx-muted)") };
}

/** Token mixing: the column, the row, their products and the running sum, as strips with one cell per token. */
function makeTokenView(nTokens, pick) {
  const kinds = ["mx-strip", "mx-strip", "mx-strip", "mx-bars"];
  const [values, weights, products, sums] = kinds.map((kind) => makeCells(nTokens, nTokens, kind, pick));
  const captions = [note(), note(), note("products"), note("running sum")];
  const panels = [values, weights, products, sums].map((cells, i) => panel("", captions[i], cells.el));
  function draw(now, [unit, channel, , nAdded]) {
    const lit = nAdded - 1;
    values.paint(fills(now.column), `Column ${channel} of the normalised table, one cell per token`, lit);
    weights.paint(fills(now.weights), `Row ${unit} of W1, one cell per token`, lit);
    products.paint(fills(now.products), `The first ${nAdded} of ${nTokens} products of the two`, lit, nAdded);
    const { bars, zero } = barsOf(now.sums);
    sums.paint(bars, `The running sum of the products, now ${decimal(now.totals[0], 5)}`, lit, nAdded);
    sums.el.style.background = zero;
    say(captions[0], `channel: the column LN(X)[:, ${channel}]`);
    say(captions[1], `weights: the row W₁[${unit}]`);
  }
  return { el: h("section", {}, title("Token mixing: a row times a column"), ...panels), draw };
}

/** Convolution: the same numbers as a map, a kernel and their products, and the sums of the rows of products. */
function makeMapView([rows, columns], pick) {
  const nTokens = rows * columns;
  const [values, weights, products] = [0, 1, 2].map(() => makeCells(nTokens, columns, "mx-map", pick));
  const sums = makeCells(rows, 1, "mx-sums", (y) => pick((y + 1) * columns - 1));
  const parts = { "channel map": values, kernel: weights, products, "row sums": sums };
  const panels = Object.entries(parts).map(([words, cells]) => panel("", note(words), cells.el));
  const size = `${rows}×${columns}`;
  const once = "There is one place for it, so it gives one number, here added up row by row.";
  function draw(now, [unit, channel, , nAdded]) {
    const lit = nAdded - 1;
    values.paint(fills(now.column), `Channel ${channel} as a map of ${size}`, lit);
    weights.paint(fills(now.weights), `The weights of hidden unit ${unit} as a kernel of ${size}`, lit);
    products.paint(fills(now.products), `The first ${nAdded} of ${nTokens} products, as a map`, lit, nAdded);
    const rowFills = now.rowSums.map((sum) => fill(sum, now.rowLimit));
    sums.paint(rowFills, "The sum of each row of products", Math.floor(lit / columns), Math.ceil(nAdded / columns));
  }
  const fields = h("div", { class: "mx-fields" }, ...panels);
  const caption = note(`The kernel of ${size} covers the whole map of ${size}. ${once}`);
  return { el: h("section", {}, title("Convolution: a kernel on a map"), fields, caption), draw };
}

const both = (x) => [x, x];

/** A line of the table: a label, and the numbers of both views with the names of their sources. */
function line(label, numbers, names = ["", ""]) {
  const texts = numbers.map((number) => (number === undefined ? "–" : decimal(number, 5)));
  const cells = texts.map((text, i) => h("td", {}, h("span", { class: "mx-note" }, names[i]), " ", text));
  return h("tr", {}, h("th", { scope: "row" }, label), ...cells);
}

/** The numbers of both views side by side. */
function makeTable(columns, nTokens) {
  const corner = h("td");
  const body = h("tbody");
  const views = ["Token mixing", "Convolution"].map((view) => h("th", { scope: "col" }, view));
  function draw(now, [unit, channel, , nAdded]) {
    const t = nAdded - 1;
    const index = (text) => (nAdded ? text : "");
    const cell = index(`[${Math.floor(t / columns)}, ${t % columns}]`);
    const atEnd = (pair) => (nAdded === nTokens ? pair : both(undefined));
    say(corner, nAdded ? `Token ${t}` : "No token yet");
    body.replaceChildren(
      line("value", both(now.column[t]), [`LN(X)${index(`[${t}, ${channel}]`)}`, `map${cell}`]),
      line("× weight", both(now.weights[t]), [`W₁${index(`[${unit}, ${t}]`)}`, `kernel${cell}`]),
      line("= product", both(now.products[t])),
      line(`sum of ${nAdded} of ${nTokens}`, now.totals),
      line(`+ bias ${decimal(now.bias, 5)}`, atEnd(now.biased)),
      line("GELU: activation", atEnd(now.activations)),
    );
  }
  return { el: h("table", {}, h("thead", {}, h("tr", {}, corner, ...views)), body), draw };
}

/** The image with the patch of the token that was added last framed. */
function makePicture({ shape, grid: [rows, columns], imageOf }) {
  const canvas = picture();
  const frame = h("div", { class: "mx-lit" });
  function draw(now, [, , example, nAdded, down, right]) {
    const t = nAdded - 1;
    const [C, H, W] = shape;
    const size = H * W;
    const shift = [(down * H) / rows, (right * W) / columns];
    const channels = Array.from({ length: C }, (_, c) => rolled(rowOf(imageOf(example), c, size), [H, W], shift));
    drawImage(canvas, Uint8Array.from(channels.flatMap((channel) => [...channel])), shape);
    describe(canvas, `Image ${example}${nAdded ? `; the patch of token ${t} is framed` : ""}.`);
    const [left, top] = [(t % columns) / columns, Math.floor(t / columns) / rows];
    place(frame, { left, top, width: 1 / columns, height: 1 / rows });
    frame.hidden = nAdded === 0;
  }
  return { el: h("div", { class: "mx-picture" }, canvas, frame), draw };
}

/** A button that adds up the products one after the other. */
function makePlay(model, nTokens) {
  const begin = () => model.get("n_added") === nTokens && put(model, "n_added", 0);
  const step = () => {
    put(model, "n_added", Math.min(nTokens, model.get("n_added") + 1));
    return model.get("n_added") !== nTokens;
  };
  return playButton({ wait: PLAY_TIME / nTokens, begin, step, atOnce: false });
}

/** The facts in words. */
function factsOf(now, [unit, channel, , nAdded], nTokens) {
  const [left, right] = now.totals;
  const equal = Math.abs(left - right) < 1e-9 ? "are equal" : "differ";
  const sums = `${nAdded} of ${nTokens} products are added. The two sums ${equal}: ${decimal(left, 5)} and ${decimal(right, 5)}.`;
  if (nAdded < nTokens) return sums;
  const which = `the activation of unit ${unit} on channel ${channel}`;
  return `${sums} With the bias and through GELU, ${which} is ${decimal(now.activations[0], 5)}.`;
}

/** The values of the traits, in their order; an error, if one is not there to choose. */
function choicesOf(model, counts) {
  const choices = TRAITS.map((name) => model.get(name));
  const outside = TRAITS.find((name, i) => !isIndex(choices[i], counts[name]));
  if (outside) throw new Error(`there is no ${outside} ${model.get(outside)}`);
  return choices;
}

async function build(model, box) {
  const data = readState(model);
  const { calls } = await Engine.start(bytes(model.get("engine")));
  const gelu = (value) => calls.gelu(value, model.get("gelu") === "tanh");
  const { counts, grid, nTokens } = data;
  const play = makePlay(model, nTokens);
  const set = (name, value) => {
    if (name === "n_added") play.stop();
    put(model, name, value);
  };
  const pick = (token) => set("n_added", token + 1);
  const sliders = TRAITS.map((name, i) =>
    slider(LABELS[i], { max: counts[name] - 1, change: (value) => set(name, value) }),
  );
  const [tokenView, mapView] = [makeTokenView(nTokens, pick), makeMapView(grid, pick)];
  const [image, table, rival] = [makePicture(data), makeTable(grid[1], nTokens), makeRival(data, pick)];
  const [facts, scale] = [statusLine(), h("span", { class: "mx-scale" })];
  const key = note("Below 0 ", scale, ` ${COLOURS.join(" ")}`);
  const controls = h("div", { class: "mx-sliders" }, ...sliders.map(({ el }) => el), play.el);
  box.classList.add("mx-twin");
  box.append(
    title(`Token mixing of layer ${model.get("layer")}: one hidden unit, computed in two ways`),
    row(image.el, controls),
    h("div", { class: "mx-views" }, tokenView.el, mapView.el),
    table.el,
    facts,
    rival.el,
    key,
    note(HINT),
  );

  return () => {
    const choices = choicesOf(model, counts);
    sliders.forEach((each, i) => each.set(choices[i]));
    const now = compute(data, choices, gelu);
    for (const part of [image, tokenView, mapView, table, rival]) part.draw(now, choices);
    say(facts, factsOf(now, choices, nTokens));
    scale.style.background = `linear-gradient(to right, ${[-1, 0, 1].map((value) => fill(value, 1))})`;
  };
}

export default { render: (view) => live(view, TRAITS, build) };
