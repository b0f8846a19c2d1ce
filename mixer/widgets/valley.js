// ValleyExplorer: the loss after a short run of training against the learning rate, each run trained in the page.

import {
  button,
  choice,
  h,
  isDark,
  live,
  note,
  panel,
  put,
  row,
  say,
  slider,
  statusLine,
  timeRow,
  title,
} from "./page.js";
import { acrossOf, BAND, frameOf, isAbove, pathOf, planeOf, upOf, uprightAt } from "./plane.js";
import {
  FIRST_SEED,
  keyOf,
  missingRates,
  OPTIMISERS,
  RATES,
  readJob,
  readScene,
  stepsOf,
  VALLEY_TRAITS,
} from "./rates.js";
import { Sweep } from "./sweep.js";

const INKS = { light: { adam: "#0072b2", sgd: "#d55e00" }, dark: { adam: "#56b4e9", sgd: "#f28c3c" } };
const ENDS = [RATES[0], RATES.at(-1)];
const RATE_TICKS = [0.0001, 0.001, 0.01, 0.1, 1, 10];
const JUMP = 1.5; // times the first loss, beyond which a run is said to jump
const HARDLY = 0.9; // of the first loss; a run that ends above is said hardly to fall
const LANE = 7; // above and below the middle of the band, where the marks of the two optimisers stand
const STYLE = "max-width: 30rem; forced-color-adjust: none";
const HINT =
  "Every dot is a run that was trained in this page: the same small Mixer, from the start, on the same digits. Filled " +
  "dots are those of the chosen optimiser, hollow ones those of the other; Adam has circles, plain gradient descent " +
  "squares. A triangle at the top is a loss above 10, a cross one that is no longer a number. The dotted line is the " +
  "loss of a model that knows nothing. Both axes of losses are logarithmic.";

const OFFERED = Object.entries(OPTIMISERS).map(([kind, words]) => [kind, words[0].toUpperCase() + words.slice(1)]);

const inkOf = (optimiser) => INKS[isDark() ? "dark" : "light"][optimiser];
const rateAt = (lr) => acrossOf(lr, ENDS, true);

/** A loss in words. */
function lossInWords(loss) {
  if (loss < 1000) return loss.toPrecision(3);
  return loss < 1e6 ? Math.round(loss).toLocaleString("en-US") : "more than a million";
}

/** The mark of a run at a place: a dot, or, above the axis, a triangle or a cross. */
function markAt(x, y, { optimiser, loss, isGhost = false }) {
  const ink = inkOf(optimiser);
  const look = isGhost ? `fill="none" stroke="${ink}" stroke-opacity="0.75"` : `fill="${ink}" stroke="none"`;
  const open = `fill="none" stroke="${ink}" stroke-width="${isGhost ? 1 : 2}"`;
  if (loss === null) return `<path d="M${x - 4} ${y - 4}l8 8m0 -8l-8 8" ${open}/>`;
  if (isAbove(loss)) return `<path d="M${x - 5} ${y + 4}h10l-5 -9z" ${look}/>`;
  if (optimiser === "adam") return `<circle cx="${x}" cy="${y}" r="4" ${look}/>`;
  return `<rect x="${x - 3.5}" y="${y - 3.5}" width="7" height="7" ${look}/>`;
}

/** The mark of a run at its rate and its loss. */
function dotOf([optimiser, , lr, loss], isGhost) {
  const lane = optimiser === "adam" ? -LANE : LANE;
  return markAt(rateAt(lr), upOf(loss) + (isAbove(loss) ? lane : 0), { optimiser, loss, isGhost });
}

/** Lines through the runs of an optimiser, one for each seed. */
function linesOf(optimiser, losses) {
  const own = losses.filter((run) => run[0] === optimiser).toSorted((a, b) => a[2] - b[2]);
  const seeds = [...new Set(own.map(([, seed]) => seed))];
  return seeds.map((seed) => {
    const points = own.filter((run) => run[1] === seed && !isAbove(run[3])).map(([, , lr, loss]) => [rateAt(lr), loss]);
    return pathOf(points, inkOf(optimiser), 'stroke-width="1" stroke-opacity="0.5"');
  });
}

/** The losses after the runs, by learning rate. */
function makeValley(guess) {
  const box = h("div", { role: "img" });
  const ticks = RATE_TICKS.map((lr) => [rateAt(lr), String(lr)]);
  function draw({ chosen, losses }) {
    const isOther = ([optimiser]) => optimiser !== chosen.optimiser;
    const ordered = [...losses.filter(isOther), ...losses.filter((run) => !isOther(run))];
    const marks = ordered.map((run) => dotOf(run, isOther(run)));
    const parts = [frameOf(ticks, guess), uprightAt(rateAt(chosen.lr)), ...linesOf(chosen.optimiser, losses), ...marks];
    box.innerHTML = planeOf(parts, STYLE);
    const counts = Object.keys(OPTIMISERS).map(
      (kind) => `${losses.filter(([own]) => own === kind).length} with ${OPTIMISERS[kind]}`,
    );
    box.setAttribute(
      "aria-label",
      `Loss against learning rate: ${counts.join(", ")}. The chosen rate is ${chosen.lr}.`,
    );
  }
  return { el: panel("mx-wide", title("Loss after the run, by learning rate"), box), draw };
}

/** The loss of each batch in the run of the chosen rate; behind it the runs of other seeds. */
function makeCurve(guess, nSteps, curves) {
  const [heading, box] = [title(), h("div", { role: "img" })];
  const stepAt = (step) => acrossOf(step, [1, nSteps], false);
  const ticks = [1, nSteps / 4, nSteps / 2, (3 * nSteps) / 4, nSteps].map((step) => [stepAt(step), Math.round(step)]);
  const pointsOf = ({ batches, loss }) => {
    const points = batches.map((batch, i) => [stepAt(i + 1), batch]);
    return loss === null ? [...points, [stepAt(Math.min(nSteps, batches.length + 1)), null]] : points;
  };
  function draw({ chosen, losses }) {
    const ink = inkOf(chosen.optimiser);
    const seeds = losses.filter((run) => run[0] === chosen.optimiser && run[2] === chosen.lr).map(([, seed]) => seed);
    const others = seeds.filter((seed) => seed !== chosen.seed).map((seed) => curves.get(keyOf({ ...chosen, seed })));
    const own = curves.get(keyOf(chosen));
    const behind = others
      .filter(Boolean)
      .map((curve) => pathOf(pointsOf(curve), ink, 'stroke-width="1" stroke-opacity="0.4"'));
    const parts = [frameOf(ticks, guess), ...behind];
    if (own) parts.push(pathOf(pointsOf(own), ink, 'stroke-width="2"'));
    if (own?.loss === null)
      parts.push(markAt(pointsOf(own).at(-1)[0], BAND, { optimiser: chosen.optimiser, loss: null }));
    box.innerHTML = planeOf(parts, STYLE);
    const words = `Loss step by step, learning rate ${chosen.lr}`;
    say(heading, words);
    box.setAttribute(
      "aria-label",
      `${words}; ${own ? `${own.batches.length} of ${nSteps} steps` : "not trained yet"}.`,
    );
  }
  return { el: panel("mx-wide", heading, box), draw };
}

/** The optimiser, the learning rate, and the buttons that train all rates and forget them. */
function makeControls(model, sweep) {
  const optimiser = choice("Optimiser", OFFERED, {
    change: (kind) => put(model, "optimiser", kind),
  });
  const rate = slider("Learning rate", { text: (i) => String(RATES[i]), change: (i) => put(model, "lr", RATES[i]) });
  rate.range(RATES.length - 1);
  const all = button("", () => {
    if (sweep.isSweeping) return sweep.stop();
    const { chosen, losses } = readScene(model);
    const next = missingRates(chosen, losses).length ? chosen : { ...chosen, seed: (chosen.seed % 1e6) + 1 };
    put(model, "seed", next.seed);
    sweep.add(missingRates(next, losses).map((lr) => ({ ...next, lr })));
  });
  const reset = button("Reset", () => {
    sweep.reset();
    model.set("seed", FIRST_SEED);
    put(model, "losses", []);
  });
  function draw({ chosen, losses }) {
    optimiser.set(chosen.optimiser);
    rate.set(RATES.indexOf(chosen.lr));
    const isDone = missingRates(chosen, losses).length === 0;
    say(all, sweep.isSweeping ? "Stop" : isDone ? "Train all rates with another seed" : "Train all rates");
  }
  return { el: h("div", {}, row(optimiser.el, all, reset), timeRow(rate.el)), draw };
}

/** What became of the loss in a run. */
function runInWords({ batches, loss }, nSteps) {
  if (loss === null) return `after ${batches.length} of ${nSteps} steps the loss is no longer a number`;
  const [first, most] = [batches[0], Math.max(...batches)].map(lossInWords);
  if (Math.max(...batches) > JUMP * batches[0]) return `the loss jumps up to ${most} and ends at ${lossInWords(loss)}`;
  const falls = loss > HARDLY * batches[0] ? "hardly falls" : "falls";
  return `the loss ${falls}, from ${first} to ${lossInWords(loss)}`;
}

/** The lowest loss of the chosen optimiser, where all rates have one. */
function lowestInWords({ chosen, losses }) {
  if (missingRates(chosen, losses).length) return "";
  const own = losses.filter(([optimiser, , , loss]) => optimiser === chosen.optimiser && loss !== null);
  if (!own.length) return "";
  const best = own.reduce((one, other) => (other[3] < one[3] ? other : one));
  return ` The lowest dot of ${OPTIMISERS[chosen.optimiser]} is ${lossInWords(best[3])}, at the learning rate ${best[2]}.`;
}

function build(model, box, later, atEnd) {
  const job = readJob(model);
  const sweep = new Sweep(model, job, later);
  const [nSteps, guess] = [stepsOf(job.recipe), Math.log(job.config.n_output)];
  const parts = [makeControls(model, sweep), makeValley(guess), makeCurve(guess, nSteps, sweep.curves)];
  const [controls, valley, curve] = parts;
  const facts = statusLine();
  box.classList.add("mx-valley");
  box.append(controls.el, facts, row(valley.el, curve.el), note(HINT));
  atEnd(() => sweep.end());

  return () => {
    const scene = readScene(model);
    sweep.follow(scene.chosen);
    for (const part of parts) part.draw(scene);
    const { optimiser, lr, seed } = scene.chosen;
    const run = sweep.curves.get(keyOf(scene.chosen));
    const words = run && `Learning rate ${lr} with ${OPTIMISERS[optimiser]}, seed ${seed}: ${runInWords(run, nSteps)}.`;
    if (sweep.words || words) say(facts, sweep.words || `${words}${lowestInWords(scene)}`);
  };
}

export default { render: (view) => live(view, VALLEY_TRAITS, build) };
