// What one hidden unit of token mixing adds to the logit of each class, for the image that the Mixer has just read.

import { describe, drawMap, picture } from "./canvas.js";
import { tensorsOf } from "./engine.js";
import { decimal, h, note, row, say, slider, title } from "./page.js";

const ADDED =
  "Added by the unit, for the image on the board: its output map times its activation in each channel, read by the " +
  "head, whose LayerNorm divides by the standard deviation that it has now. From the number of each class " +
  "the mean over all classes is subtracted.";

/** With its sign, unless it is rounded to 0. */
const withSign = (value) => (Number(value.toFixed(3)) > 0 ? "+" : "") + decimal(value, 3);
const averageOf = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** The mean of each channel after the head's LayerNorm, if a table were a part of the last one, `end`. */
function pooledPart(part, end, weight, { norm, eps, n_channel: C }) {
  const length = norm === "channels" ? C : end.length; // of what has one mean
  const pooled = new Float64Array(C);
  for (let start = 0; start < end.length; start += length) {
    const [whole, added] = [end, part].map((table) => table.subarray(start, start + length));
    const [mean, own] = [averageOf(whole), averageOf(added)];
    const scale = Math.sqrt(averageOf(Float64Array.from(whole, (value) => (value - mean) ** 2)) + eps);
    added.forEach((value, i) => (pooled[(start + i) % C] += ((value - own) / scale) * weight[i]));
  }
  return pooled.map((sum) => (sum * C) / end.length);
}

/**
 * What unit `unit` of the token mixing of a layer adds to the logit of each class, less the mean over the classes.
 * `tensor` gives a weight by its name, `results` are the tables of the image.
 */
export function creditOf(config, tensor, results, layer, unit) {
  const [C, U, K] = [config.n_channel, config.n_hidden_token, config.n_output];
  const hidden = results[`layers.${layer}.token_mixing.hidden`]; // [C, U]
  const end = results[`layers.${config.n_layers - 1}.channel_mixing`]; // [nTokens, C]
  const W2 = tensor(`layers.${layer}.token_mixing.fc2.weight`); // [nTokens, U]
  const part = Float64Array.from(end, (_, i) => W2[Math.floor(i / C) * U + unit] * hidden[(i % C) * U + unit]);
  const pooled = pooledPart(part, end, tensor("output.norm.weight"), config);
  const head = tensor("output.linear.weight"); // [K, C]
  const logits = Array.from({ length: K }, (_, k) =>
    pooled.reduce((sum, value, c) => sum + head[k * C + c] * value, 0),
  );
  const mean = averageOf(logits);
  return logits.map((logit) => logit - mean);
}

/** A bar for each class, to the right of the middle above 0 and to the left below. */
function makeSignedBars(names) {
  const bars = names.map((name) => {
    const [bar, number] = [h("div"), h("span")];
    return { bar, number, el: h("li", {}, h("span", {}, name), h("div", {}, bar), number) };
  });
  const draw = (values) => {
    const limit = Math.max(0.1, ...values.map(Math.abs));
    bars.forEach(({ bar, number }, i) => {
      const width = (50 * Math.abs(values[i])) / limit;
      bar.style.width = `${width}%`;
      bar.style.marginLeft = `${values[i] < 0 ? 50 - width : 50}%`;
      say(number, withSign(values[i]));
    });
  };
  return { el: h("ul", {}, ...bars.map(({ el }) => el)), draw };
}

/** The part of a look inside that shows one unit of the chosen layer: its maps, and what it adds to each class. */
export function makeCredit(look, { config, weights, names, rows, columns, nTokens: T }) {
  const U = config.n_hidden_token;
  const places = new Map(tensorsOf(config).map(([name], i) => [name, i]));
  const tensor = (name) => weights[places.get(name)];
  let unit = 0;
  const change = (chosen) => {
    unit = chosen;
    look.later();
  };
  const [heading, words, bars] = [title(), note(), makeSignedBars(names)];
  const choose = slider("Unit", { max: U - 1, change });
  const maps = ["Input map", "Output map"].map((name) => ({ name, canvas: picture() }));
  const drawn = maps.map(({ name, canvas }) => h("div", {}, note(name), canvas));
  const el = h("div", { class: "mx-credit" }, heading, choose.el, row(...drawn, bars.el), words, note(ADDED));
  const draw = ({ layer, mixing, results, palette }) => {
    choose.set(unit);
    const name = `layers.${layer}.token_mixing`;
    const [W1, W2] = [tensor(`${name}.fc1.weight`), tensor(`${name}.fc2.weight`)]; // [U, T] and [T, U]
    const read = [W1.subarray(unit * T, (unit + 1) * T), Float32Array.from({ length: T }, (_, t) => W2[t * U + unit])];
    maps.forEach(({ name: kind, canvas }, i) => {
      drawMap(canvas, read[i], rows, columns, undefined, palette === "dark");
      describe(canvas, `${kind} of unit ${unit} of the token mixing in layer ${layer}`);
    });
    const values = mixing[layer] ? creditOf(config, tensor, results, layer, unit) : names.map(() => 0);
    bars.draw(values);
    say(heading, `What unit ${unit} of token mixing ${layer} adds to each class`);
    const [most, least] = [Math.max(...values), Math.min(...values)].map((value) => [value, values.indexOf(value)]);
    const sentence = `Most to ${names[most[1]]}, ${withSign(most[0])}; least to ${names[least[1]]}, ${withSign(least[0])}.`;
    say(words, mixing[layer] ? sentence : "Token mixing is off in this layer: it adds nothing.");
  };
  return { el, draw };
}
