// ReachExplorer: the cells of a table that can depend on one of them, block after block.

import { describe } from "./canvas.js";
import { areSizes, isIndex, product } from "./numerics.js";
import { button, choice, h, isDark, live, note, panel, put, row, say, slider, statusLine, title } from "./page.js";

const TRAITS = ["token", "channel", "norm", "blocks"];
const LARGEST_TABLE = 512; // cells, as LARGEST in reach.py
const MOST_BLOCKS = 6;
const MIXINGS = { token: "token mixing", channel: "channel mixing" };
const NORM_CHOICES = [
  ["none", "left out"],
  ["channels", "over channels"],
  ["tokens_channels", "over tokens and channels"],
];
const NORM_NOTES = {
  none: "Without LayerNorm, a block mixes along one axis alone.",
  channels: "LayerNorm is the first step of a block. Over channels, it couples all cells of a row.",
  tokens_channels:
    "LayerNorm is the first step of a block. Over tokens and channels, it couples all cells of the table.",
};
const LEGEND =
  "The number in a cell is that of the block that reached it first: blue, token mixing; orange, channel mixing. " +
  "0 is the chosen cell; click on another to choose it. Only whether a cell can depend on it is shown, not how much.";
const ACROSS = 4; // maps in a row
const WAIT = 40; // milliseconds from a cell to the next one, when a block spreads
const PALETTES = {
  light: {
    none: ["#e6e8eb", "transparent"],
    start: ["#000", "#fff"],
    token: ["#0072b2", "#fff"],
    channel: ["#d55e00", "#000"],
  },
  dark: {
    none: ["#3a3f47", "transparent"],
    start: ["#fff", "#000"],
    token: ["#56b4e9", "#000"],
    channel: ["#f28c3c", "#000"],
  },
};

// ---------------------------------------------------------------------------------------------------- dependence

/** Cells that stand in one column, one row or one table with a cell of a set; a cell is token · nChannel + channel. */
function couple(cells, nChannel, along) {
  const lines = { column: (i) => i % nChannel, row: (i) => Math.floor(i / nChannel), table: () => 0 };
  const lineOf = lines[along];
  const coupled = new Set(cells.flatMap((isIn, i) => (isIn ? [lineOf(i)] : [])));
  return cells.map((_, i) => coupled.has(lineOf(i)));
}

/** The cells that a set reaches by LayerNorm, the first step of a block. */
function normalise(cells, nChannel, norm) {
  return norm === "none" ? cells : couple(cells, nChannel, norm === "channels" ? "row" : "table");
}

/**
 * The block that first reaches each cell from the one at `start`: 0 for itself, 1 for the first block, -1 for none.
 * Beside it, for each cell, whether that block's LayerNorm alone reaches it.
 */
function reachOf(nTokens, nChannel, start, blocks, norm) {
  const first = Array(nTokens * nChannel).fill(-1);
  const byNorm = first.map(() => false);
  first[start] = 0;
  blocks.forEach((block, k) => {
    const normed = normalise(
      first.map((by) => by >= 0),
      nChannel,
      norm,
    );
    const mixed = couple(normed, nChannel, block === "token" ? "column" : "row");
    first.forEach((by, i) => {
      if (by >= 0 || !mixed[i]) return; // the residual keeps what was reached
      first[i] = k + 1;
      byNorm[i] = normed[i];
    });
  });
  return { first, byNorm };
}

// ---------------------------------------------------------------------------------------------------- drawing

const text = (x, y, words, kind = "mx-name") => `<text class="${kind}" x="${x}" y="${y}">${words}</text>`;

/** A cell of a drawing as SVG, with room for its number. */
const cellAt = (i, x, y, width, height) =>
  `<g data-cell="${i}"><rect x="${x + 1}" y="${y + 1}" width="${width - 2}" height="${height - 2}"/>` +
  `${text(x + width / 2, y + height / 2, "", "")}</g>`;

/** A drawing of all cells. A click chooses one; `paint` colours them. */
function makeDrawing(width, height, parts, pick) {
  const el = h("div", { role: "img" });
  el.innerHTML = `<svg viewBox="0 0 ${width} ${height}">${parts.join("")}</svg>`;
  const cells = [...el.querySelectorAll("[data-cell]")];
  el.addEventListener("click", ({ target }) => {
    const cell = target.closest("[data-cell]");
    if (cell) pick(Number(cell.dataset.cell));
  });
  function paint(words, lookOf) {
    describe(el, words);
    for (const cell of cells) {
      const { fill, ink, number, wait } = lookOf(Number(cell.dataset.cell));
      Object.assign(cell.style, { fill, color: ink, transitionDelay: `${wait}ms` });
      say(cell.lastChild, number);
    }
  }
  return { el, paint };
}

/** The table: a row for each token, a column for each channel. */
function drawTable({ nTokens, nChannel }, pick) {
  const [left, top, width, height] = [30, 34, Math.max(18, 320 / nChannel), 24];
  const indices = Array.from({ length: nTokens * nChannel }, (_, i) => [i, Math.floor(i / nChannel), i % nChannel]);
  const tokens = Array.from({ length: nTokens }, (_, t) => text(left / 2, top + (t + 0.5) * height, t));
  const channels = Array.from({ length: nChannel }, (_, c) => text(left + (c + 0.5) * width, 24, c));
  const cells = indices.map(([i, t, c]) => cellAt(i, left + c * width, top + t * height, width, height));
  const names = [text(left + (nChannel * width) / 2, 8, "channel"), text(left / 2, 24, "token")];
  const parts = [...names, ...tokens, ...channels, ...cells];
  return makeDrawing(left + nChannel * width, top + nTokens * height, parts, pick);
}

/** The channel maps: the cells of each channel on the grid of patches. */
function drawMaps({ grid, nTokens, nChannel }, pick) {
  const [rows, columns] = grid;
  const [side, gap, top] = [Math.max(6, Math.min(24, 88 / columns)), 10, 18];
  const [mapWidth, mapHeight] = [columns * side, rows * side];
  const parts = [];
  for (let c = 0; c < nChannel; c++) {
    const [x, y] = [(c % ACROSS) * (mapWidth + gap), Math.floor(c / ACROSS) * (top + mapHeight + gap)];
    parts.push(text(x + mapWidth / 2, y + 9, c));
    for (let t = 0; t < nTokens; t++)
      parts.push(
        cellAt(t * nChannel + c, x + (t % columns) * side, y + top + Math.floor(t / columns) * side, side, side),
      );
  }
  const [nAcross, nDown] = [Math.min(ACROSS, nChannel), Math.ceil(nChannel / ACROSS)];
  return makeDrawing(nAcross * (mapWidth + gap) - gap, nDown * (top + mapHeight + gap) - gap, parts, pick);
}

// ---------------------------------------------------------------------------------------------------- the figure

/** The sizes of the state, checked. */
function readSizes(model) {
  const [grid, nChannel] = [model.get("grid"), model.get("n_channel")];
  const right = areSizes(grid, 2) && areSizes([nChannel], 1) && product(grid) * nChannel <= LARGEST_TABLE;
  if (!right) throw new Error("its sizes are damaged or incomplete");
  return { grid, nChannel, nTokens: product(grid) };
}

/** What the reader chose, checked. */
function readChoices(model, { nTokens, nChannel }) {
  const [token, channel, norm, blocks] = TRAITS.map((name) => model.get(name));
  if (!isIndex(token, nTokens)) throw new Error(`there is no token ${token}`);
  if (!isIndex(channel, nChannel)) throw new Error(`there is no channel ${channel}`);
  if (!Object.hasOwn(NORM_NOTES, norm)) throw new Error(`there is no LayerNorm of the kind ${norm}`);
  const known = Array.isArray(blocks) && blocks.every((block) => Object.hasOwn(MIXINGS, block));
  if (!known || blocks.length > MOST_BLOCKS) throw new Error("its blocks are not known or too many");
  return { token, channel, norm, blocks };
}

/** The cells that can depend on the chosen one, in words. */
function wordsFor(first, { grid, nTokens, nChannel }, { token, channel }) {
  const [n, all] = [first.filter((by) => by >= 0).length, nTokens * nChannel];
  const place = `row ${Math.floor(token / grid[1])}, column ${token % grid[1]} of the image's grid`;
  const isColumn = first.every((by, i) => by < 0 || i % nChannel === channel);
  const line = isColumn ? `the column of channel ${channel}` : `the row of token ${token}`;
  const shape = n === 1 ? "itself alone" : n === all ? "the whole table" : line;
  return `${n} of ${all} cells can depend on channel ${channel} of token ${token} (${place}): ${shape}.`;
}

/** Sliders, the choice of LayerNorm, and a button for each block. */
function makeControls(model, { nTokens, nChannel }) {
  const token = slider("Token", { max: nTokens - 1, change: (i) => put(model, "token", i) });
  const channel = slider("Channel", { max: nChannel - 1, change: (i) => put(model, "channel", i) });
  const norm = choice("LayerNorm", NORM_CHOICES, { change: (kind) => put(model, "norm", kind) });
  const run = (block) => {
    const blocks = model.get("blocks");
    if (blocks.length < MOST_BLOCKS) put(model, "blocks", [...blocks, block]);
  };
  const buttons = [
    button("Token mixing", () => run("token")),
    button("Channel mixing", () => run("channel")),
    button("Start again", () => put(model, "blocks", [])),
  ];
  const normNote = note();
  function draw(chosen) {
    token.set(chosen.token);
    channel.set(chosen.channel);
    norm.set(chosen.norm);
    say(normNote, NORM_NOTES[chosen.norm]);
  }
  const el = h("div", {}, row(token.el, channel.el, norm.el), normNote, row(...buttons));
  return { el, draw };
}

/** How each cell looks: its colours, its number, and how long it waits for its turn when the last block spreads. */
function looksOf({ first, byNorm }, { nChannel }, { token, channel, blocks }) {
  const palette = PALETTES[isDark() ? "dark" : "light"];
  return (i) => {
    const by = first[i];
    const kind = by < 0 ? "none" : by ? blocks[by - 1] : "start";
    const [fill, ink] = palette[kind];
    const far = kind === "token" ? Math.floor(i / nChannel) - token : (i % nChannel) - channel;
    const isNew = by > 0 && by === blocks.length && !byNorm[i];
    return { fill, ink, number: by < 0 ? "" : String(by), wait: isNew ? WAIT * Math.abs(far) : 0 };
  };
}

function build(model, box) {
  const sizes = readSizes(model);
  const { nTokens, nChannel } = sizes;
  const pick = (i) => {
    model.set("token", Math.floor(i / nChannel));
    put(model, "channel", i % nChannel);
  };
  const [controls, table, maps, facts] = [
    makeControls(model, sizes),
    drawTable(sizes, pick),
    drawMaps(sizes, pick),
    statusLine(),
  ];
  const [heading, mapHeading] = [
    title(),
    title(`The same cells as ${nChannel} channel maps, on the image's grid of patches`),
  ];
  box.classList.add("mx-reach");
  box.append(
    controls.el,
    facts,
    row(panel("mx-wide", heading, table.el), panel("mx-wide", mapHeading, maps.el)),
    note(LEGEND),
  );
  say(heading, `Table: ${nTokens} tokens × ${nChannel} channels`);

  return () => {
    const chosen = readChoices(model, sizes);
    const { token, channel, norm, blocks } = chosen;
    const result = reachOf(nTokens, nChannel, token * nChannel + channel, blocks, norm);
    const looks = looksOf(result, sizes, chosen);
    const ran = blocks.map((block, k) => `${k + 1} ${MIXINGS[block]}`).join(" → ");
    const words = wordsFor(result.first, sizes, chosen);
    const full = blocks.length === MOST_BLOCKS ? " No more blocks fit: start again." : "";
    controls.draw(chosen);
    say(facts, `${ran ? `After ${ran}` : "Before any block"}: ${words}${full}`);
    table.paint(`The table. ${words}`, looks);
    maps.paint(`The channel maps. ${words}`, looks);
  };
}

export default { render: (view) => live(view, TRAITS, build) };
