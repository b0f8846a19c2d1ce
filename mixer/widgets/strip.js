// All tables of MixerFlow in the order in which the data flow, each in a small picture.

import { makeCells } from "./tableview.js";
import { describe } from "./canvas.js";
import { limitOf, numbersOf } from "./look.js";
import { h, note, panel, put, tick, title } from "./page.js";

/** One layer among the tables: a button that chooses it, and the switch of its token mixing. */
function makeLayerCard(model, i, size, cells) {
  cells.canvas.setAttribute("aria-hidden", "true"); // the button says what it is
  const look = { type: "button", "aria-label": `Look inside layer ${i}`, onclick: () => put(model, "layer", i) };
  const button = h("button", look, cells.el);
  const changed = (on) => model.get("mixing").map((old, k) => (k === i ? on : old));
  const box = tick("token mixing", { change: (on) => put(model, "mixing", changed(on)) });
  describe(box.input, `token mixing of layer ${i}`);
  return { el: panel("", title(`Layer ${i}`), button, note(size), box.el), cells, button, box };
}

/** A small picture of a table with its name and its size. */
function makeSmall(look, words, size, about) {
  const cells = makeCells(look, about);
  describe(cells.canvas, words);
  return { el: panel("", title(about.name), cells.el, note(size)), draw: cells.draw };
}

export function makeStrip(model, look, { config, nTokens: T, rows, columns, mean, std }) {
  const [P, C] = [config.patch_size, config.n_channel];
  const grid = { rows, columns };
  const table = { rows: T, columns: C, rowIs: "token", columnIs: "channel", grid };
  const pixels = { name: "Patches", rows: T, columns: P * P, rowIs: "token", unit: "pixel", grid, patch: P };
  const row = { name: "Mean", rows: 1, columns: C, columnIs: "channel", grid: { rows: 1, columns: 1 } };
  const size = `${T} × ${C}`;
  const patchWords = `The patches: a row of ${P * P} pixels for each of ${T} patches.`;
  const patches = makeSmall(look, patchWords, `${T} × ${P * P}`, pixels);
  const tokenWords = `The tokens: a row of ${C} numbers for each of ${T} patches.`;
  const tokens = makeSmall(look, tokenWords, size, { ...table, name: "Tokens" });
  const meanWords = `The mean over all ${T} rows, after the last LayerNorm: ${C} numbers.`;
  const pooled = makeSmall(look, meanWords, `1 × ${C}`, row);
  const layers = Array.from({ length: config.n_layers }, (_, i) =>
    makeLayerCard(model, i, size, makeCells(look, { ...table, name: `After layer ${i}` })),
  );
  const all = [patches.el, tokens.el, ...layers.map((card) => card.el), pooled.el];
  const grey = (value) => 255 * (value * std + mean);
  const draw = (scene) => {
    const { results, layer, mixing, palette } = scene;
    const show = (cells, name, before) => {
      const numbers = numbersOf(scene, look, name, before);
      cells.draw(numbers, limitOf(scene, look, numbers, name), palette);
    };
    patches.draw(results.patches.map(grey), 255, "grey");
    show(tokens, "tokens");
    show(pooled, "pooled");
    layers.forEach(({ cells, button, box }, i) => {
      show(cells, `layers.${i}.channel_mixing`, look.before[`layers.${i}.token_mixing`]);
      button.setAttribute("aria-pressed", i === layer);
      box.set(mixing[i]);
    });
  };
  return { el: h("div", { class: "mx-strip" }, ...all), draw };
}
