// The runs of ValleyExplorer, trained one after the other: each gives a loss to the state, and a curve that stays here.

import { startRun } from "./engine.js";
import { put } from "./page.js";
import { imagesSeen, keyOf, stepsOf } from "./rates.js";

/** Runs that wait, the one under way, and the curves of those that are done. `changed` is called where only words are new. */
export class Sweep {
  constructor(model, job, changed) {
    Object.assign(this, { model, job, changed, curves: new Map(), waiting: [], id: 0, words: "" });
  }

  /** Whether several runs were asked for, and some of them are still to come. */
  get isSweeping() {
    return this.waiting.length > 0;
  }

  /** Train these runs too. */
  add(runs) {
    this.waiting.push(...runs);
    this.next();
  }

  /** Train the chosen run before all that wait, if it has no curve yet. */
  follow(chosen) {
    this.chosen = chosen;
    this.next();
  }

  /** Leave out the runs that wait. */
  stop() {
    this.waiting = [];
    this.changed();
  }

  /** Forget everything; what is on its way from the engine is not heard. */
  reset() {
    this.curves.clear();
    Object.assign(this, { waiting: [], now: undefined, id: this.id + 1, words: "" });
    this.changed();
  }

  end() {
    this.port?.end();
  }

  /** Begin the next run, where none is under way. */
  next() {
    if (this.now || this.words) return;
    const isNew = !this.curves.has(keyOf(this.chosen));
    const run = isNew ? this.chosen : this.waiting.shift();
    if (!run) return;
    Object.assign(this, { now: run, id: this.id + 1, curve: [], sum: 0, loss: undefined });
    this.waiting = this.waiting.filter((other) => keyOf(other) !== keyOf(run));
    this.port ??= startRun((message) => this.hear(message));
    const recipe = { ...this.job.recipe, ...run };
    this.port.post({ kind: "start", id: this.id, ...this.job, recipe });
    this.step();
  }

  /** Ask for one step: so the engine tells of the loss of each. */
  step() {
    this.port.post({ kind: "run", steps: 1 });
  }

  hear({ kind, id, step, loss, record, words }) {
    if (!this.now || (id !== undefined && id !== this.id)) return; // of a run that was reset
    if (kind === "epoch") this.loss = record.validation_loss;
    if (kind === "failed" && step === undefined) return this.fail(words);
    if (kind === "failed") return this.finish(null); // the loss is no longer a number
    if (kind !== "pause") return;
    this.keep(step, loss);
    if (step === stepsOf(this.job.recipe)) this.finish(this.loss);
    else this.step();
  }

  /** Keep the loss of the batch of a step; the engine gives the mean over all images of the epoch so far. */
  keep(step, mean) {
    const { recipe } = this.job;
    const isFirst = imagesSeen(recipe, step) <= recipe.batch_size;
    const [sum, n] = [mean * imagesSeen(recipe, step), isFirst ? 0 : imagesSeen(recipe, step - 1)];
    this.curve.push((sum - (isFirst ? 0 : this.sum)) / (imagesSeen(recipe, step) - n));
    this.sum = sum;
  }

  /** The run is over: its loss goes to the state. */
  finish(loss) {
    const { now, model } = this;
    this.curves.set(keyOf(now), { batches: this.curve, loss });
    this.now = undefined;
    const others = model.get("losses").filter(([optimiser, seed, lr]) => keyOf({ optimiser, seed, lr }) !== keyOf(now));
    put(model, "losses", [...others, [now.optimiser, now.seed, now.lr, loss]]);
    this.next();
  }

  fail(words) {
    Object.assign(this, { words: `The runs stopped: ${words}.`, waiting: [], now: undefined });
    this.changed();
  }
}
