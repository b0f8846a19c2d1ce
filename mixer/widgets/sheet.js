// The sheet of TokenMixingExplorer: the input maps of all units of a layer on one canvas, to choose a unit from.

import { colour, describe, drawPixels, picture, pointerOn } from "./canvas.js";
import { h, isDark, note, panel, place, put, say, title } from "./page.js";

const MAP_SIDE = 28; // of a map on the sheet, in about so many pixels
const GAP = 4; // pixels between maps

/** Positions of the maps on the sheet, in its pixels; `paired` leaves more room after every second one. */
function layoutOf({ rows, columns, nUnits, nAcross }, paired) {
  const side = Math.max(rows, columns);
  const size = side > MAP_SIDE ? 1 : Math.max(2, Math.round(MAP_SIDE / side)); // of one weight
  const [mapWidth, mapHeight] = [columns * size, rows * size];
  const left = (column) => column * (mapWidth + GAP) + (paired ? Math.floor(column / 2) * GAP : 0);
  return {
    size,
    mapWidth,
    mapHeight,
    width: left(nAcross - 1) + mapWidth,
    height: Math.ceil(nUnits / nAcross) * (mapHeight + GAP) - GAP,
    corner: (i) => [left(i % nAcross), Math.floor(i / nAcross) * (mapHeight + GAP)],
    find(x, y) {
      let column = nAcross - 1;
      while (column > 0 && left(column) > x) column--;
      return Math.min(nUnits - 1, Math.floor(y / (mapHeight + GAP)) * nAcross + column);
    },
  };
}

/** Draw the maps of all units; between them the canvas stays clear. */
function drawMaps(canvas, { rows, columns }, layout, units, { numbers, scale, limit }) {
  const dark = isDark();
  const palette = new Uint8ClampedArray(4 * 256).fill(255);
  for (let number = -127; number < 128; number++) palette.set(colour(number * scale, limit, dark), 4 * (number & 255));
  const colours = new Uint32Array(palette.buffer);
  drawPixels(canvas, layout.width, layout.height, (data) => {
    const pixels = new Uint32Array(data.buffer);
    units.forEach((unit, i) => {
      const [left, top] = layout.corner(i);
      for (let y = 0; y < layout.mapHeight; y++) {
        const first = (unit * rows + Math.floor(y / layout.size)) * columns;
        const start = (top + y) * layout.width + left;
        for (let x = 0; x < layout.mapWidth; x++)
          pixels[start + x] = colours[numbers[first + Math.floor(x / layout.size)] & 255];
      }
    });
  });
}

/** Frame the i-th map. */
function frameMap(frame, { corner, width, height, mapWidth, mapHeight }, i) {
  const [left, top] = corner(i);
  place(frame, { left: left / width, top: top / height, width: mapWidth / width, height: mapHeight / height });
}

/** Choice of a unit on the sheet, by a click or by the arrow keys. */
function listen(pad, canvas, nAcross, shown, layout, choose) {
  pad.addEventListener("click", (event) => {
    const [x, y] = pointerOn(canvas, event);
    choose(shown().units[layout().find(x * canvas.width, y * canvas.height)]);
  });
  pad.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -nAcross, ArrowDown: nAcross }[event.key];
    if (!step) return;
    event.preventDefault();
    const { units, unit } = shown();
    const next = units.indexOf(unit) + step;
    if (next >= 0 && next < units.length) choose(units[next]);
  });
}

/** The sheet with frames around the chosen unit and its most opposite one. */
export function makeSheet(model, library, orders, shown) {
  const { rows, columns, nUnits, nAcross } = library;
  const layout = () => layoutOf(library, model.get("order") === "opposite");
  const canvas = picture();
  const [chosen, opposite] = [h("div", { class: "mx-frame" }), h("div", { class: "mx-frame mx-dashed" })];
  const keys = "Maps of all units; the arrow keys choose one";
  const pad = h("div", { class: "mx-sheet", tabindex: 0, role: "group", "aria-label": keys }, canvas, opposite, chosen);
  listen(pad, canvas, nAcross, shown, layout, (unit) => put(model, "unit", unit));
  const [heading, key, hint] = [title(), note(), note()];
  let lastLook = ""; // what the sheet shows: it is not drawn again when only the chosen unit changes
  const draw = ({ label, layer, unit, order, units, inputs, partner, steps }) => {
    const lines = [
      `Red: positive weight; blue: negative; full colour from ±${inputs.limit.toPrecision(2)} on.`,
      "Solid frame: the chosen unit; dashed: the one with the most opposite map.",
      order === "opposite" && "Of the units not yet in a pair, the most opposite two make the next.",
      steps.length > 1 && "Scale and order are those of the last step.",
    ];
    say(key, lines.filter(Boolean).join(" "));
    const growth = steps.length > 1 ? " Play the training to see the maps grow." : "";
    say(hint, `Click on a map, or walk with the arrow keys, to look into a unit.${growth}`);
    const now = [label, model.get("step"), layer, order, isDark()].join("\n");
    if (now !== lastLook) drawMaps(canvas, library, layout(), units, inputs);
    lastLook = now;
    frameMap(chosen, layout(), units.indexOf(unit));
    frameMap(opposite, layout(), units.indexOf(partner.unit));
    say(heading, `Input maps of the ${nUnits} hidden units of layer ${layer}`);
    const words = `${nUnits} maps of ${rows} by ${columns} weights, ${orders[order]}`;
    describe(canvas, `${words}; the map of unit ${unit} is framed.`);
  };
  return { el: panel("mx-wide", heading, pad, key, hint), draw };
}
