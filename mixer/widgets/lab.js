// TrainingLab: a Mixer that is trained in the page. Settings, buttons, and everything that the run shows.

import { areSizes, bytes } from "./numerics.js";
import { button, h, isDark, live, note, put, say, statusLine } from "./page.js";
import { makeReader } from "./reader.js";
import { Runner } from "./runner.js";
import { configOf, costOf, firstProblem, makeSettings } from "./settings.js";
import { makeCompare, makeShare, readAddress } from "./share.js";
import { makeAnswers, makeCurves, makeMaps } from "./views.js";

const TRAITS = ["settings", "running", "step", "history", "runs"];
const HINT =
  "A whole Mixer is trained here, in the page, on one core. Choose settings, press Train, and watch what the token " +
  "mixing learns. Drag in a curve to see any earlier moment again.";

/** The data of the state, checked. */
function readLab(model) {
  const wrong = new Error("its images are damaged or incomplete");
  const [shape, counts, names] = ["shape", "counts", "class_names"].map((name) => model.get(name));
  const [images, labels] = ["images", "labels"].map((name) => bytes(model.get(name)));
  if (!areSizes(shape, 3) || !areSizes(counts, 3) || !Array.isArray(names) || names.length < 2) throw wrong;
  const [n, size] = [counts[0] + counts[1] + counts[2], shape[0] * shape[1] * shape[2]];
  if (images.length !== n * size || labels.length !== n || labels.some((label) => label >= names.length)) throw wrong;
  const [mean, std, orders, limits] = ["mean", "std", "orders", "limits"].map((name) => model.get(name));
  const patchSizes = model.get("patch_sizes");
  const divides = (P) => shape[1] % P === 0 && shape[2] % P === 0;
  if (!areSizes(patchSizes, patchSizes?.length) || !patchSizes.every(divides)) throw wrong;
  if (mean.length !== shape[0] || std.length !== shape[0]) throw wrong;
  const imageOf = (i) => images.subarray(i * size, (i + 1) * size);
  const dataName = model.get("data_name");
  return { shape, counts, names, images, labels, mean, std, orders, limits, patchSizes, imageOf, dataName };
}

/** The buttons of a run. `seeds` trains with so many seeds, one after the other. */
function makeButtons(model, runner, reset, seeds) {
  const train = button("Train", () => put(model, "running", !model.get("running")));
  const step = button("Step", () => runner.go(1));
  const newSeed = button("New seed", () => addSeed(model));
  const draw = () => say(train, model.get("running") ? "Pause" : "Train");
  const el = h(
    "div",
    { class: "mx-row mx-buttons" },
    train,
    step,
    button("Reset", reset),
    newSeed,
    button("Train 3 seeds", () => seeds(3)),
  );
  return { el, draw };
}

function addSeed(model) {
  const settings = model.get("settings");
  put(model, "settings", { ...settings, seed: (settings.seed % 1e6) + 1 });
}

/** All parts of the figure, and what happens when a run ends. */
function assemble(model, lab, tell, later) {
  let nSeeds = 0;
  const next = (isFinished) => {
    if (nSeeds && isFinished) compare.keep();
    nSeeds = isFinished ? Math.max(0, nSeeds - 1) : 0;
    if (!nSeeds) return;
    addSeed(model);
    runner.go();
  };
  const runner = new Runner(model, lab, later, next);
  const compare = makeCompare(model, runner);
  const seeds = (n) => {
    nSeeds = n;
    runner.go();
  };
  const reset = () => {
    nSeeds = 0;
    runner.reset();
  };
  const buttons = makeButtons(model, runner, reset, seeds);
  const reader = lab.shape[0] === 1 ? [makeReader(model, lab)] : [];
  const views = [makeCurves((epoch) => runner.moveTo(epoch)), makeMaps(), makeAnswers(lab), ...reader];
  return { runner, buttons, views: [...views, compare, makeShare(model, lab, runner, tell)] };
}

function build(model, box, later, atEnd) {
  const lab = readLab(model);
  let words = readAddress(model, lab);
  const tell = (text) => {
    words = text;
    later();
  };
  const settings = makeSettings(model, lab);
  const { runner, buttons, views } = assemble(model, lab, tell, later);
  atEnd(() => runner.end());
  const [cost, facts] = [note(), statusLine()];
  box.classList.add("mx-lab");
  box.append(note(HINT), settings.el, cost, buttons.el, facts, ...views.map(({ el }) => el));
  checkSettings(model, lab);
  runner.reset();
  addEventListener("hashchange", () => {
    if (!box.isConnected) return;
    tell(readAddress(model, lab) || "These are the settings of the link; press Train.");
    box.scrollIntoView();
  });

  return () => {
    if (!box.isConnected) runner.end();
    checkSettings(model, lab);
    runner.follow();
    const { history, config, order, epoch } = runner;
    const now = { settings: model.get("settings"), runs: model.get("runs"), dark: isDark() };
    const { n_epochs: nEpochs } = runner.settings;
    const scene = { ...now, ...runner.shown, history, config, order, epoch, nEpochs };
    say(cost, `${costOf(configOf(lab, now.settings))}.`);
    for (const part of [settings, buttons, ...views]) part.draw(scene);
    const done = `Epoch ${epoch.toFixed(1)} of ${nEpochs}.`;
    const differs = runner.settings === now.settings ? "" : " The settings have changed: Train begins a new run.";
    say(facts, `${words || runner.words || done}${differs}`);
    if (model.get("running")) words = "";
  };
}

/** An error, if the settings cannot be: a kernel checks them too, a damaged page does not. */
function checkSettings(model, lab) {
  const problem = firstProblem(lab, model.get("settings"));
  if (problem) throw new Error(problem);
}

export default { render: (view) => live(view, TRAITS, build) };
