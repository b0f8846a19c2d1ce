// A run of the laboratory, as the page sees it: what the engine sent, and the moment that is shown.

import { startRun } from "./engine.js";
import { bytes } from "./numerics.js";
import { percent, put } from "./page.js";
import { areSame, configOf } from "./settings.js";

const MOST_BYTES = 200e6; // of weights that are kept, one set for each epoch; of more, every second set goes

/** A run of training and its history. `changed` is called when there is something new, `ended` when a run has finished or failed. */
export class Runner {
  constructor(model, lab, changed, ended) {
    Object.assign(this, {
      model,
      lab,
      changed,
      ended,
      id: 0,
      isBusy: false,
    });
  }

  get isFinished() {
    return this.history.length >= this.settings.n_epochs;
  }

  get stepsPerEpoch() {
    return Math.ceil(this.settings.n_train / this.settings.batch_size);
  }

  /** A fresh run of the settings, which has not begun; with these weights, or with new ones. */
  reset(weights) {
    const [{ model, lab }, settings] = [this, this.model.get("settings")];
    const fresh = { history: [], snapshots: [], words: "", wanted: Infinity, now: undefined, result: undefined };
    Object.assign(this, fresh, { settings, config: configOf(lab, settings), id: this.id + 1, isBusy: false });
    this.isPausing = false;
    this.isOpened = Boolean(weights);
    this.order = orderOf(lab, settings);
    this.port ??= startRun((data) => this.hear(data));
    const { counts, images, labels, mean, std } = lab;
    const data = { counts, images, labels, mean, std, order: this.order, engine: bytes(model.get("engine")) };
    this.port.post({ kind: "start", id: this.id, config: this.config, recipe: settings, weights, ...data });
    model.set("history", []);
    model.set("step", 0);
    put(model, "running", false);
    this.changed();
  }

  /** Train so many steps, of which a single one ends a run; a run of other settings, or one that is over, begins anew. */
  go(steps = 1e9) {
    const isOver = !this.port || this.isFinished || this.words;
    if (isOver || !areSame(this.settings, this.model.get("settings"))) this.reset();
    Object.assign(this, { wanted: Infinity, isBusy: true, isSingle: steps === 1 });
    put(this.model, "running", !this.isSingle);
    this.port.post({ kind: "run", steps });
  }

  /** Do what the trait `running` says, which a button or a kernel may have set. */
  follow() {
    const isWanted = this.model.get("running");
    if (isWanted && (!this.isBusy || this.isSingle)) this.go();
    if (isWanted || !this.isBusy || this.isSingle) return;
    this.isPausing = true;
    this.port.post({ kind: "pause" });
  }

  /** Stop for good, as when the figure is no longer in the page. Where it comes back, Train begins anew. */
  end() {
    if (!this.port) return;
    this.port.end();
    Object.assign(this, { port: undefined, isBusy: false, id: this.id + 1 }); // what is on its way is not heard
    put(this.model, "running", false);
  }

  hear(message) {
    if (message.id !== undefined && message.id !== this.id) return; // of a run that was reset
    const { kind, params, shares = this.now?.shares, step } = message;
    if (params) this.now = { params, shares, epoch: step / this.stepsPerEpoch };
    if (step !== undefined) this.model.set("step", step);
    if (kind === "started" || kind === "epoch") this.keep(this.now);
    if (kind === "epoch") this.model.set("history", (this.history = [...this.history, message.record]));
    if (kind === "end") this.result = { test_loss: message.test_loss, test_accuracy: message.test_accuracy };
    if (kind === "failed") Object.assign(this, { words: `Stopped: ${message.words}.`, now: this.snapshots.at(-1) });
    if (kind === "pause" || kind === "failed") this.rest();
    this.changed();
  }

  /** The run stands still: the weights go to the kernel. */
  rest() {
    const isWanted = this.isPausing && this.model.get("running"); // again, before the pause came about
    Object.assign(this, { isBusy: false, isPausing: false });
    if (isWanted && !this.words && !this.result) return this.go();
    if (this.now) {
      this.model.set("trained", this.settings);
      this.model.set("weights", new DataView(this.now.params.slice().buffer));
    }
    put(this.model, "running", false);
    if (this.result) {
      this.words = `Finished: ${percent(this.result.test_accuracy)} of the test images are answered rightly.`;
    }
    if (this.words) this.ended(Boolean(this.result));
  }

  keep(snapshot) {
    this.snapshots.push(snapshot);
    if (this.snapshots.length * snapshot.params.byteLength > MOST_BYTES)
      this.snapshots = this.snapshots.filter((_, i) => i % 2 === 0 || i === this.snapshots.length - 1);
  }

  /** Show the last moment at or before an epoch; from the one where the run stands on, that one, also as it goes on. */
  moveTo(epoch) {
    this.wanted = epoch < this.now?.epoch ? Math.max(0, epoch) : Infinity;
    this.changed();
  }

  get isLive() {
    return this.wanted === Infinity;
  }

  /** The moments that can be shown: those whose weights are kept, and the one where the run stands. */
  get moments() {
    const isBetween = this.now?.epoch > this.snapshots.at(-1)?.epoch;
    return isBetween ? [...this.snapshots, this.now] : this.snapshots;
  }

  /** The moment that is shown, with its weights, answers and epoch; undefined before the first. */
  get shown() {
    return this.isLive ? this.now : this.moments.findLast(({ epoch }) => epoch <= this.wanted);
  }

  /** An epoch in words, rounded down, since none counts before it is done; its digits tell each step from the next. */
  inWords(epoch) {
    if (Number.isInteger(epoch)) return String(epoch);
    const digits = Math.max(1, Math.ceil(Math.log10(this.stepsPerEpoch)));
    const unit = 10 ** digits;
    return (Math.floor(epoch * unit + 1e-6) / unit).toFixed(digits); // a product may lie just below its whole number
  }
}

/** Where each pixel comes from in images that are shuffled as the settings say: `pixel_order` in mixer/data.py. */
function orderOf({ orders, shape: [, H, W] }, { shuffle, patch_size: P }) {
  if (shuffle === "none") return undefined;
  if (shuffle === "global") return orders[H * W];
  const columns = W / P;
  const place = (token, pixel) =>
    (Math.floor(token / columns) * P + Math.floor(pixel / P)) * W + (token % columns) * P + (pixel % P);
  const order = new Int32Array(H * W);
  orders[(H * W) / P ** 2].forEach((from, token) =>
    orders[P * P].forEach((pixel, k) => (order[place(token, k)] = place(from, pixel))),
  );
  return order;
}
