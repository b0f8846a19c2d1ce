// The engine in JavaScript: a network in the memory of engine.wasm, and a run of training in a worker.
// What `startRun` names is also the text of the worker, so these functions and classes use nothing else.

import { sizesOf } from "./numerics.js";

const MIXINGS = ["mlp", "linear", "none", "random", "average", "shift", "toeplitz", "low_rank", "kronecker"];
export const WITH_HIDDEN = ["mlp", "random", "low_rank"]; // ways to mix tokens that have hidden units
const TABLES =
  "sizes recipe images labels pixel_order params grads patches logits probabilities pooled influence shares losses stream hidden".split(
    " ",
  );
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123]; // a module with nothing but the type of a vector
const NO_SIMD = "this browser has no WebAssembly with SIMD; one of 2023 or later has";

const pair = (name, weight, bias) => Object.entries({ [`${name}.weight`]: weight, [`${name}.bias`]: bias });

const dense = (name, nOut, nIn) => pair(name, [nOut, nIn], [nOut]);
const mlpOf = (name, n, nHidden) => [...dense(`${name}.fc1`, nHidden, n), ...dense(`${name}.fc2`, n, nHidden)];

/** Names and shapes of the parameters of a model, in the order of PyTorch and of the engine. */
export function tensorsOf(config) {
  const { shape, nTokens, nChannel: C } = sizesOf(config);
  const table = config.norm === "channels" ? [C] : [nTokens, C];
  const norm = (name) => pair(`${name}.norm`, table, table);
  const token = (name) => {
    const kind = config.token_mixing;
    if (kind === "none") return [];
    if (WITH_HIDDEN.includes(kind)) return [...norm(name), ...mlpOf(name, nTokens, config.n_hidden_token)];
    if (kind === "linear") return [...norm(name), ...dense(`${name}.fc`, nTokens, nTokens)];
    return [...ownOf(config, name), ...norm(name)];
  };
  const channel = (name) =>
    config.channel_mixing === "none" ? [] : [...norm(name), ...mlpOf(name, C, config.n_hidden_channel)];
  const layers = Array.from({ length: config.n_layers }, (_, i) => [
    ...token(`layers.${i}.token_mixing`),
    ...channel(`layers.${i}.channel_mixing`),
  ]);
  const first = dense("per_patch.linear", C, shape[0] * config.patch_size ** 2);
  return [...first, ...layers.flat(), ...norm("output"), ...dense("output.linear", config.n_output, C)];
}

/** The parameters that a block of token mixing holds itself, and not in a layer of its own. */
function ownOf(config, name) {
  const { rows, columns, nTokens } = sizesOf(config);
  const own = {
    toeplitz: { kernel: [2 * rows - 1, 2 * columns - 1], bias: [1] },
    kronecker: { down: [rows, rows], across: [columns, columns], bias: [nTokens] },
  };
  return Object.entries(own[config.token_mixing] ?? {}).map(([part, shape]) => [`${name}.${part}`, shape]);
}

/** The engine, started. `view` gives a table of it as an array, which is valid until memory is reserved again. */
export class Engine {
  /** The engine from the bytes of engine.wasm. */
  static async start(bytes) {
    if (!globalThis.WebAssembly?.validate(Uint8Array.from(SIMD))) throw new Error(NO_SIMD);
    if (!WebAssembly.validate(bytes)) throw new Error("its engine is damaged or incomplete");
    const { instance } = await WebAssembly.instantiate(bytes);
    const engine = new Engine();
    engine.calls = instance.exports;
    return engine;
  }

  view(Type, name, n, i = 0) {
    return new Type(this.calls.memory.buffer, this.calls.address(TABLES.indexOf(name), i), n);
  }

  /** Make room for a network of which so many images pass at once. */
  configure(config, batch) {
    const names = ["patch_size", "n_channel", "n_hidden_token", "n_hidden_channel", "n_layers", "n_output"];
    const options = [config.norm === "channels", config.gelu === "tanh", MIXINGS.indexOf(config.token_mixing ?? "mlp")];
    const sizes = [batch, ...sizesOf(config).shape, ...names.map((name) => config[name]), ...options];
    sizes.push(config.channel_mixing !== "none");
    this.view(Int32Array, "sizes", sizes.length).set(sizes);
    this.view(Float32Array, "sizes", sizes.length + 1)[sizes.length] = config.eps;
    this.nOutput = config.n_output;
    this.nParameters = this.calls.configure();
    if (!this.nParameters) throw new Error("the model is too large for the memory of this page; choose a smaller one");
  }

  /** Put images, uint8 [N, C, H, W], their labels, and the order of their pixels into the engine. */
  setImages(images, labels, order) {
    if (!this.calls.prepare(labels.length)) throw new Error("there are too many images for the memory of this page");
    this.view(Uint8Array, "images", images.length).set(images);
    this.view(Uint8Array, "labels", labels.length).set(labels);
    if (order) this.view(Int32Array, "pixel_order", order.length).set(order);
  }

  /** Write how to train, and the mean and standard deviation of each image channel. */
  setRecipe(recipe, { mean, std }) {
    const { n_train = 1, batch_size = 1, n_epochs = 1, optimiser = "adam", seed = 1, affine = 0 } = recipe;
    const { lr = 1e-3, weight_decay = 0, label_smoothing = 0, warm_up, clip } = recipe;
    const nSteps = n_epochs * Math.ceil(n_train / batch_size);
    this.view(Int32Array, "recipe", 6).set([n_train, batch_size, nSteps, optimiser === "sgd", seed, affine > 0]);
    const numbers = this.view(Float32Array, "recipe", 18);
    numbers.set([lr, weight_decay, label_smoothing, warm_up ?? -1, clip ?? 0, affine], 6);
    numbers.set(mean, 12);
    numbers.set(std, 15);
  }

  get params() {
    return this.view(Float32Array, "params", this.nParameters);
  }

  /** Hold a network that reads one image at a time, with the arrays of its weights in the order of `tensorsOf`. */
  hold(config, weights, data, order) {
    this.configure(config, 1);
    this.setImages([], [0], order);
    this.setRecipe({}, data);
    let at = 0;
    for (const weight of weights) {
      this.params.set(weight, at);
      at += weight.length;
    }
  }

  /** The probabilities of an image, uint8 [C, H, W]; a layer whose `mixing` is false leaves its token mixing out. */
  read(image, mixing = []) {
    this.view(Uint8Array, "images", image.length).set(image);
    this.calls.run_one(mixing.reduce((off, on, i) => (on ? off : off | (1 << i)), 0));
    return this.view(Float32Array, "probabilities", this.nOutput);
  }

  /** How much each of n tokens influences token t in a layer, for the image that was read; defined in flow.js. */
  influence(layer, t, n) {
    this.calls.influence(layer, t);
    return this.view(Float32Array, "influence", n);
  }

  /** Loss and accuracy of images from `first` on, and the probabilities [n, n_output] that the model gives. */
  evaluate(first, n, nOutput) {
    const right = this.calls.evaluate(first, n);
    const losses = this.view(Float32Array, "losses", n);
    const shares = this.view(Float32Array, "shares", n * nOutput).slice();
    return { loss: losses.reduce((sum, loss) => sum + loss, 0) / n, accuracy: right / n, shares };
  }
}

/**
 * A run of training that obeys the messages of a port: "start" with a job, "run" for so many steps, "pause".
 *
 * It answers with "step" after each slice of so many milliseconds, "epoch" with the record, the weights and the answers
 * to the validation images, "end", "pause", and "failed" with a sentence. Between slices it hears the next message; what
 * is computed does not depend on them. With its first job it trains for so many milliseconds and forgets that again:
 * a browser compiles code well only after it has run, and so the first epochs are as fast as the others.
 */
class TrainingRun {
  constructor(port, slice, rehearsal) {
    const { port1, port2 } = new MessageChannel(); // a task that comes at once, also in a tab in the background
    Object.assign(this, { port, slice, rehearsal, again: port1, left: 0, ready: Promise.resolve() });
    port2.onmessage = () => this.guard(() => this.work());
    port.onmessage = ({ data }) => this.hear(data);
  }

  hear(message) {
    if (message.kind !== "run") this.left = 0;
    if (message.kind !== "pause") this.ready = this.ready.then(() => this.guard(() => this[message.kind](message)));
  }

  async guard(action) {
    try {
      await action();
    } catch (error) {
      this.left = 0;
      this.port.postMessage({ kind: "failed", id: this.job?.id, words: error.message });
    }
  }

  async start(job) {
    this.hasStarted = false; // and stays so if anything below is not to be had: then nothing can run
    this.engine ??= await Engine.start(job.engine);
    this.job = { ...job, perEpoch: Math.ceil(job.recipe.n_train / job.recipe.batch_size) };
    this.seconds = this.epochStart = 0;
    this.engine.configure(job.config, 16);
    this.engine.setImages(job.images, job.labels, job.order);
    this.engine.setRecipe(job.recipe, job);
    this.begin();
    this.send("started", { shares: this.evaluate(1).shares });
    const end = performance.now() + this.rehearsal;
    while (performance.now() < end && this.engine.calls.train_step());
    this.rehearsal = 0;
    this.begin();
    this.hasStarted = true;
  }

  /** The weights of the beginning, and no step taken. */
  begin() {
    this.engine.calls.start();
    if (this.job.weights) this.engine.params.set(this.job.weights);
  }

  run({ steps }) {
    if (!this.hasStarted) return;
    const isIdle = this.left <= 0;
    this.left = Math.min(steps, this.job.perEpoch * this.job.recipe.n_epochs - this.engine.calls.steps());
    if (isIdle) this.again.postMessage(0);
  }

  /** Send a message with the weights as they are now. */
  send(kind, about = {}) {
    const [{ calls, params }, { id, perEpoch, recipe }] = [this.engine, this.job];
    const seen = calls.steps() % perEpoch;
    const loss = calls.loss() / (seen ? seen * recipe.batch_size : recipe.n_train);
    const message = { kind, id, step: calls.steps(), loss, params: params.slice(), ...about };
    this.port.postMessage(message, [message.params.buffer]);
  }

  /** Loss, accuracy and answers of the validation (1) or the test split (2). */
  evaluate(split) {
    const { counts, config } = this.job;
    const first = counts.slice(0, split).reduce((a, b) => a + b);
    return this.engine.evaluate(first, counts[split], config.n_output);
  }

  work() {
    const { calls } = this.engine;
    const start = performance.now();
    for (let now = start; this.left > 0 && now - start < this.slice; this.left--) {
      this.rate = calls.rate();
      if (!calls.train_step()) return this.fail(calls.steps() + 1);
      this.seconds += (performance.now() - now) / 1000;
      if (calls.steps() % this.job.perEpoch === 0 && !this.endEpoch()) return this.fail(calls.steps());
      now = performance.now();
    }
    if (calls.steps() % this.job.perEpoch) this.send("step");
    if (this.left > 0) this.again.postMessage(0);
    else this.send("pause");
  }

  fail(step) {
    const epoch = Math.ceil(step / this.job.perEpoch);
    this.left = 0;
    this.send("failed", { words: `the loss is no longer a number in epoch ${epoch}; choose a smaller lr` });
  }

  /** Send what the epoch came to; false, and nothing is sent, if the validation loss is not a number. */
  endEpoch() {
    const [{ calls }, { perEpoch, recipe }] = [this.engine, this.job];
    const { loss, accuracy, shares } = this.evaluate(1);
    if (!Number.isFinite(loss)) return false;
    const seconds = this.seconds - this.epochStart;
    this.epochStart = this.seconds;
    const record = {
      epoch: calls.steps() / perEpoch,
      train_loss: calls.loss() / recipe.n_train,
      train_accuracy: calls.correct() / recipe.n_train,
      validation_loss: loss,
      validation_accuracy: accuracy,
      lr: this.rate,
      seconds,
      images_per_second: Math.round(recipe.n_train / Math.max(seconds, 1e-6)),
    };
    this.send("epoch", { record, shares });
    if (record.epoch < recipe.n_epochs) return true;
    this.left = 1; // the loop takes it away
    const test = this.evaluate(2);
    this.send("end", { test_loss: test.loss, test_accuracy: test.accuracy });
    return true;
  }
}

/** A run of training in slices on the page's own thread. */
function runHere(answer) {
  const { port1, port2 } = new MessageChannel();
  const run = new TrainingRun(port2, 8, 0);
  port1.onmessage = ({ data }) => answer(data);
  return { post: (message) => port1.postMessage(message), end: () => run.hear({ kind: "pause" }) };
}

/** A port to a run of training: in a worker, or, where none can be had, on the page's own thread. */
export function startRun(answer) {
  const constants = Object.entries({ MIXINGS, WITH_HIDDEN, TABLES, SIMD, NO_SIMD });
  const lines = constants.map(([name, value]) => `const ${name} = ${JSON.stringify(value)};`);
  const parts = [sizesOf, Engine, TrainingRun].map(String);
  const text = [...lines, ...parts, "new TrainingRun(self, 50, 300);"].join("\n");
  let [port, waiting] = [undefined, []]; // messages to a worker that has not answered yet
  const fallBack = () => {
    port = runHere(answer);
    waiting.forEach(port.post);
    waiting = undefined;
  };
  try {
    const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
    const worker = new Worker(url);
    worker.onmessage = ({ data }) => {
      waiting = undefined;
      answer(data);
    };
    // A page may forbid workers: an error before any answer says so.
    worker.onerror = ({ message }) => (waiting ? fallBack() : answer({ kind: "failed", words: message }));
    port = { post: (message) => worker.postMessage(message), end: () => worker.terminate() };
  } catch {
    fallBack();
  }
  const post = (message) => {
    waiting?.push(message);
    port.post(message);
  };
  return { post, end: () => port.end() };
}
