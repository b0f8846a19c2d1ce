// FilterExplorer: a filter of the per-patch layer, moved over an image, and the map of the numbers that it gives.

import { describe, drawImage, drawMap, picture, pointerOn } from "./canvas.js";
import { largest } from "./numerics.js";
import {
  clamp,
  decimal,
  h,
  live,
  newId,
  note,
  panel,
  place,
  put,
  row,
  say,
  slider,
  statusLine,
  stepOf,
  tick,
  title,
} from "./page.js";
import { COLOUR_NAMES, computing, FILTER_TRAITS, patchAt, readChoices, readState } from "./sliding.js";

const LIT = "outline-color: #ffb000; box-shadow: 0 0 0 4px #000";
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
const GRIP = "position: absolute; width: 44px; height: 44px; transform: translate(-50%, -50%); touch-action: none";
const THUMB = "position: relative; width: 2.75rem; height: 2.75rem; padding: 0.2rem; cursor: pointer";
const RADIO = "position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; appearance: none; cursor: pointer";
const GRID =
  "display: grid; grid-template-columns: auto repeat(3, minmax(0, 5.5rem)) auto; gap: 0.4rem; align-items: center; " +
  "justify-content: start";
const HINT =
  "Drag the frame, tap on a place of the image or of the map, or move it with the arrow keys or the sliders. " +
  "Red is above 0, blue below. The pixels are normalised; pixels, weights, products and the map have a scale each.";

/** The filters as small pictures to choose from; in colour, where grey is a weight of 0. */
function makeFilters(model, { C, P, names, filterOf }) {
  const group = newId();
  const parts = names.map((name, i) => {
    const canvas = h("canvas");
    const change = () => put(model, "filter", i);
    const input = h("input", {
      type: "radio",
      name: group,
      value: i,
      style: RADIO,
      "aria-label": name,
      onchange: change,
    });
    return { canvas, input, el: h("label", { style: THUMB, title: name }, canvas, input) };
  });
  const thumbs = h("div", { role: "radiogroup", "aria-label": "Filter" }, ...parts.map(({ el }) => el));
  thumbs.style = "display: flex; flex-wrap: wrap; gap: 0.35rem; margin-bottom: 0.75rem";
  const heading = title();
  function draw({ filter }) {
    say(heading, `Filter: ${names[filter]}`);
    parts.forEach(({ canvas, input, el }, i) => {
      drawFilter(canvas, filterOf(i), [C, P, P]);
      input.checked = i === filter;
      el.style.boxShadow = `0 0 0 ${i === filter ? "3px #ffb000" : "1px var(--mx-line)"}`;
    });
  }
  return { el: panel("", heading, thumbs), draw };
}

/** A filter as a picture: of three colours in colour, else on the map of weights. */
function drawFilter(canvas, weights, [C, P]) {
  const limit = largest(weights);
  if (C === 1) drawMap(canvas, weights, P, P, limit);
  else
    drawImage(
      canvas,
      Array.from(weights, (weight) => 127.5 * (1 + weight / limit)),
      [C, P, P],
    );
}

/** Call `choose` with the place, as shares of an element, that a pointer touches, and while it is dragged. */
function onDrag(element, choose) {
  const tell = (event) => choose(...pointerOn(element, event));
  element.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    element.setPointerCapture(event.pointerId);
    tell(event);
  });
  element.addEventListener("pointermove", (event) => element.hasPointerCapture(event.pointerId) && tell(event));
}

/** A picture with a frame on it, which a pointer drags, and where `keys` is given the arrow keys move. */
function makePad(choose, keys) {
  const [canvas, frame, grip] = [picture(), h("div", { class: "mx-frame", style: LIT }), h("div", { style: GRIP })];
  const focus = keys ? { tabindex: 0, role: "group", "aria-label": "Image; the arrow keys move the frame" } : {};
  const style = "overflow: hidden; touch-action: pan-y"; // the grip alone keeps a finger from scrolling the page
  const el = h("div", { class: "mx-sheet", style, ...focus }, canvas, frame, grip);
  onDrag(el, choose);
  if (keys) el.addEventListener("keydown", keys);
  const frameAt = (left, top, width, height) => {
    place(frame, { left, top, width, height });
    place(grip, { left: left + width / 2, top: top + height / 2 });
  };
  return { el, canvas, frameAt };
}

/** A panel that has another one beside it, on a narrow page too. */
const half = (...parts) => h("div", { style: "flex: 1 1 8rem; max-width: 22rem; align-self: flex-end" }, ...parts);

/** The image, with the frame of the patch. */
function makeImage(model, { shape, H, W, P, image }, move) {
  const at = (share, side) => (model.get("stride") === 1 ? Math.round(share * side - P / 2) : Math.floor(share * side));
  const choose = (x, y) => move(at(y, H), at(x, W));
  const keys = (event) => {
    const step = stepOf(event, STEPS);
    if (!step) return;
    event.preventDefault();
    const [down, across] = step.map((n) => n * model.get("stride"));
    move(model.get("row") + down, model.get("column") + across);
  };
  const pad = makePad(choose, keys);
  function draw({ y, x }) {
    drawImage(pad.canvas, image, shape);
    pad.frameAt(x / W, y / H, P / W, P / H);
    describe(pad.canvas, `The image, ${H} by ${W} pixels; the patch from row ${y}, column ${x} on is framed.`);
  }
  return { el: half(title(`Image: ${H} × ${W} pixels, patch ${P} × ${P}`), pad.el), draw };
}

/** The map of the numbers at all places, with the chosen one framed. */
function makeChannelMap(model, { H, W, P, names }, move) {
  const heading = title();
  const pad = makePad((x, y) => {
    const stride = model.get("stride");
    const at = (share, side) => Math.floor(share * ((side - P) / stride + 1)) * stride;
    move(at(y, H), at(x, W));
  });
  function draw({ filter, y, x, stride, rows, columns }, { numbers, limit }) {
    drawMap(pad.canvas, numbers, rows, columns, limit);
    pad.frameAt(x / stride / columns, y / stride / rows, 1 / columns, 1 / rows);
    say(heading, `Map: ${rows} × ${columns}, one number a ${stride === P ? "patch" : "pixel"}`);
    const words = `What the filter ${names[filter]} gives at ${rows} by ${columns} places, from`;
    describe(pad.canvas, `${words} ${decimal(Math.min(...numbers), 3)} to ${decimal(Math.max(...numbers), 3)}.`);
  }
  return { el: half(heading, pad.el), draw };
}

/** Pixels times weights, colour by colour, with the sum of the products of each; above them patch and filter in colour. */
function makeProducts(source) {
  const { C, P, image, limit: pixelLimit } = source;
  const head = ["", "pixels", "× weights", "= products", "sum"].map((words) => h("span", { class: "mx-note" }, words));
  const colours = COLOUR_NAMES[C].map((name) => ({ name, maps: [picture(), picture(), picture()], sum: h("span") }));
  const [patchPicture, filterPicture] = [picture("The patch in colour"), picture("The filter in colour, grey is 0")];
  filterPicture.style.outline = "1px solid var(--mx-line)"; // a part of it is white
  const own = colours.flatMap(({ name, maps, sum }) => [h("span", {}, name), ...maps, sum]);
  const inColour = C === 1 ? [] : [h("span", {}, "all"), patchPicture, filterPicture, h("span"), h("span")];
  const el = h("div", { style: GRID }, ...head, ...inColour, ...own);
  function draw({ y, x }, { patch, weights, products, sums }) {
    drawImage(patchPicture, patchAt(image, source, y, x), [C, P, P]);
    drawFilter(filterPicture, weights, [C, P]);
    const limits = [pixelLimit, largest(weights), largest(products)];
    colours.forEach(({ name, maps, sum }, c) => {
      [patch, weights, products].forEach((values, i) => {
        const part = values.slice(c * P * P, (c + 1) * P * P);
        drawMap(maps[i], part, P, P, limits[i]);
        const what = ["pixels of the patch", "weights of the filter", "products"][i];
        describe(maps[i], `${name}, ${what}: ${Array.from(part, (value) => decimal(value)).join(", ")}`);
      });
      say(sum, decimal(sums[c], 3));
    });
  }
  return { el: panel("mx-wide", title("One number: pixel times weight, added up"), el), draw };
}

/** Sliders for the place, and the switch to every pixel. */
function makeControls(model, { P }, move) {
  const stride = () => model.get("stride");
  const down = slider("Row", { change: (i) => move(i * stride(), model.get("column")) });
  const across = slider("Column", { change: (i) => move(model.get("row"), i * stride()) });
  const every = tick("Every pixel (stride 1)", {
    change(isOn) {
      const next = isOn ? 1 : P;
      const [y, x] = ["row", "column"].map((name) => model.get(name));
      model.set("stride", next);
      model.set("row", y - (y % next));
      put(model, "column", x - (x % next));
    },
  });
  function draw({ y, x, stride: step, rows, columns }) {
    down.range(rows - 1);
    across.range(columns - 1);
    down.set(y / step);
    across.set(x / step);
    every.set(step === 1);
    every.el.hidden = P === 1;
  }
  return { el: row(down.el, across.el, every.el), draw };
}

/** The number at the chosen place in words, and whose it is. */
function placeInWords({ y, x, stride }, { sum, bias }, { C, W, P }) {
  const isToken = y % P === 0 && x % P === 0;
  const token = `token ${(y / P) * (W / P) + x / P}`;
  const patch = `T${token.slice(1)}, the patch in row ${y / P}, column ${x / P} of the grid`;
  const where = stride === P ? patch : `Pixel row ${y}, column ${x}`;
  const sums = `${C * P * P} products add up to ${decimal(sum, 3)}; with the bias ${decimal(bias, 3)} this is ${decimal(sum + bias, 3)}`;
  const also = stride === P ? "" : isToken ? ` It is also the number of ${token}.` : " It is the number of no token.";
  return `${where}: ${sums}.${also}`;
}

function build(model, box) {
  const source = readState(model);
  const compute = computing(source);
  const { H, W, P } = source;
  const move = (top, left) => {
    const stride = model.get("stride");
    const [y, x] = [clamp(0, top, H - P), clamp(0, left, W - P)];
    model.set("row", y - (y % stride));
    put(model, "column", x - (x % stride));
  };
  const [filters, products, controls] = [
    makeFilters(model, source),
    makeProducts(source),
    makeControls(model, source, move),
  ];
  const [image, channelMap] = [makeImage(model, source, move), makeChannelMap(model, source, move)];
  const facts = statusLine();
  box.classList.add("mx-filter");
  box.append(filters.el, row(image.el, channelMap.el), controls.el, facts, row(products.el), note(HINT));

  return () => {
    const chosen = readChoices(model, source);
    const now = compute(chosen);
    for (const part of [filters, image, channelMap, controls, products]) part.draw(chosen, now);
    say(facts, placeInWords(chosen, now, source));
  };
}

export default { render: (view) => live(view, FILTER_TRAITS, build) };
