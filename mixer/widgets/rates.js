// The state of ValleyExplorer, checked: its images, the rates, and the losses of the runs that were trained.

import { areSizes, bytes, product } from "./numerics.js";

export const VALLEY_TRAITS = ["optimiser", "lr", "seed", "losses"];
export const OPTIMISERS = { sgd: "plain gradient descent", adam: "Adam" };
export const FIRST_SEED = 1; // this and what follows as in valley.py
const MOST_SEED = 2 ** 31 - 1;
const MOST_BYTES = 200000;
const MOST_CLASSES = 256;
const PATCH_SIZE = 2;
const BATCH_SIZE = 20;
const N_EPOCHS = 4;

const POWERS = [-4, -3, -2, -1, 0, 1];
export const RATES = POWERS.flatMap((power) => [1, 2, 5].map((digit) => Number(`${digit}e${power}`)));

const isWithin = (low, high) => (value) => Number.isFinite(value) && value > low && value < high;
const areWithin = (values, n, low, high) =>
  Array.isArray(values) && values.length === n && values.every(isWithin(low, high));
const isSeed = (seed) => Number.isInteger(seed) && seed >= FIRST_SEED && seed <= MOST_SEED;

/** The name of a run, by which its curve is found. */
export const keyOf = ({ optimiser, seed, lr }) => `${optimiser} ${seed} ${lr}`;

/** The Mixer that is trained, for images of a shape. */
const configOf = ([C, H, W], n_output) => ({
  patch_size: PATCH_SIZE,
  n_layers: 2,
  n_channel: 16,
  n_hidden_token: 32,
  n_hidden_channel: 32,
  n_image_channel: C,
  image_size: [H, W],
  n_output,
  norm: "tokens_channels",
  gelu: "erf",
  eps: 1e-5,
});

/** What a run is trained on, and how, checked: the job of `startRun` without what differs from run to run. */
export function readJob(model) {
  const wrong = new Error("its images are damaged or incomplete");
  const [shape, nOutput, mean, std] = ["shape", "n_output", "mean", "std"].map((name) => model.get(name));
  const [images, labels, engine] = ["images", "labels", "engine"].map((name) => bytes(model.get(name)));
  if (!areSizes(shape, 3) || !areSizes([nOutput], 1) || nOutput > MOST_CLASSES) throw wrong;
  const n = labels.length;
  if (!n || images.length !== n * product(shape) || images.length > MOST_BYTES) throw wrong;
  if (shape[1] % PATCH_SIZE || shape[2] % PATCH_SIZE || labels.some((label) => label >= nOutput)) throw wrong;
  if (!areWithin(mean, shape[0], -1e6, 1e6) || !areWithin(std, shape[0], 1e-6, 1e6)) throw wrong;
  // The training images stand in the place of the validation images: the record of an epoch holds their loss after it.
  const counts = [0, n, 0];
  const recipe = { n_train: n, batch_size: BATCH_SIZE, n_epochs: N_EPOCHS };
  return { config: configOf(shape, nOutput), recipe, counts, images, labels, mean, std, engine };
}

/** The number of images of which the engine gives the mean loss, after so many steps: those of the epoch so far. */
export const imagesSeen = ({ n_train: n, batch_size: B }, step) => (step % Math.ceil(n / B)) * B || n;

/** The steps of a run. */
export const stepsOf = ({ n_train, batch_size, n_epochs }) => n_epochs * Math.ceil(n_train / batch_size);

/** Whether a value is [optimiser, seed, lr, loss], where the loss may be null. */
function isRun(run) {
  if (!Array.isArray(run) || run.length !== 4) return false;
  const [optimiser, seed, lr, loss] = run;
  const isLoss = loss === null || (Number.isFinite(loss) && loss >= 0);
  return Object.hasOwn(OPTIMISERS, optimiser) && isSeed(seed) && RATES.includes(lr) && isLoss;
}

/** The chosen run, and the losses of all that were trained, checked. */
export function readScene(model) {
  const [optimiser, lr, seed, losses] = VALLEY_TRAITS.map((name) => model.get(name));
  if (!Object.hasOwn(OPTIMISERS, optimiser)) throw new Error(`there is no optimiser ${optimiser}`);
  if (!RATES.includes(lr)) throw new Error(`there is no learning rate ${lr}`);
  if (!isSeed(seed)) throw new Error(`there is no seed ${seed}`);
  if (!Array.isArray(losses) || !losses.every(isRun)) throw new Error("its losses are damaged or incomplete");
  return { chosen: { optimiser, lr, seed }, losses };
}

/** The rates that have no loss yet with an optimiser and a seed. */
export function missingRates({ optimiser, seed }, losses) {
  const own = losses.filter((run) => run[0] === optimiser && run[1] === seed).map(([, , lr]) => lr);
  return RATES.filter((lr) => !own.includes(lr));
}
