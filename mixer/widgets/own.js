// The reader's own images in the laboratory: classes of drawings and pictures, which never leave the page.

import { makeBoard } from "./board.js";
import { describe, drawImage, picture } from "./canvas.js";
import { cutAll, readPicture } from "./cut.js";
import { dataOf, missingIn, settingsFor, splitOf } from "./examples.js";
import { bytes } from "./numerics.js";
import { button, choice, filesField, h, newId, note, onDrop, panel, percent, put, row, say } from "./page.js";

const OWN_SIZES = [8, 16, 28]; // as in lab.py, which gives the fixed orders for these
const MOST_CLASSES = 10;
const MOST_IMAGES = 1000;
const SPLITS = ["training", "validation", "test"];
const OWN_TEXT =
  "Draw examples of two to ten classes, or choose pictures for them. They never leave this page, and are gone when it is " +
  "closed. Each is cut to its middle square and resized, on white where it is transparent, as train.py does it.";
const EMPTY = new DataView(new ArrayBuffer(0));

/** A place beside a control for a sentence on what went wrong. */
const answer = () => h("output", { class: "mx-wrong" });

/** One image of a class: small, with a button that removes it. */
function makeExample(own, one, images, what) {
  const [canvas, remove] = [picture(), button("×", () => drop())];
  const el = h("li", {}, canvas, remove);
  const example = { images, el };
  function drop() {
    const near = el.nextElementSibling ?? el.previousElementSibling;
    one.examples.splice(one.examples.indexOf(example), 1);
    el.remove();
    (near?.querySelector("button") ?? one.input).focus();
    own.changed();
  }
  example.paint = () => drawImage(canvas, images[own.C][own.size], [own.C, own.size, own.size]);
  example.draw = (i, split) => {
    const words = `image ${i + 1} of ${one.name}`;
    el.className = `mx-${split}`;
    describe(canvas, `${what}, ${words}, for ${split}`);
    remove.setAttribute("aria-label", `Remove ${words}`);
  };
  example.paint();
  return example;
}

/** Read picture files into a class, one after the other; returns what was left out, as a sentence. */
async function readInto(own, one, files, tell) {
  const wrong = [];
  for (const [i, file] of files.entries()) {
    tell(`Reading picture ${i + 1} of ${files.length} …`);
    const room = own.nImages() < MOST_IMAGES;
    if (!room) wrong.push(...files.slice(i).map(() => `There is room for ${MOST_IMAGES} images in all`));
    if (!room) break;
    try {
      const images = await readPicture(file, own.sizes);
      one.add(images, file.name);
    } catch ({ message }) {
      wrong.push(message);
    }
  }
  if (!wrong.length) return "";
  return `${wrong[0]}.${files.length > 1 ? ` Left out: ${wrong.length} of ${files.length} files.` : ""}`;
}

/** A class: its name, its images, and ways to add to them. `onto` is the button that adds the drawing to it. */
function makeClass(own, name) {
  const one = { name, examples: [] };
  const id = newId();
  const [count, list, legend] = [h("output"), h("ul", { class: "mx-thumbs" }), h("legend", { class: "mx-title" })];
  one.input = h("input", { id, value: name, maxlength: 40, oninput: () => rename() });
  function rename() {
    one.name = one.input.value.trim();
    own.changed();
  }
  const files = filesField("", { multiple: true, change: (chosen, tell) => readInto(own, one, chosen, tell) });
  const remove = button("Remove", () => own.remove(one));
  const naming = h("div", { class: "mx-control" }, h("label", { for: id }, "Name"), one.input, count, remove);
  one.el = h("fieldset", { class: "mx-class" }, legend, naming, files.el, list);
  one.onto = button("", () => own.addDrawing(one));
  onDrop(one.el, files.take);
  one.add = (images, what) => {
    const example = makeExample(own, one, images, what);
    one.examples.push(example);
    list.append(example.el);
    own.changed();
  };
  one.draw = () => {
    const n = one.examples.length;
    const [nTraining, nValidation] = splitOf(n);
    say(legend, one.name || "A class without a name");
    say(count, `${n} image${n === 1 ? "" : "s"}`);
    files.name(`Pictures of ${one.name}:`);
    say(one.onto, one.name);
    one.onto.setAttribute("aria-label", `Add the drawing to ${one.name}`);
    remove.setAttribute("aria-label", `Remove class ${one.name}`);
    one.examples.forEach((example, i) => example.draw(i, SPLITS[(i >= nTraining) + (i >= nTraining + nValidation)]));
  };
  return one;
}

/** The board on which an example is drawn, and for each class a button that adds it. */
function makeDrawing(own) {
  const [place, targets, wrong] = [h("div"), h("div", { class: "mx-row mx-targets" }), answer()];
  const state = { size: own.size, image: new Uint8Array(own.size ** 2) };
  const model = {
    get: () => new DataView(state.image.buffer),
    set: (name, value) => name === "image" && (state.image = bytes(value)),
    save_changes: () => draw(),
  };
  let board;
  function draw() {
    board.draw({ image: state.image, what: state.image.some(Boolean) ? "a drawing" : "nothing" });
    if (state.image.some(Boolean)) say(wrong, "");
  }
  const images = (sizes) => {
    const grey = state.image;
    return cutAll({ H: state.size, W: state.size, colours: [grey, grey, grey], grey }, sizes);
  };
  function resize() {
    Object.assign(state, { image: images([own.size])[1][own.size], size: own.size });
    const [H, n] = [own.size, 4]; // lines that help to see the middle
    board = makeBoard(model, { H, W: H, rows: n, columns: n }, "Draw an example");
    place.replaceChildren(board.el);
    draw();
  }
  own.addDrawing = (one) => {
    if (!state.image.some(Boolean)) return say(wrong, "The board is empty: draw something first.");
    if (own.nImages() >= MOST_IMAGES) return say(wrong, `There is room for ${MOST_IMAGES} images in all.`);
    one.add(images(own.sizes), "drawing");
    board.remember();
    state.image = new Uint8Array(own.size ** 2);
    draw();
  };
  resize();
  return { el: panel("mx-drawing", place, note("Add the drawing to the class"), targets, wrong), targets, resize };
}

/** Choices of the size and the colours of the images. */
function makeCuts(own, drawing) {
  const recut = (name) => (value) => {
    own[name] = Number(value);
    if (name === "size") drawing.resize();
    for (const { examples } of own.classes) examples.forEach((example) => example.paint());
    own.changed();
  };
  const sizes = own.sizes.map((size) => [size, `${size} × ${size} pixels`]);
  const size = choice("Cut to", sizes, { change: recut("size") });
  const colours = choice("Colours", [[1, "grey"], [3, "colour"]], { change: recut("C") }); // prettier-ignore
  size.set(own.size);
  colours.set(own.C);
  return row(size.el, colours.el);
}

/** All classes with their controls, in a box that is filled when it is opened for the first time. */
function fill(own, box) {
  const [list, wrong] = [h("div", { class: "mx-classes" }), answer()];
  const drawing = makeDrawing(own);
  function add() {
    const one = makeClass(own, `Class ${++own.nMade}`);
    own.classes.push(one);
    list.append(one.el);
    drawing.targets.append(one.onto);
    own.changed();
    return one;
  }
  function addOneMore() {
    if (own.classes.length === MOST_CLASSES) say(wrong, `There can be at most ${MOST_CLASSES} classes.`);
    else add().input.select();
  }
  own.remove = (one) => {
    if (own.classes.length === 2) return say(wrong, "There must be at least two classes.");
    own.classes.splice(own.classes.indexOf(one), 1);
    one.el.remove();
    one.onto.remove();
    own.classes[0].input.focus();
    own.changed();
  };
  const classes = panel("mx-wide", list, row(button("Add a class", addOneMore), wrong));
  box.append(note(OWN_TEXT), makeCuts(own, drawing), row(drawing.el, classes), own.ending);
  onDrop(box, () => say(wrong, "Drop pictures on the class to which they belong."));
  own.changed = () => {
    say(wrong, "");
    own.classes.forEach((one) => one.draw());
    own.version += 1;
    own.draw();
  };
  add();
  add();
}

/** What is trained on, how few it is, or what is still missing. */
function countsInWords(own) {
  const missing = missingIn(own.classes);
  if (missing) return missing;
  const splits = own.classes.map(({ examples }) => splitOf(examples.length));
  const [nTraining, nValidation, nTest] = [0, 1, 2].map((part) =>
    splits.reduce((sum, counts) => sum + counts[part], 0),
  );
  const parts = `${nTraining} to train on, ${nValidation} for validation (dashed) and ${nTest} for the test (dotted)`;
  const step = `one test image more or less is ${percent(1 / nTest)}`;
  const stale = own.used && own.used.version !== own.version ? " They have changed since the training began." : "";
  return `${nTraining + nValidation + nTest} images: ${parts}; ${step}.${stale}`;
}

/** Begin to train on the reader's images. The kernel hears of their shape and names, and nothing of the images. */
function use(own, model) {
  const data = dataOf(own.lab, own.classes, own.C, own.size);
  if (own.version !== own.lastVersion) own.nSets += 1; // runs of other images are no runs of another seed
  own.lastVersion = own.version;
  own.used = { id: newId(), version: own.version, data };
  const { shape, names, mean, std, dataName, background } = data;
  const { before } = model.get("own");
  const facts = { shape, class_names: names, mean, std, data_set: dataName, background, n_train: data.counts[0] };
  const kept = before ?? { settings: model.get("settings"), runs: model.get("runs") };
  if (!before) model.set("runs", []);
  model.set("own", { id: own.used.id, set: own.nSets, ...facts, before: kept });
  model.set("weights", EMPTY);
  model.set("trained", {});
  put(model, "settings", settingsFor(data, model.get("settings"), !before));
}

/** Go back to the data of the figure, with the settings and the runs that it had. */
function leave(own, model) {
  const { before } = model.get("own");
  own.used = undefined;
  if (!before) return;
  model.set("own", {});
  model.set("runs", before.runs);
  model.set("weights", EMPTY);
  model.set("trained", {});
  put(model, "settings", before.settings);
}

/**
 * The section of the figure; `chosen` is called when the reader chooses other data. Returns { el, draw, data, leave };
 * `data` gives the data that the laboratory is to use.
 */
export function makeOwn(model, lab, chosen) {
  const [, H, W] = lab.shape;
  const sizes = [...new Set(H === W ? [...OWN_SIZES, H] : OWN_SIZES)].toSorted((a, b) => a - b);
  const own = { lab, sizes, C: lab.shape[0], size: H === W ? H : 16, classes: [], nMade: 0, version: 0, nSets: 0 };
  own.nImages = () => own.classes.reduce((sum, { examples }) => sum + examples.length, 0);
  const words = h("output");
  const train = button("Train on these", () => {
    const missing = missingIn(own.classes);
    words.classList.toggle("mx-wrong", Boolean(missing));
    if (missing) return;
    chosen();
    use(own, model);
  });
  const back = button(`Back to ${lab.dataName}`, () => {
    chosen();
    leave(own, model);
    train.focus();
  });
  own.ending = h("div", { class: "mx-row mx-middle" }, train, back, words);
  const summary = h("summary", {}, "Your own images");
  const el = h("details", { class: "mx-own" }, summary);
  el.addEventListener("toggle", () => fill(own, el), { once: true });
  own.draw = () => {
    back.hidden = !own.used;
    say(summary, own.used ? "Your own images, which are trained on now" : "Your own images");
    if (own.classes.length) say(words, countsInWords(own));
    if (!missingIn(own.classes)) words.classList.remove("mx-wrong");
  };
  const data = () => {
    const { id } = model.get("own");
    if (!id) own.used = undefined;
    if (id && id !== own.used?.id) throw new Error("it trains on images that another view of it holds");
    return own.used?.data ?? lab;
  };
  leave(own, model); // a page that was opened again has the images no more
  own.draw();
  return { el, draw: own.draw, data, leave: () => leave(own, model) };
}
