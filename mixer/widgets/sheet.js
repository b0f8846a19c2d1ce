// The sheet of TokenMixingExplorer: the maps of all units of a layer on one canvas, to choose a unit from.

import { colour, describe, drawMap, drawPixels, picture, pointerOn } from "./canvas.js";
import { largest } from "./numerics.js";
import { clamp, decimal, h, isDark, note, panel, place, put, say, stepOf, title } from "./page.js";

const TARGET = 44; // pixels of the smallest map that a finger finds
const LEAST_GAP = 4; // pixels between maps
const MOST_GAP = 12;
const BAR = 5; // pixels of the bar below a map, which says how strongly the unit fires
const PREVIEW = 12; // pixels between a map and its preview

/** So many maps in a row that each is a target for a finger, an even number, as maps may stand in pairs. */
function acrossOf({ columns, nAcross }, width) {
  const fits = (n) => Math.floor((width - (n - 1) * LEAST_GAP) / (n * columns)) * columns >= TARGET;
  let n = nAcross;
  while (n > 2 && !fits(n)) n -= 2 - (n % 2);
  return n;
}

/** Positions of the maps on a sheet of so many pixels; a weight has whole pixels; `paired` sets pairs apart. */
function layoutOf(library, width, paired) {
  const { rows, columns, nUnits } = library;
  const n = acrossOf(library, width);
  const gaps = n - 1 + (paired ? Math.ceil(n / 2) - 1 : 0);
  const size = Math.max(1, Math.floor((width - gaps * LEAST_GAP) / (n * columns))); // of one weight
  const [mapWidth, mapHeight] = [columns * size, rows * size];
  const gap = clamp(LEAST_GAP, Math.floor((width - n * mapWidth) / Math.max(1, gaps)), MOST_GAP);
  const left = (column) => column * (mapWidth + gap) + (paired ? Math.floor(column / 2) * gap : 0);
  const step = mapHeight + BAR + gap; // from row to row
  return {
    n,
    size,
    mapWidth,
    mapHeight,
    width: left(n - 1) + mapWidth,
    height: Math.ceil(nUnits / n) * step - gap,
    corner: (i) => [left(i % n), Math.floor(i / n) * step],
    find(x, y) {
      let column = n - 1;
      while (column > 0 && left(column) > x) column--;
      return clamp(0, Math.floor(y / step) * n + column, nUnits - 1);
    },
  };
}

/** Colours from -limit to limit, as pixels: 127 on either side of 0. */
function paletteOf(limit) {
  const colours = new Uint8ClampedArray(4 * 255).fill(255);
  for (let i = 0; i < 255; i++) colours.set(colour(((i - 127) / 127) * limit, limit, isDark()), 4 * i);
  return new Uint32Array(colours.buffer);
}

/** Draw the maps of all units, and below each a bar as long as its unit's share; between them the canvas stays clear. */
function drawMaps(canvas, { rows, columns }, layout, units, { numbers, limit }, shares) {
  const { size, width, mapWidth, mapHeight } = layout;
  const [palette, line] = [paletteOf(limit), new Uint32Array(mapWidth)];
  const ink = isDark() ? 0xff_ff_ff_ff : 0xff_00_00_00;
  drawPixels(canvas, width, layout.height, (data) => {
    const pixels = new Uint32Array(data.buffer);
    units.forEach((unit, i) => {
      const [left, top] = layout.corner(i);
      for (let y = 0; y < rows; y++) {
        for (let x = 0; x < columns; x++) {
          const share = Math.max(-1, Math.min(1, numbers[(unit * rows + y) * columns + x] / limit));
          line.fill(palette[Math.round(127 * share) + 127], x * size, (x + 1) * size);
        }
        for (let k = 0; k < size; k++) pixels.set(line, (top + y * size + k) * width + left);
      }
      if (!shares) return;
      for (let k = 1; k < BAR; k++) {
        const start = (top + mapHeight + k) * width + left;
        pixels.fill(ink, start, start + Math.round(mapWidth * shares[unit]));
      }
    });
  });
}

/** Frame the i-th map. */
function frameMap(frame, { corner, width, height, mapWidth, mapHeight }, i) {
  const [left, top] = corner(i);
  place(frame, { left: left / width, top: top / height, width: mapWidth / width, height: mapHeight / height });
}

/** Choice of a unit on the sheet, by a click or by the arrow keys; `hover` takes the place under the mouse, or -1. */
function listen(pad, canvas, shown, layout, choose, hover) {
  const placeUnder = (event) => {
    const [x, y] = pointerOn(canvas, event);
    return layout().find(x * canvas.width, y * canvas.height);
  };
  pad.addEventListener("click", (event) => choose(shown().units[placeUnder(event)]));
  pad.addEventListener("pointermove", (event) => event.pointerType === "mouse" && hover(placeUnder(event)));
  pad.addEventListener("pointerleave", () => hover(-1));
  pad.addEventListener("keydown", (event) => {
    const { n } = layout();
    const step = stepOf(event, { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -n, ArrowDown: n });
    if (!step) return;
    event.preventDefault();
    const { units, unit } = shown();
    const next = units.indexOf(unit) + step;
    if (next >= 0 && next < units.length) choose(units[next]);
  });
}

/** A large picture of the map under the mouse, beside it; a finger and the keys choose the unit, which shows the same. */
function makePreview({ rows, columns, nTokens }) {
  const [canvas, words] = [h("canvas"), h("span")];
  const el = h("div", { class: "mx-preview", "aria-hidden": "true" }, words, canvas);
  const draw = (layout, i, unit, { numbers, limit }, firing) => {
    el.classList.toggle("mixer-hidden", i < 0);
    if (i < 0) return;
    drawMap(canvas, numbers.subarray(unit * nTokens, (unit + 1) * nTokens), rows, columns, limit);
    say(words, `Unit ${unit}${firing ? ` fires with ${decimal(firing.activations[unit])}` : ""}`);
    const [left, top] = layout.corner(i);
    const isRight = left > layout.width / 2;
    el.style.left = isRight ? "auto" : `${left + layout.mapWidth + PREVIEW}px`;
    el.style.right = isRight ? `${layout.width - left + PREVIEW}px` : "auto";
    el.style.top = `${Math.max(0, Math.min(top, layout.height - 260))}px`;
  };
  return { el, draw };
}

/** What the sheet shows, in words: a heading, and how to read it. */
function readingOf({ layer, order, steps, maps, firing, isDrawn }, nUnits) {
  const limit = maps.limit.toPrecision(2);
  const lines = [
    isDrawn
      ? `Each map: what the patches of the drawing add to the unit's sum. Full colour from ±${limit} on.`
      : `Red: positive weight; blue: negative; full colour from ±${limit} on.`,
    firing && "Bar below a map: how strongly the unit fires for the drawing, in its strongest channel.",
    "Solid frame: the chosen unit; dashed: the one with the most opposite map.",
    order === "opposite" && "Of the units not yet in a pair, the most opposite two make the next.",
    steps.length > 1 && !isDrawn && "Scale and order are those of the last step.",
  ];
  const head = isDrawn ? "What the drawing adds at" : "Input maps of";
  return [`${head} the ${nUnits} hidden units of layer ${layer}`, lines.filter(Boolean).join(" ")];
}

/** The sheet with frames around the chosen unit and its most opposite one; `later` draws the figure anew. */
export function makeSheet(model, library, orders, shown, later) {
  const { rows, columns, nUnits } = library;
  const [chosen, opposite] = [h("div", { class: "mx-frame" }), h("div", { class: "mx-frame mx-dashed" })];
  const [canvas, preview] = [picture(), makePreview(library)];
  const name = "Maps of all units; the arrow keys choose one";
  const pad = h("div", { class: "mx-sheet", tabindex: 0, role: "group", "aria-label": name });
  pad.append(canvas, chosen, opposite, preview.el);
  const [heading, key, hint] = [title(), note(), note()];
  const el = panel("mx-whole", heading, pad, key, hint);
  const layout = () => layoutOf(library, el.clientWidth || 320, model.get("order") === "opposite");
  let [hovered, lastLook] = [-1, []];
  const choose = (unit) => put(model, "unit", unit);
  listen(pad, canvas, shown, layout, choose, (i) => {
    if (i !== hovered) later();
    hovered = i;
  });
  new ResizeObserver(later).observe(el);
  const draw = (scene) => {
    const { layer, unit, units, order, maps, firing, partner } = scene;
    const [now, places] = [readingOf(scene, nUnits), layout()];
    const look = [scene.m, scene.step, layer, order, isDark(), places.width, firing, maps.limit];
    if (look.some((part, i) => part !== lastLook[i])) {
      const most = firing && largest(firing.activations);
      const shares = firing?.activations.map((value) => Math.max(0, value) / most);
      drawMaps(canvas, library, places, units, maps, shares);
      pad.style.width = `${places.width}px`;
    }
    lastLook = look;
    frameMap(chosen, places, units.indexOf(unit));
    frameMap(opposite, places, units.indexOf(partner.unit));
    preview.draw(places, hovered, units[hovered], maps, firing);
    say(heading, now[0]);
    say(key, now[1]);
    const growth = scene.steps.length > 1 ? " Play the training to see the maps grow." : "";
    say(hint, `Click on a map, or walk with the arrow keys, to look into a unit.${growth}`);
    const words = `${nUnits} maps of ${rows} by ${columns} weights, ${orders[order]}`;
    describe(canvas, `${words}; the map of unit ${unit} is framed.`);
  };
  return { el, draw };
}
