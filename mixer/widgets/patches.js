// PatchExplorer: an image, its table of patches, and every number on its way from the one to the other.

import { cellOn, describe, drawImage, drawPixels, enlarge, picture } from "./canvas.js";
import { areSizes, bytes, isIndex } from "./numerics.js";
import { h, live, note, panel, playButton, put, row, say, slider, statusLine, timeRow, title } from "./page.js";

const TRAITS = ["patch_size", "token", "stage"];
const STAGES = ["image", "cut", "axes exchanged", "table"];
const END = 300; // the trait `stage` at the last stage, in hundredths
const PACE = 15; // milliseconds to a hundredth of a stage
const LIT = "#ffb000";
const HINT =
  "Point at a patch or at a row of the table to light up its token. Drag the step, or play it, to see every " +
  "number walk from the image to its place in the table.";

const reach = (points, axis) => points.reduce((far, point) => Math.max(far, point[axis]), 0) + 1;

/** Positions of each number of an image at each stage, [x, y] in pixels of the image, and how far all of them reach. */
function places([C, H, W], P) {
  const columns = W / P;
  const gap = P * 0.4;
  const stops = STAGES.map(() => []);
  const tokens = [];
  for (let c = 0; c < C; c++)
    for (let y = 0; y < H; y++)
      for (let x = 0; x < W; x++) {
        const [down, across] = [Math.floor(y / P), Math.floor(x / P)];
        const cut = [x + across * gap, y + down * gap];
        tokens.push(down * columns + across);
        stops[0].push([x, y]);
        stops[1].push(cut);
        stops[2].push([cut[0] + c * (W + columns * gap), cut[1]]);
        stops[3].push([(c * P + (y % P)) * P + (x % P), down * columns + across]);
      }
  return { P, tokens, stops, reaches: stops.map((points) => [reach(points, 0), reach(points, 1)]) };
}

/** Layout of a stage on a canvas: the size of one number, and the corner. The table fills the canvas. */
function fit(stage, [width, height], canvas) {
  let [x, y] = [canvas.width / width, canvas.height / height];
  if (stage < 3) x = y = Math.min(x, y);
  return { size: [x, y], corner: [(canvas.width - width * x) / 2, (canvas.height - height * y) / 2] };
}

function frameLit(context, x, y, width, height) {
  context.strokeStyle = LIT;
  context.lineWidth = 3;
  context.strokeRect(x + 1.5, y + 1.5, width - 3, Math.max(1, height - 3));
  context.lineWidth = 1;
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
  let known;
  const layout = (P) => (known?.P === P ? known : (known = places(shape, P)));
  return { image, shape, C, H, W, sizes, tints, fills: tints.map((rgb) => `rgb(${rgb})`), layout };
}

/** The image with its patches; the pointer chooses one. */
function makeWhole({ image, shape, H, W }, light) {
  const scale = Math.ceil(384 / W); // of the image on its canvas
  const canvas = picture();
  const copy = h("canvas");
  Object.assign(canvas, { width: W * scale, height: H * scale });
  let grid;
  canvas.addEventListener("pointermove", (event) => {
    const [down, across] = cellOn(canvas, event, ...grid);
    light(down * grid[1] + across);
  });
  const draw = ({ P, rows, columns, token, down, across }) => {
    grid = [rows, columns];
    drawImage(copy, image, shape);
    const context = enlarge(copy, canvas);
    context.strokeStyle = "rgba(255, 255, 255, 0.5)";
    for (let x = P; x < W; x += P) context.strokeRect(x * scale, -1, 0, canvas.height + 2);
    for (let y = P; y < H; y += P) context.strokeRect(-1, y * scale, canvas.width + 2, 0);
    frameLit(context, across * P * scale, down * P * scale, P * scale, P * scale);
    describe(canvas, `The image in ${rows} by ${columns} patches; that of token ${token} is framed.`);
  };
  return { el: panel("mx-small", title("Image"), canvas), draw };
}

/** The table of patches; the pointer chooses a row. */
function makeTable({ tints, layout }, light) {
  const canvas = picture();
  const copy = h("canvas");
  const heading = title();
  Object.assign(canvas, { width: 480, height: 320 });
  let nRows;
  canvas.addEventListener("pointermove", (event) => light(cellOn(canvas, event, nRows, 1)[0]));
  const draw = ({ P, nTokens, nPixels, token }) => {
    nRows = nTokens;
    const { tokens, stops } = layout(P);
    drawPixels(copy, nPixels, nTokens, (data) =>
      tokens.forEach((owner, i) => data.set([...tints[i], 255], 4 * (owner * nPixels + stops[3][i][0]))),
    );
    frameLit(enlarge(copy, canvas), 0, (token * canvas.height) / nTokens, canvas.width, canvas.height / nTokens);
    say(heading, `Table: ${nTokens} tokens × ${nPixels} pixels`);
    describe(canvas, `The table, a row for each of ${nTokens} tokens; row ${token} is framed.`);
  };
  return { el: panel("mx-large", heading, canvas), draw };
}

/** All numbers on their way from the image to the table. */
function makeWay({ C, H, W, fills, layout }) {
  const canvas = picture();
  const heading = title();
  Object.assign(canvas, { width: 720, height: 300 });
  const context = canvas.getContext("2d");
  const drawNumbers = (P, chosen, now) => {
    const [from, to] = [Math.floor(now), Math.ceil(now)];
    const { tokens, stops, reaches } = layout(P);
    const [a, b] = [from, to].map((stage) => fit(stage, reaches[stage], canvas));
    const mix = (x, y) => x + (now - from) * (y - x);
    const size = [0, 1].map((axis) => mix(a.size[axis], b.size[axis]));
    const at = (i, axis) =>
      mix(a.corner[axis] + stops[from][i][axis] * a.size[axis], b.corner[axis] + stops[to][i][axis] * b.size[axis]);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.globalCompositeOperation = "lighter"; // red, green and blue at one place add up to its colour
    for (let i = 0; i < tokens.length; i++) {
      context.fillStyle = fills[i];
      context.fillRect(at(i, 0), at(i, 1), ...size);
    }
    context.globalCompositeOperation = "source-over";
    context.strokeStyle = LIT;
    tokens.forEach((owner, i) => owner === chosen && context.strokeRect(at(i, 0), at(i, 1), ...size));
  };
  const draw = ({ P, rows, columns, nTokens, nPixels, token, stage }) => {
    drawNumbers(P, token, stage / 100);
    const nearest = Math.round(stage / 100);
    const steps = [
      `The image: [C_in, H, W] = [${C}, ${H}, ${W}]`,
      `reshape → [C_in, H/P, P, W/P, P] = [${C}, ${rows}, ${P}, ${columns}, ${P}]`,
      `permute → [H/P, W/P, C_in, P, P] = [${rows}, ${columns}, ${C}, ${P}, ${P}]`,
      `reshape → [n_tokens, n_pixels] = [${nTokens}, ${nPixels}]`,
    ];
    say(heading, steps[nearest]);
    describe(canvas, `Every number of the image on its way to the table, at the stage: ${STAGES[nearest]}.`);
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
  const show = (stage) => put(model, "stage", stage);
  const stage = slider("Step", { max: END, text: (now) => STAGES[Math.round(now / 100)], change: show });
  let start, began;
  const play = playButton({
    begin: () => ([start, began] = [model.get("stage") >= END ? 0 : model.get("stage"), performance.now()]),
    step() {
      show(Math.min(END, start + Math.round((performance.now() - began) / PACE)));
      return model.get("stage") < END;
    },
    still: () => show(100 * (Math.floor(start / 100) + 1)),
  });
  const draw = ({ P, nTokens, token: chosen, stage: now }) => {
    patchSize.set(sizes.indexOf(P));
    token.range(nTokens - 1);
    token.set(chosen);
    stage.set(now);
  };
  return { patches: row(patchSize.el, token.el), time: timeRow(stage.el, play.el), draw };
}

function build(model, box) {
  const image = readImage(model);
  const { C, H, W } = image;
  const light = (token) => token !== model.get("token") && put(model, "token", token);
  const [controls, whole] = [makeControls(model, image, light), makeWhole(image, light)];
  const [table, way, facts] = [makeTable(image, light), makeWay(image), statusLine()];
  box.classList.add("mx-patches");
  box.append(controls.patches, row(whole.el, table.el), facts, ...way.el, controls.time, note(HINT));

  return () => {
    const [P, asked, stage] = TRAITS.map((name) => model.get(name));
    if (!image.sizes.includes(P)) throw new Error(`there is no patch size ${P}`);
    if (!isIndex(asked, image.image.length)) throw new Error(`there is no token ${asked}`);
    if (!isIndex(stage, END + 1)) throw new Error(`there is no stage ${stage}`);
    const [rows, columns] = [H / P, W / P];
    const nTokens = rows * columns;
    const token = Math.min(asked, nTokens - 1); // a kernel changes it after the patch size
    const [down, across] = [Math.floor(token / columns), token % columns];
    const scene = { P, rows, columns, nTokens, nPixels: C * P * P, token, down, across, stage };
    for (const part of [controls, whole, table, way]) part.draw(scene);
    const cell = `row ${down}, column ${across} of the patch grid`;
    say(facts, `Token ${token}: the patch in ${cell}, and row ${token} of the table.`);
  };
}

export default { render: (view) => live(view, TRAITS, build) };
