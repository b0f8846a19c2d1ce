// TokenMixingExplorer: the hidden units of token mixing as maps, over layers, models and the time of training.

import { makeDrawing } from "./drawing.js";
import { around, mapsAt, norm, dot, ORDERS, readLibrary } from "./library.js";
import { describe, drawImage, drawMap, drawRamp, picture } from "./canvas.js";
import { highest, isIndex, largest, rowOf } from "./numerics.js";
import {
  choice,
  clamp,
  decimal,
  h,
  isDark,
  live,
  note,
  panel,
  put,
  row,
  say,
  slider,
  statusLine,
  title,
} from "./page.js";
import { makeSheet } from "./sheet.js";
import { meanFrequency, spectrum, strongest } from "./spectrum.js";
import { makeTime } from "./timebar.js";

const TRAITS = ["layer", "unit", "step", "label", "order"];
const EXCITED =
  "Above: an image as the trained model sees it. Below: what each patch t contributes to unit u, " +
  "W₁[u, t] · LN(X)[t, c], in the channel c with the highest pre-activation. Under it: that pre-activation, the sum " +
  "of the contributions and the bias.";
const TRAINED =
  " They are those of the trained model at any step: the snapshots hold token mixing alone, so the tokens of an " +
  "earlier step are not known.";

/** Numbers stored as int8 with their scale, as float32. */
const scaled = (numbers, scale) => new Float32Array(numbers).map((number) => number * scale);

/** The image that excites a unit of a layer most, or the one of a later rank, and what its patches contribute. */
function excitationAt({ nUnits, nTokens, images, stored, pictureSize }, part, pixelOrder, layer, unit, rank) {
  const at = (layer * nUnits + unit) * images.n_top + rank;
  const chosen = part("chosen")[at];
  const image = rowOf(stored.images, chosen, pictureSize);
  const n = pixelOrder?.length;
  return {
    number: images.used[chosen],
    image: pixelOrder ? image.map((_, j) => image[j - (j % n) + pixelOrder[j % n]]) : image,
    channel: part("channels")[at],
    preActivation: part("pre_activations")[at],
    map: scaled(rowOf(part("contributions"), at, nTokens), part("contribution_scales")[at]),
  };
}

/** What the traits choose: model m, layer, unit and step, and the units in their order; an error, if it is not there. */
function choiceOf({ nLayers, nUnits, models, stored }, { label, step, layer, unit, order }) {
  const m = models.findIndex((one) => one.label === label);
  if (m < 0) throw new Error("it holds no model of this name");
  if (!isIndex(layer, nLayers) || !isIndex(unit, nUnits)) throw new Error("it holds no unit of this number");
  if (!Object.hasOwn(ORDERS, order)) throw new Error("it holds no order of this name");
  const { steps } = models[m];
  const last = Math.max(...models.map((one) => one.steps.at(-1))); // a kernel sets the label before the step
  if (!isIndex(step, last + 1)) throw new Error("it holds no training step of this number");
  const names = Object.keys(ORDERS);
  const units = [...rowOf(stored[`${m}.orders`], layer * names.length + names.indexOf(order), nUnits)];
  return { m, label, layer, unit, order, steps, step: clamp(steps[0], step, steps.at(-1)), units };
}

/** All that is stored of the layer and the unit that are chosen, at the step that is shown. */
function look(library, chosen) {
  const { nLayers, nUnits, models, stored } = library;
  const { m, layer, unit, steps, step } = chosen;
  const at = around(steps, step);
  const [inputs, outputs] = [0, 1].map((which) => mapsAt(library, m, at, layer, which));
  const [before, after] = [at.before, at.after].map(
    (i) => stored[`${m}.biases`][(i * nLayers + layer) * nUnits + unit],
  );
  const bias = before + at.share * (after - before);
  const part = (name) => stored[`${m}.${name}`];
  const excitation = (rank) => excitationAt(library, part, models[m].pixel_order, layer, unit, rank);
  const partner = mostOpposite(unit, nUnits, inputs.numbers);
  return { ...chosen, inputs, outputs, maps: inputs, bias, partner, excitation };
}

/** The unit whose map is most opposite to that of a unit, itself if it is alone, and the cosine between the two. */
function mostOpposite(unit, nUnits, numbers) {
  const maps = Array.from({ length: nUnits }, (_, i) => rowOf(numbers, i, numbers.length / nUnits));
  const [own, length] = [maps[unit], norm(maps[unit])];
  const cosines = maps.map((map, i) => (i === unit ? Infinity : dot(map, own) / (norm(map) * length || 1)));
  const cosine = Math.min(...cosines);
  return { unit: cosines.indexOf(cosine), cosine };
}

/** The places of the highest and the lowest value of a map, in words. */
function extremes(map, columns) {
  const said = (weight) => {
    const at = map.indexOf(weight);
    return `${decimal(weight)}, in row ${Math.floor(at / columns)}, column ${at % columns}`;
  };
  return `highest value, ${said(highest(map))}, and its lowest, ${said(-highest(map.map((value) => -value)))}`;
}

/** The choice of model, layer, order and unit. Each part of the figure is { el, draw }. */
function makeControls(model, { nLayers, nUnits, models }, shown) {
  const set = (name) => (value) => put(model, name, value);
  function chooseModel(label) {
    const { steps } = models.find((one) => one.label === label);
    if (model.get("step") > steps.at(-1)) model.set("step", steps.at(-1));
    put(model, "label", label);
  }
  const labels = models.map((one) => [one.label, one.label]);
  const label = choice("Model", labels, { change: chooseModel });
  const layer = slider("Layer", { max: nLayers - 1, change: set("layer") });
  const order = choice("Order", Object.entries(ORDERS), { change: set("order") });
  const unit = slider("Unit", {
    max: nUnits - 1,
    text: (i) => `${shown().units[i]} (place ${i + 1} of ${nUnits})`,
    change: (i) => put(model, "unit", shown().units[i]),
  });
  const parts = [models.length > 1 && label, nLayers > 1 && layer, order, unit].filter(Boolean);
  const draw = (now) => {
    label.set(now.label);
    layer.set(now.layer);
    order.set(now.order);
    unit.set(now.units.indexOf(now.unit));
  };
  return { el: h("div", { class: "mx-row mx-middle" }, ...parts.map((part) => part.el)), draw };
}

/** A map with a title, and with a strip of its colours and their two ends in numbers. */
function makeMap(name, kind, words, { rows, columns }) {
  const [canvas, ramp, low, high] = [picture(), h("canvas", { "aria-hidden": "true" }), h("span"), h("span")];
  const legend = h("span", { class: "mx-legend" }, low, ramp, high);
  const draw = ({ map, limit }, unit) => {
    const values = map(unit);
    drawMap(canvas, values, rows, columns, limit);
    drawRamp(ramp, 32);
    say(low, `−${limit.toPrecision(2)}`);
    say(high, `+${limit.toPrecision(2)}`);
    describe(canvas, `The ${kind} map of unit ${unit} has its ${extremes(values, columns)}.`);
    return values;
  };
  return { el: panel("", title(name), canvas, h("div", { class: "mx-note" }, legend, words)), draw };
}

/** One unit: its two maps, the spectrum of the first, and its facts in words. */
function makeUnit({ rows, columns }, isPlaying) {
  const input = makeMap("Input map", "input", "row of W₁: where it looks", { rows, columns });
  const output = makeMap("Output map", "output", "column of W₂: where it writes", { rows, columns });
  const canvas = picture();
  const zero = `row ${Math.floor(rows / 2)}, column ${Math.floor(columns / 2)}`;
  const words = h("div", { class: "mx-note" }, `of the input map; white: most power; frequency 0: ${zero}`);
  const [heading, facts] = [title(), statusLine()];
  const maps = h("div", { class: "mx-maps" }, input.el, output.el, panel("", title("Spectrum"), canvas, words));
  const draw = ({ layer, unit, steps, step, inputs, outputs, bias, partner }) => {
    const map = input.draw(inputs, unit);
    output.draw(outputs, unit);
    const power = spectrum(map, rows, columns);
    const brightness = 255 / largest(power);
    const grey = power.map((value) => brightness * value);
    drawImage(canvas, grey, [1, rows, columns]);
    describe(canvas, `The spectrum has most power at ${strongest(power, rows, columns)}.`);
    say(heading, `Unit ${unit} of layer ${layer}`);
    facts.setAttribute("aria-live", isPlaying() ? "off" : "polite"); // else every step that is played is read out
    const when = steps.length > 1 ? ` at training step ${step}` : "";
    const frequency = `mean frequency ${decimal(meanFrequency(power, rows, columns))} cycles per patch`;
    const { unit: other, cosine } = partner;
    const opposite = other === unit ? "" : ` Most opposite input map: unit ${other}, cosine ${decimal(cosine)}.`;
    const own = `input map with norm ${decimal(norm(map))} and ${frequency}; bias ${decimal(bias)}`;
    say(facts, `Unit ${unit} of layer ${layer}${when}: ${own}.${opposite}`);
  };
  return { el: h("div", {}, heading, maps, facts), draw };
}

/** The images that excite the unit most, and what their patches contribute. */
function makeExcited({ rows, columns, images }) {
  const places = Array.from({ length: images.n_top }, () => {
    const [image, map, caption] = [picture(), picture(), h("div", { class: "mx-note" })];
    return { el: panel("", image, map, caption), image, map, caption };
  });
  const heading = title();
  const reading = note();
  let last = "";
  const draw = ({ m, layer, unit, excitation, steps }) => {
    const now = [m, layer, unit, isDark()].join();
    if (now === last) return; // they are the same at every step
    last = now;
    const all = places.map((_, rank) => excitation(rank));
    const limit = Math.max(...all.map((one) => largest(one.map)));
    say(heading, `What excites unit ${unit} most`);
    say(reading, EXCITED + (steps.length > 1 ? TRAINED : ""));
    all.forEach(({ number, image, channel, preActivation, map }, rank) => {
      const one = places[rank];
      drawImage(one.image, image, images.shape);
      drawMap(one.map, map, rows, columns, limit);
      describe(one.image, `Image ${number}.`);
      describe(one.map, `The contributions of its patches have their ${extremes(map, columns)}.`);
      say(one.caption, `image ${number}, channel ${channel}: ${decimal(preActivation)}`);
    });
  };
  const maps = h("div", { class: "mx-maps mx-four" }, ...places.map((one) => one.el));
  return { el: h("div", {}, heading, maps, reading), draw };
}

async function build(model, box, later) {
  const library = await readLibrary(model);
  const shown = () => choiceOf(library, Object.fromEntries(TRAITS.map((name) => [name, model.get(name)])));
  const controls = makeControls(model, library, shown);
  const time = makeTime(model, library, shown);
  const sheet = makeSheet(model, library, ORDERS, shown, later);
  const drawing = await makeDrawing(model, library, later);
  const details = [makeUnit(library, time.isPlaying)];
  if (library.images) details.push(makeExcited(library));
  const unit = panel("mx-wide", ...details.map((part) => part.el));
  box.classList.add("mx-explorer");
  box.append(controls.el, time.el, sheet.el, row(drawing.el, unit));
  return () => {
    const start = performance.now();
    const scene = drawing.read(look(library, shown()));
    for (const part of [controls, time, sheet, drawing, ...details]) part.draw(scene);
    performance.measure("TokenMixingExplorer", { start, end: performance.now() });
  };
}

export default { render: (view) => live(view, TRAITS, build) };
