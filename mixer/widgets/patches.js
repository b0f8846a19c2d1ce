// PatchExplorer: an image, its table of patches, and every number on its way from the one to the other.

import { cellOn, describe, drawImage, drawPixels, picture, pointerOn } from "./canvas.js";
import { areSizes, bytes, isIndex } from "./numerics.js";
import { clamp, h, live, note, panel, place, playButton, put, row, say, slider, statusLine, tick } from "./page.js";
import { timeRow, title } from "./page.js";
import { makePatchRow } from "./patchrow.js";
import { boxesAt, membersOf, places, RIM } from "./places.js";

const TRAITS = ["patch_size", "token", "stage", "permute"];
const STAGES = ["image", "cut", "axes exchanged", "table"];
const UNPERMUTED = ["image", "cut", "axes as before", "table"];
const namesOf = (permute) => (permute ? STAGES : UNPERMUTED);
const END = 300; // the trait `stage` at the last stage, in hundredths
const PACE = 15; // milliseconds to a hundredth of a stage
const LIT = "#ffb000";
const HINT =
  "Point at a number, a patch or a row of the table, or tap on it, to light up its token. Drag the step, or play it, " +
  "to see every number walk from the image to its place in the table. Leave the permute out, and the rows of the " +
  "table are pieces of the image's rows instead of patches.";

/** Light up rectangles [x, y, width, height]: a rim around all of them, and inside what `paint` draws of each. */
function lightUp(context, boxes, paint) {
  context.fillStyle = LIT;
  for (const [x, y, width, height] of boxes) context.fillRect(x - RIM, y - RIM, width + 2 * RIM, height + 2 * RIM);
  boxes.forEach(paint);
}

/** Position of a pointer on a canvas, [x, y] in its pixels. */
function pixelsOn(canvas, event) {
  const [x, y] = pointerOn(canvas, event);
  return [x * canvas.width, y * canvas.height];
}

/** Call `choose` with the event when a mouse moves over an element, and when it is tapped or clicked. */
function onPoint(element, choose) {
  for (const kind of ["pointermove", "click"]) element.addEventListener(kind, choose);
}

/** The state's image, checked, with the colour of each of its numbers: grey, or red, green or blue alone. */
function readImage(model) {
  const shape = model.get("shape");
  const [C, H, W] = shape;
  const image = bytes(model.get("image"));
  if (!areSizes(shape, 3) || image.length !== C * H * W) throw new Error("its image is damaged or incomplete");
  const sizes = model.get("patch_sizes");
  const right = areSizes(sizes, sizes.length) && sizes.every((size) => H % size === 0 && W % size === 0);
  if (!right) throw new Error("its patch sizes are not those of its image");
  const tint = (value, i) => [0, 1, 2].map((c) => (C === 1 || c === Math.floor(i / (H * W)) ? value : 0));
  const tints = Array.from(image, tint);
  let [known, key] = [];
  const layout = (P, permute) => {
    if (key !== `${P} ${permute}`) [known, key] = [places(shape, P, permute), `${P} ${permute}`];
    return known;
  };
  return { image, shape, C, H, W, sizes, tints, fills: tints.map((rgb) => `rgb(${rgb})`), layout };
}

/** The image with its patches; the pointer chooses the token of a pixel. */
function makeWhole({ image, shape, H, W }, light) {
  const scale = Math.ceil(384 / W); // of the image on its canvas
  const canvas = picture();
  const copy = h("canvas");
  Object.assign(canvas, { width: W * scale + 2 * RIM, height: H * scale + 2 * RIM });
  const context = canvas.getContext("2d");
  let tokens;
  onPoint(canvas, (event) => {
    const [x, y] = pixelsOn(canvas, event).map((at) => Math.floor((at - RIM) / scale));
    light(tokens[clamp(0, y, H - 1) * W + clamp(0, x, W - 1)]);
  });
  const draw = ({ P, rows, columns, token, members, layout }) => {
    ({ tokens } = layout);
    drawImage(copy, image, shape);
    context.reset();
    context.imageSmoothingEnabled = false;
    context.translate(RIM, RIM);
    context.drawImage(copy, 0, 0, W * scale, H * scale);
    context.strokeStyle = "rgba(255, 255, 255, 0.5)";
    for (let x = P; x < W; x += P) context.strokeRect(x * scale, 0, 0, H * scale);
    for (let y = P; y < H; y += P) context.strokeRect(0, y * scale, W * scale, 0);
    const pixels = [...new Set(members.map((i) => i % (H * W)))].map((i) => [i % W, Math.floor(i / W)]);
    const boxes = pixels.map(([x, y]) => [x * scale, y * scale, scale, scale]);
    lightUp(context, boxes, (box, k) => context.drawImage(copy, ...pixels[k], 1, 1, ...box));
    const lit = `the ${boxes.length} pixels of token ${token} are lit`;
    describe(canvas, `The image in ${rows} by ${columns} patches; ${lit}.`);
  };
  return { el: panel("mx-small", title("Where its numbers come from"), canvas), draw };
}

/** The table of patches; the pointer chooses a row. */
function makeTable({ tints }, light) {
  const [canvas, frame, heading] = [picture(), h("div", { class: "mx-frame" }), title()];
  let nRows;
  onPoint(canvas, (event) => light(cellOn(canvas, event, nRows, 1)[0]));
  const draw = ({ nTokens, nPixels, token, permute, layout }) => {
    nRows = nTokens;
    const { tokens, stops } = layout;
    drawPixels(canvas, nPixels, nTokens, (data) =>
      tokens.forEach((owner, i) => data.set([...tints[i], 255], 4 * (owner * nPixels + stops[3][i][0]))),
    );
    place(frame, { left: 0, top: token / nTokens, width: 1, height: 1 / nTokens });
    const kind = permute ? "Table" : "Table without the permute";
    say(heading, `${kind}: ${nTokens} tokens × ${nPixels} numbers`);
    describe(canvas, `The table, a row for each of ${nTokens} tokens; row ${token} is framed.`);
  };
  return { el: panel("mx-large", heading, h("div", { class: "mx-rows" }, canvas, frame)), draw };
}

/** What a step does to the axes, with their sizes. */
function stepsOf({ C, H, W }, { P, rows, columns, nTokens, nPixels, permute }) {
  const exchanged = `permute → [H/P, W/P, C_in, P, P] = [${rows}, ${columns}, ${C}, ${P}, ${P}]`;
  return [
    `The image: [C_in, H, W] = [${C}, ${H}, ${W}]`,
    `reshape → [C_in, H/P, P, W/P, P] = [${C}, ${rows}, ${P}, ${columns}, ${P}]`,
    permute ? exchanged : `no permute: still [C_in, H/P, P, W/P, P] = [${C}, ${rows}, ${P}, ${columns}, ${P}]`,
    `reshape → [n_tokens, n_pixels] = [${nTokens}, ${nPixels}]`,
  ];
}

/** All numbers on their way from the image to the table; the pointer chooses the token of a number. */
function makeWay(source, light) {
  const { fills } = source;
  const [canvas, heading] = [picture(), title()];
  Object.assign(canvas, { width: 720, height: 300 });
  const context = canvas.getContext("2d");
  let boxOf, tokens;
  onPoint(canvas, (event) => {
    const [x, y] = pixelsOn(canvas, event);
    const isOn = ([left, top, width, height]) => x >= left && x < left + width && y >= top && y < top + height;
    const found = fills.findIndex((_, i) => isOn(boxOf(i)));
    if (found >= 0) light(tokens[found]);
  });
  const paint = (i, box) => {
    context.fillStyle = fills[i];
    context.fillRect(...box);
  };
  const draw = (scene) => {
    const { members, permute, stage, layout } = scene;
    ({ tokens } = layout);
    boxOf = boxesAt(layout, stage / 100, canvas);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.globalCompositeOperation = "lighter"; // red, green and blue at one place add up to its colour
    fills.forEach((_, i) => paint(i, boxOf(i)));
    context.globalCompositeOperation = "source-over";
    const boxes = members.map(boxOf);
    lightUp(context, boxes, ([x, y, width, height]) => {
      const [left, top] = [Math.floor(x), Math.floor(y)]; // whole pixels: the rim must not shine through between two
      context.fillStyle = "#000";
      context.fillRect(left, top, Math.ceil(x + width) - left, Math.ceil(y + height) - top);
    });
    context.globalCompositeOperation = "lighter";
    members.forEach((i, k) => paint(i, boxes[k]));
    context.globalCompositeOperation = "source-over";
    say(heading, stepsOf(source, scene)[Math.round(stage / 100)]);
    const name = namesOf(permute)[Math.round(stage / 100)];
    describe(canvas, `Every number of the image on its way to the table, at the stage: ${name}.`);
  };
  return { el: [heading, canvas], draw };
}

/** Sliders for the patch size, the token and the stage, and a button that plays the stages. */
function makeControls(model, { H, W, sizes }, light) {
  const patchSize = slider("Patch size", {
    max: sizes.length - 1,
    text: (i) => `${sizes[i]} × ${sizes[i]}`,
    change(i) {
      model.set("token", Math.min(model.get("token"), (H * W) / sizes[i] ** 2 - 1));
      put(model, "patch_size", sizes[i]);
    },
  });
  const token = slider("Token", { change: light });
  const without = tick("Leave the permute out", { change: (isOut) => put(model, "permute", !isOut) });
  const show = (stage) => put(model, "stage", stage);
  const stage = slider("Step", {
    max: END,
    text: (now) => namesOf(model.get("permute"))[Math.round(now / 100)],
    change(now) {
      play.stop();
      show(now);
    },
  });
  let start, began;
  const play = playButton({
    begin: () => ([start, began] = [model.get("stage") >= END ? 0 : model.get("stage"), performance.now()]),
    step() {
      show(Math.min(END, start + Math.round((performance.now() - began) / PACE)));
      return model.get("stage") < END;
    },
    still: () => show(100 * (Math.floor(start / 100) + 1)),
  });
  const draw = ({ P, nTokens, token: chosen, stage: now, permute }) => {
    without.set(!permute);
    patchSize.set(sizes.indexOf(P));
    token.range(nTokens - 1);
    token.set(chosen);
    stage.set(now);
  };
  return { patches: row(patchSize.el, token.el, without.el), time: timeRow(stage.el, play.el), draw };
}

/** What the row of the chosen token holds, in words. */
function wordsOfRow({ token, down, across, members, permute, layout }) {
  const cell = `row ${down}, column ${across} of the patch grid`;
  if (permute) return `Token ${token}: the patch in ${cell}, and row ${token} of the table.`;
  const n = members.filter((i) => layout.patches[i] === token).length;
  return `Without the permute, ${n} of the ${members.length} numbers in row ${token} of the table are of patch ${token}, in ${cell}.`;
}

/** The state's choices, checked, and what follows from them. */
function readScene(model, { C, H, W, sizes, image, layout: layoutOf }) {
  const [P, asked, stage, permute] = TRAITS.map((name) => model.get(name));
  if (!sizes.includes(P)) throw new Error(`there is no patch size ${P}`);
  if (!isIndex(asked, image.length)) throw new Error(`there is no token ${asked}`);
  if (!isIndex(stage, END + 1)) throw new Error(`there is no stage ${stage}`);
  if (typeof permute !== "boolean") throw new Error("its choice of the permute is neither true nor false");
  const [rows, columns] = [H / P, W / P];
  const nTokens = rows * columns;
  const token = Math.min(asked, nTokens - 1); // a kernel changes it after the patch size
  const layout = layoutOf(P, permute);
  const [down, across, members] = [Math.floor(token / columns), token % columns, membersOf(layout, token)];
  return { P, rows, columns, nTokens, nPixels: C * P * P, token, down, across, stage, permute, layout, members };
}

function build(model, box) {
  const source = readImage(model);
  const light = (token) => token !== model.get("token") && put(model, "token", token);
  const controls = makeControls(model, source, light);
  const [way, whole, table] = [makeWay, makeWhole, makeTable].map((make) => make(source, light));
  const [patchRow, facts] = [makePatchRow(source), statusLine()];
  box.classList.add("mx-patches");
  box.append(controls.patches, ...way.el, controls.time, facts, row(whole.el, table.el), patchRow.el, note(HINT));

  return () => {
    const scene = readScene(model, source);
    for (const part of [controls, way, whole, table, patchRow]) part.draw(scene);
    say(facts, wordsOfRow(scene));
  };
}

export default { render: (view) => live(view, TRAITS, build) };
