// The chosen layer of MixerFlow at large: where the chosen token comes from, its four tables, and what one unit adds.

import { cellOn, describe } from "./canvas.js";
import { makeCredit } from "./credit.js";
import { influenceRamp, makeInfluenceMap } from "./influence.js";
import { limitOf, numbersOf } from "./look.js";
import { makeCells } from "./tableview.js";
import { h, note, panel, say, slider, title } from "./page.js";

/** A large table of the look by its name and size; `isBlockOff` says of a scene whether its block is off. */
export function makeTable(look, about, isBlockOff = () => false) {
  const cells = makeCells(look, about);
  const [heading, caption] = [title(), note()];
  const draw = (scene, name, before) => {
    const off = isBlockOff(scene);
    const hides = off && name.endsWith("hidden");
    const numbers = hides ? undefined : numbersOf(scene, look, name, before);
    const limit = hides ? 1 : limitOf(scene, look, numbers, name);
    cells.draw(numbers, limit, scene.palette);
    const isAdded = look.added && (before ?? look.before[name]);
    say(heading, isAdded ? about.name.replace("After", "Added by") : about.name);
    const state = hides ? "off" : `±\u00a0${limit.toFixed(1)}${off ? ", off: nothing added" : ""}`;
    const words = `${about.size}, ${state}`;
    say(caption, words);
    describe(cells.canvas, `${heading.textContent}: ${words}.`);
  };
  return { el: panel("", heading, cells.el, caption), draw };
}

const patchAs = (t) => ({ about: { name: "Patch", rowIs: "token" }, row: t });

/** Call the look with the patch under the pointer on an image. */
function linkPatches(canvas, look, rows, columns) {
  canvas.addEventListener("pointermove", (event) => {
    const [y, x] = cellOn(canvas, event, rows, columns);
    look.point(patchAs(y * columns + x));
  });
  canvas.addEventListener("pointerleave", (event) => look.leave(event));
}

/** Influence of each token on the chosen one, drawn on its patch of the image. */
function makeInfluence(model, look, { H, W, rows, columns, nTokens }) {
  const { canvas, draw: drawSizes } = makeInfluenceMap([1, H, W], (t) => look.choose(patchAs(t)));
  const [heading, most] = [title(), h("span")];
  const text = (t) => `${t} ${look.place(t)}`;
  const token = slider("Token", { max: nTokens - 1, text, change: (t) => look.chooseToken(t) });
  linkPatches(canvas, look, rows, columns);
  const draw = ({ seen, sizes, token: chosen, layer, mixing, sources }) => {
    drawSizes(seen, [rows, columns], sizes, chosen);
    token.set(chosen);
    say(heading, `What token ${chosen} is mixed from`);
    legend.hidden = !mixing[layer];
    say(most, Math.max(...sizes).toFixed(2));
    describe(canvas, `The image with the influence on token ${chosen} in layer ${layer}. ${sources}`);
  };
  const legend = note("Influence: 0 ", influenceRamp(), " to ", most, ". White frame: the token.");
  return { el: panel("mx-look", heading, canvas, token.el, legend), draw };
}

const isOff = ({ mixing, layer }) => !mixing[layer];

/** The chosen layer at large: where the chosen token comes from, four tables, and one unit. */
export function makeLayer(model, look, mixer) {
  const { config, nTokens: T, rows, columns } = mixer;
  const [C, U, V] = [config.n_channel, config.n_hidden_token, config.n_hidden_channel];
  const map = makeInfluence(model, look, mixer);
  const table = { rows: T, rowIs: "token", grid: { rows, columns } };
  const stream = { ...table, columns: C, columnIs: "channel", size: `${T} tokens × ${C} channels` };
  const units = { unit: "hidden unit" };
  const ofToken = { rows: C, columns: U, rowIs: "channel", size: `${C} channels × ${U} hidden units`, ...units };
  const ofChannel = { ...table, columns: V, size: `${T} tokens × ${V} hidden units`, ...units };
  const tables = {
    "token_mixing.hidden": makeTable(look, { name: "Token mixing: hidden", ...ofToken }, isOff),
    token_mixing: makeTable(look, { name: "After token mixing", ...stream }, isOff),
    "channel_mixing.hidden": makeTable(look, { name: "Channel mixing: hidden", ...ofChannel }),
    channel_mixing: makeTable(look, { name: "After channel mixing", ...stream }),
  };
  const credit = makeCredit(look, mixer);
  const parts = h("div", { class: "mx-layer" }, map.el, ...Object.values(tables).map(({ el }) => el));
  const heading = title();
  const draw = (scene) => {
    say(heading, `Inside layer ${scene.layer}${scene.mixing[scene.layer] ? "" : ", its token mixing off"}`);
    map.draw(scene);
    credit.draw(scene);
    for (const name in tables) tables[name].draw(scene, `layers.${scene.layer}.${name}`);
  };
  return { el: h("div", {}, heading, parts, credit.el), draw };
}
