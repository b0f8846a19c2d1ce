// CostExplorer: where the parameters and the multiply-adds of a Mixer lie, as its sizes change.

import { COST_TRAITS, nearestPatch, patchSizesOf, readScene, readSettings, totalOf } from "./counting.js";
import {
  button,
  choice,
  h,
  isDark,
  live,
  note,
  panel,
  percent,
  put,
  row,
  say,
  slider,
  statusLine,
  timeRow,
  title,
} from "./page.js";

const LABELS = {
  image_size: "Image side",
  patch_size: "Patch size",
  n_channel: "Channels",
  n_layers: "Layers",
  n_hidden_token: "Token-mixing units",
  n_hidden_channel: "Channel-mixing units",
};
const STOPS = {
  image_size: [8, 16, 32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512],
  n_channel: [8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1280, 1536, 2048],
  n_layers: [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 28, 32, 40, 48],
  n_hidden_token: [8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 640, 768, 1024, 1536, 2048],
  n_hidden_channel: [16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 5120, 8192],
};
const NORM_WORDS = [
  ["tokens_channels", "over tokens and channels"],
  ["channels", "over channels"],
];
const INKS = {
  light: {
    per_patch: "#009e73",
    token_mixing: "#0072b2",
    channel_mixing: "#d55e00",
    norm: "#969696",
    output: "#cc79a7",
    core: "#4d4d4d",
    linear: "#e69f00",
  },
  dark: {
    per_patch: "#2ec4a0",
    token_mixing: "#56b4e9",
    channel_mixing: "#f28c3c",
    norm: "#8a8f98",
    output: "#e39bc6",
    core: "#e6e8eb",
    linear: "#e69f00",
  },
};
const BLOCKS = { per_patch: 0, token_mixing: 0, channel_mixing: 0, norm: 0, output: 0 };
const MIXINGS = { token_mixing: "token mixing", core: "attention: core", linear: "attention: linear layers" };
const HINT =
  "Multiply-adds are those of the linear layers for one image; biases, GELU, LayerNorm and the mean are left out. " +
  "Attention stands in the place of token mixing in every layer: its core takes 2·S²·C multiply-adds, its four " +
  "linear layers 4·S·C², for S tokens and C channels.";

const counted = (n) => n.toLocaleString("en-US");
const times = (n) => (n >= 100 ? counted(Math.round(n)) : n.toPrecision(3));

/** A slider over the values that a size can have; one that it has and that is not among them joins them. */
function sizeSlider(name, settings, change) {
  const own = [...settings.values()].map((sizes) => sizes[name]);
  const stops = new Set([...(STOPS[name] ?? []), ...own]);
  let values = [];
  const { el, set, range } = slider(LABELS[name], { text: (i) => String(values[i]), change: (i) => change(values[i]) });
  el.firstChild.style.minWidth = "9.5rem"; // of the longest label, so that the sliders stand below each other
  function draw(sizes) {
    stops.add(sizes[name]);
    values = name === "patch_size" ? patchSizesOf(sizes.image_size) : [...stops].toSorted((a, b) => a - b);
    range(values.length - 1);
    set(values.indexOf(sizes[name]));
  }
  return { el, draw };
}

/** The named settings, the kind of LayerNorm, and a slider for each size. */
function makeControls(model, settings) {
  const resize = (sizes) => put(model, "sizes", sizes);
  const start = (name) => {
    model.set("setting", name);
    resize({ ...settings.get(name) });
  };
  const names = [...settings.keys()].map((name) => [name, name]);
  const setting = choice("Start from", names, { change: start });
  const norm = choice("LayerNorm", NORM_WORDS, { change: (kind) => resize({ ...model.get("sizes"), norm: kind }) });
  let [wanted, fitted] = []; // the patch size that was chosen last, and sizes in which it gave way to the image's
  const change = (name, value) => {
    const sizes = { ...model.get("sizes"), [name]: value };
    if (name === "image_size") sizes.patch_size = nearestPatch(value, wanted);
    if (name === "image_size") fitted = sizes;
    resize(sizes);
  };
  const sliders = Object.keys(LABELS).map((name) => sizeSlider(name, settings, (value) => change(name, value)));
  const back = button("", () => resize({ ...settings.get(model.get("setting")) }));
  function draw({ sizes, setting: chosen }) {
    if (sizes !== fitted) wanted = sizes.patch_size;
    setting.set(chosen);
    norm.set(sizes.norm);
    for (const each of sliders) each.draw(sizes);
    say(back, `Back to ${chosen}`);
  }
  const el = h("div", {}, row(setting.el, norm.el), timeRow(...sliders.map((each) => each.el)), back);
  return { el, draw };
}

/** A bar of several parts under its name and total; `draw` takes the counts of its parts and the total of a full bar. */
function makeBar() {
  const [name, total, drawing] = [h("span"), h("span"), h("div", { role: "img" })];
  const head = h("div", { style: "display: flex; justify-content: space-between; gap: 1rem" }, name, total);
  const style = "display: block; width: 100%; height: 1.2rem; forced-color-adjust: none";
  function draw(words, counts, most) {
    const inks = INKS[isDark() ? "dark" : "light"];
    let x = 0;
    const parts = Object.entries(counts).map(([block, n]) => {
      const part = `<rect x="${x / most}" width="${n / most}" height="1" fill="${inks[block]}"/>`;
      x += n;
      return part;
    });
    drawing.innerHTML = `<svg viewBox="0 0 1 1" preserveAspectRatio="none" style="${style}">${parts.join("")}</svg>`;
    const shares = Object.entries(counts).map(([block, n]) => `${block} ${percent(n / (x || 1))}`);
    drawing.setAttribute("aria-label", `${words}: ${counted(x)}; ${shares.join(", ")}`);
    say(name, words);
    say(total, counted(x));
  }
  return { el: h("div", { style: "margin-bottom: 0.4rem" }, head, drawing), draw };
}

/** Two bars of the same kind of count: of the sizes that are chosen, and of those that they began with. */
function makePair(words, kind) {
  const [now, before] = [makeBar(), makeBar()];
  const el = panel("mx-wide", title(words), now.el, before.el);
  function draw({ setting, ...scene }) {
    const [mine, others] = [scene.now[kind], scene.before[kind]];
    const most = Math.max(totalOf(mine), totalOf(others));
    now.draw("now", mine, most);
    before.draw(setting, others, most);
  }
  return { el, draw };
}

/** Token mixing beside the attention that could stand in its place. */
function makeMixings() {
  const [mixing, attention] = [makeBar(), makeBar()];
  const el = panel("mx-wide", title("Mixing the tokens, multiply-adds"), mixing.el, attention.el);
  function draw({ now }) {
    const tokenMixing = { token_mixing: now.multiplyAdds.token_mixing };
    const most = Math.max(totalOf(tokenMixing), totalOf(now.attention));
    mixing.draw("token mixing", tokenMixing, most);
    attention.draw("self-attention: core and linear layers", now.attention, most);
  }
  return { el, draw };
}

/** The counts as a table, with the colour of each line in the bars. */
function makeTable() {
  const swatch = "display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.4em; forced-color-adjust: none";
  const makeLine = ([name, words]) => {
    const mark = h("span", { style: swatch });
    const cells = ["parameters", "multiplyAdds"].map((kind) => ({ kind, el: h("td", { style: "text-align: right" }) }));
    const el = h("tr", {}, h("th", { scope: "row" }, mark, words), ...cells.map((cell) => cell.el));
    return { name, mark, cells, el };
  };
  const words = Object.keys(BLOCKS).map((name) => [name, name]);
  const lines = [...words, ["sum", "sum"], ["core", MIXINGS.core], ["linear", MIXINGS.linear]].map(makeLine);
  const heads = ["block", "parameters", "multiply-adds"].map((head, i) =>
    h("th", { scope: "col", style: `text-align: ${i ? "right" : "left"}` }, head),
  );
  const body = h("tbody", {}, ...lines.map(({ el }) => el));
  const table = h("table", { style: "width: auto" }, h("thead", {}, h("tr", {}, ...heads)), body);
  function draw({ now }) {
    const inks = INKS[isDark() ? "dark" : "light"];
    for (const { name, mark, cells } of lines) {
      mark.style.background = inks[name] ?? "none";
      for (const { kind, el } of cells) {
        const n = name === "sum" ? totalOf(now[kind]) : (now[kind][name] ?? now.attention[name]);
        say(el, name in now.attention && kind === "parameters" ? "" : counted(n));
      }
    }
  }
  return { el: panel("mx-wide mx-compare", table), draw };
}

/** The sums in words, and how often those of the start and of attention go into them. */
function sumsInWords({ setting, now, before }) {
  const [parameters, multiplyAdds] = ["parameters", "multiplyAdds"].map((kind) => [
    totalOf(now[kind]),
    totalOf(before[kind]),
  ]);
  const compared = ([n, first]) =>
    n === first ? `as many as for ${setting}` : `${times(n / first)} times those for ${setting}`;
  const sums = `${counted(now.nTokens)} tokens. ${counted(parameters[0])} parameters, ${compared(parameters)}; `;
  const { core, linear } = now.attention;
  const [alone, all] = [core, core + linear].map((n) => times(n / now.multiplyAdds.token_mixing));
  const attention = `The core of attention takes ${alone} times the multiply-adds of token mixing, with its linear layers ${all} times.`;
  return `${sums}${counted(multiplyAdds[0])} multiply-adds, ${compared(multiplyAdds)}. ${attention}`;
}

function build(model, box) {
  const settings = readSettings(model);
  const controls = makeControls(model, settings);
  const pairs = [makePair("Parameters", "parameters"), makePair("Multiply-adds of one image", "multiplyAdds")];
  const [mixings, table, facts] = [makeMixings(), makeTable(), statusLine()];
  box.classList.add("mx-cost");
  box.append(controls.el, facts, row(...pairs.map(({ el }) => el)), row(mixings.el, table.el), note(HINT));

  return () => {
    const scene = readScene(model, settings);
    for (const part of [controls, ...pairs, mixings, table]) part.draw(scene);
    say(facts, sumsInWords(scene));
  };
}

export default { render: (view) => live(view, COST_TRAITS, build) };
