// The chosen layer of MixerFlow at large: where the chosen token comes from, and the four tables of the layer.

import { cellOn, describe, drawImage, drawMap, enlarge, picture } from "./canvas.js";
import { largest } from "./numerics.js";
import { h, note, panel, put, row, say, slider, title } from "./page.js";

const INK = [255, 140, 0]; // colour of influence on the image, the more opaque the larger
const DIM = 0.5; // brightness of the image behind it

/** A large table by its name. Where its rows are tokens, one is framed, and a click chooses another. */
export function makeTable(model, name, size, [rows, columns], ofTokens) {
  const canvas = picture();
  const frame = h("div", { style: `height: ${100 / rows}%` });
  const table = h("div", { class: "mx-table" }, canvas);
  const caption = note();
  if (ofTokens) {
    table.append(frame);
    table.addEventListener("click", (event) => put(model, "token", cellOn(table, event, rows, columns)[0]));
  }
  const draw = (values, { token, dark }) => {
    const limit = largest(values);
    drawMap(canvas, values, rows, columns, limit, dark);
    frame.style.top = `${(100 * token) / rows}%`;
    const words = `${size}, ±\u00a0${limit.toFixed(1)}`;
    say(caption, words);
    describe(canvas, `${name}: ${words}.`);
  };
  return { el: panel("", title(name), table, caption), draw };
}

/** Influence of each token on the chosen one, drawn on its patch of the image. */
function makeInfluence(model, { H, W, rows, columns, nTokens }) {
  const scale = Math.ceil(280 / W);
  const canvas = picture();
  Object.assign(canvas, { width: W * scale, height: H * scale });
  const copy = h("canvas");
  const heading = title();
  const ramp = h("span", { class: "mx-ramp", style: `background: linear-gradient(to right, #000, rgb(${INK}))` });
  const most = h("span");
  const text = (t) => `${t} (row ${Math.floor(t / columns)}, column ${t % columns})`;
  const token = slider("Token", { max: nTokens - 1, text, change: (t) => put(model, "token", t) });
  canvas.addEventListener("click", (event) => {
    const [y, x] = cellOn(canvas, event, rows, columns);
    put(model, "token", y * columns + x);
  });
  const [width, height] = [canvas.width / columns, canvas.height / rows];
  const corner = (t) => [(t % columns) * width, Math.floor(t / columns) * height];
  const draw = ({ seen, sizes, token: chosen, layer, mixing, sources }) => {
    const dimmed = seen.map((value) => DIM * value);
    drawImage(copy, dimmed, [1, H, W]);
    const context = enlarge(copy, canvas);
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
    say(heading, `What token ${chosen} is mixed from`);
    legend.hidden = !mixing[layer];
    say(most, Math.max(...sizes).toFixed(2));
    describe(canvas, `The image with the influence on token ${chosen} in layer ${layer}. ${sources}`);
  };
  const legend = note("Influence: 0 ", ramp, " to ", most, ". White frame: the token.");
  return { el: panel("mx-look", heading, canvas, token.el, legend), draw };
}

/** The chosen layer at large: where the chosen token comes from, and four tables. */
export function makeLayer(model, mixer) {
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
    say(heading, `Inside layer ${scene.layer}${scene.mixing[scene.layer] ? "" : ", its token mixing off"}`);
    map.draw(scene);
    for (const name in tables) tables[name].draw(scene.results[`layers.${scene.layer}.${name}`], scene);
  };
  return { el: h("div", {}, heading, row(map.el, grid)), draw };
}
