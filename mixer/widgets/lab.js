// TrainingLab: a Mixer that is trained in the page. Settings, buttons, and everything that the run shows.

import { makeCompare, readRuns } from "./compare.js";
import { followLinks, takeSettings } from "./links.js";
import { areSizes, bytes, isIndex } from "./numerics.js";
import { makeOwn } from "./own.js";
import { button, foldable, h, isDark, live, note, put, say, statusLine } from "./page.js";
import { Probe } from "./probe.js";
import { makeReader } from "./reader.js";
import { Runner } from "./runner.js";
import { areSame, configOf, costOf, firstProblem, makeSettings } from "./settings.js";
import { makeShare } from "./share.js";
import { makeSources } from "./sources.js";
import { makeAnswers, makeCurves, makeMaps } from "./views.js";

const TRAITS = ["settings", "running", "step", "history", "runs", "own"];
const HINT =
  "A whole Mixer is trained here, in the page, on one core. Choose settings, press Train, and watch what the token " +
  "mixing learns. Drag in a curve to see any earlier moment again.";

// What no limit exceeds: beyond it, sizes in the engine would no longer be numbers of 32 bits.
const MOST = { n_layers: 16, n_channel: 1024, n_hidden: 1024, n_epochs: 1e4, batch_size: 1e5, seed: 2 ** 31 - 1 };

const areAll = (values, n, isRight) => Array.isArray(values) && values.length === n && values.every(isRight);
const isOrder = (order, n) => areAll(order, n, (i) => isIndex(i, n));
const isWithin = (low, high) => (value) => Number.isFinite(value) && value > low && value < high;
const isText = (value) => typeof value === "string";

/** Limits of the settings, checked. */
function readLimits(model, n_train) {
  const limits = model.get("limits");
  const isRight = ([name, most]) => areSizes([limits?.[name]], 1) && limits[name] <= most;
  if (!Object.entries({ ...MOST, n_train }).every(isRight)) throw new Error("its limits are damaged or incomplete");
  return limits;
}

/** The data of the state, checked. */
function readLab(model) {
  const wrong = new Error("its images are damaged or incomplete");
  const [shape, counts, names] = ["shape", "counts", "class_names"].map((name) => model.get(name));
  const [images, labels] = ["images", "labels"].map((name) => bytes(model.get(name)));
  if (!areSizes(shape, 3) || !areSizes(counts, 3) || !Array.isArray(names) || names.length < 2) throw wrong;
  const [n, size] = [counts[0] + counts[1] + counts[2], shape[0] * shape[1] * shape[2]];
  if (images.length !== n * size || labels.length !== n || labels.some((label) => label >= names.length)) throw wrong;
  const [mean, std, orders] = ["mean", "std", "orders"].map((name) => model.get(name));
  const patchSizes = model.get("patch_sizes");
  const divides = (P) => shape[1] % P === 0 && shape[2] % P === 0;
  if (!areSizes(patchSizes, patchSizes?.length) || !patchSizes.every(divides)) throw wrong;
  if (!areAll(mean, shape[0], isWithin(-1e6, 1e6)) || !areAll(std, shape[0], isWithin(1e-6, 1e6))) throw wrong;
  const lengths = [shape[1] * shape[2], ...patchSizes.flatMap((P) => [P * P, (shape[1] * shape[2]) / P ** 2])];
  if (!lengths.concat(Object.keys(orders ?? {})).every((length) => isOrder(orders?.[length], Number(length))))
    throw wrong;
  const imageOf = (i) => images.subarray(i * size, (i + 1) * size);
  const [dataName, limits] = [model.get("data_name"), readLimits(model, counts[0])];
  if (![...names, dataName].every(isText)) throw new Error("its names are damaged or incomplete");
  return { shape, counts, names, images, labels, mean, std, orders, limits, patchSizes, imageOf, dataName };
}

/** The buttons of a run. `seeds` trains with so many seeds, one after the other; what `tell` said before is over. */
function makeButtons(model, runner, seeds, tell) {
  const train = button("Train", () => put(model, "running", !model.get("running")));
  const step = button("Step", () => {
    tell("");
    runner.go(1);
  });
  const reset = button("Reset", () => {
    tell("");
    runner.reset();
  });
  const newSeed = button("New seed", () => addSeed(model));
  const draw = () => say(train, model.get("running") ? "Pause" : "Train");
  const several = [3, 5].map((n) => button(`Train ${n} seeds`, () => seeds(n)));
  const el = h("div", { class: "mx-row mx-buttons" }, train, step, reset, newSeed, ...several);
  return { el, draw };
}

function addSeed(model) {
  const settings = model.get("settings");
  put(model, "settings", { ...settings, seed: (settings.seed % 1e6) + 1 });
}

/** A run, the runs that are kept, and the buttons of both. */
function makeRuns(model, lab, tell, later) {
  let series; // of seeds under way: how many are left, the run of this one, and the settings to go back to
  const begin = (left, first) => {
    runner.reset();
    series = { left, id: runner.id, first };
    runner.go();
  };
  const runner = new Runner(model, lab, later, (isFinished) => {
    const { left, first } = runner.id === series?.id ? series : {};
    series = undefined;
    if (!left) return;
    if (isFinished) compare.keep();
    if (!areSame(model.get("settings"), runner.settings)) return;
    if (left === 1 || !isFinished) return put(model, "settings", first); // so that the next series has the same seeds
    addSeed(model);
    begin(left - 1, first);
  });
  const compare = makeCompare(model, runner);
  const seeds = (n) => begin(n, model.get("settings"));
  return { runner, compare, buttons: makeButtons(model, runner, seeds, tell) };
}

/** A part that can be folded away; it is drawn while it is open. */
function folded(words, isClosed, { el, draw }, later) {
  const box = foldable(words, isClosed, el);
  box.addEventListener("toggle", later);
  return { el: box, draw: (scene) => box.open && draw(scene) };
}

/** What the run shows, part by part. */
function makeViews(model, lab, { runner, compare }, tell, later) {
  const probe = new Probe(model, lab, later);
  const reader = lab.shape[0] === 1 || lab.isOwn ? makeReader(lab, probe, later) : undefined;
  const sources = makeSources(lab, probe, reader?.drawing, later);
  const moveTo = (epoch) => {
    tell("");
    runner.moveTo(epoch);
  };
  return [
    makeCurves(moveTo),
    makeMaps(compare.kept, later),
    folded("Mistakes", false, makeAnswers(lab), later),
    ...(reader ? [folded("Your drawing", false, reader, later)] : []),
    folded("Influence on a token", true, sources, later),
    compare,
    folded("Share", false, makeShare(model, lab, runner, tell), later),
  ];
}

/** What is said where the run that is shown has other settings than those chosen. */
function differenceOf(shown, chosen) {
  if (areSame(shown, chosen)) return "";
  if (!areSame({ ...shown, seed: chosen.seed }, chosen)) return " The settings have changed: Train begins a new run.";
  return ` This run has the seed ${shown.seed}; Train begins one with ${chosen.seed}.`;
}

/** Show a figure whose settings were just chosen by an address, with the focus on Train. */
function arrive(box) {
  for (let part = box.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
  box.scrollIntoView();
  box.querySelector(".mx-buttons button").focus();
}

/** The laboratory for some data, in a place of its own. `notice` holds the words to say. Returns { draw, end }. */
function makeParts(model, lab, place, notice, later) {
  const tell = (text) => {
    notice.words = text;
    later();
  };
  const settings = makeSettings(model, lab);
  const runs = makeRuns(model, lab, tell, later);
  const { runner, buttons } = runs;
  const views = makeViews(model, lab, runs, tell, later);
  const [cost, facts] = [note(), statusLine()];
  place.replaceChildren(settings.el, cost, buttons.el, facts, ...views.map(({ el }) => el));
  checkSettings(model, lab);
  runner.reset();

  const draw = () => {
    checkSettings(model, lab);
    runner.follow();
    const { history, config, order, shown, words } = runner;
    const epoch = shown?.epoch ?? 0;
    const moments = runner.moments.map((moment) => ({ epoch: moment.epoch, words: runner.inWords(moment.epoch) }));
    const now = { settings: model.get("settings"), runs: readRuns(model), dark: isDark() };
    const { n_epochs: nEpochs } = runner.settings;
    const scene = { ...now, ...shown, history, config, order, epoch, moments, nEpochs };
    say(cost, `${costOf(configOf(lab, now.settings))}.`);
    for (const part of [settings, buttons, ...views]) part.draw(scene);
    const done = `Epoch ${runner.inWords(epoch)} of ${nEpochs}.`;
    const differs = differenceOf(runner.settings, now.settings);
    say(facts, `${notice.words || (runner.isLive && words) || done}${differs}`);
    if (model.get("running")) notice.words = "";
  };
  return { draw, end: () => runner.end() };
}

function build(model, box, later, atEnd) {
  const lab = readLab(model);
  const [notice, first] = [{ words: "" }, model.get("settings")];
  const own = makeOwn(model, lab, () => (notice.words = ""));
  const place = h("div", { class: "mx-parts" });
  box.classList.add("mx-lab");
  box.append(note(HINT), own.el, place);
  let [data, parts] = [];
  const take = (hash) => {
    own.leave(); // the settings of a link are for the data of the figure
    put(model, "running", false);
    notice.words = takeSettings(model, lab, hash, first) || "These are the settings of the link; press Train.";
    later();
    requestAnimationFrame(() => arrive(box)); // once everything stands in its place
  };
  atEnd(followLinks(box, take));
  atEnd(() => parts?.end());

  return () => {
    if (!box.isConnected) parts?.end();
    if (data !== own.data()) {
      parts?.end();
      data = own.data();
      parts = makeParts(model, data, place, notice, later);
      if (data.isOwn) place.querySelector(".mx-buttons").scrollIntoView(); // with the curves below
      if (data.isOwn) put(model, "running", true);
    }
    own.draw();
    parts.draw();
  };
}

/** An error, if the settings cannot be: a kernel checks them too, a damaged page does not. */
function checkSettings(model, lab) {
  const problem = firstProblem(lab, model.get("settings"));
  if (problem) throw new Error(`it holds a setting that cannot be. ${problem}`);
}

export default { render: (view) => live(view, TRAITS, build) };
