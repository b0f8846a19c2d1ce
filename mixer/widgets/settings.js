// Settings of the laboratory: what can be chosen, what is wrong with a choice, and what it means for the model.

import { sizesOf } from "./numerics.js";
import { tensorsOf, WITH_HIDDEN } from "./engine.js";
import { choice, foldable, h, newId, percent, put, say } from "./page.js";

const same = (words) => words.map((word) => [word, word]);
const GROUPS = {
  Model: [
    ["patch_size", "Patch size", "sizes"],
    ["n_layers", "Layers", "whole"],
    ["n_channel", "Channels", "whole"],
    ["n_hidden", "Hidden units", "whole"],
    [
      "token_mixing",
      "Token mixing",
      [
        ["mlp", "MLP"],
        ["linear", "one linear layer"],
        ["low_rank", "two linear layers, no GELU"],
        ["random", "MLP, frozen at random"],
        ["toeplitz", "one kernel for all positions"],
        ["kronecker", "rows, then columns"],
        ["average", "average of neighbours"],
        ["shift", "shift by one position"],
        ["none", "none"],
      ],
    ],
    ["channel_mixing", "Channel mixing", [["mlp", "MLP"], ["none", "none"]]], // prettier-ignore
    ["norm", "LayerNorm over", [["tokens_channels", "tokens and channels"], ["channels", "channels"]]], // prettier-ignore
  ],
  Data: [
    ["n_train", "Training images", "whole"],
    ["shuffle", "Shuffled pixels", same(["none", "patches", "global"])],
    ["affine", "Random turns and shifts", "number", 0, 2],
  ],
  Training: [
    ["optimiser", "Optimiser", [["adam", "AdamW"], ["sgd", "SGD"]]], // prettier-ignore
    ["lr", "Learning rate", "number", 1e-6, 100],
    ["warm_up", "Schedule", [["", "constant"], ["0.1", "warm-up, then cosine"]]], // prettier-ignore
    ["batch_size", "Batch size", "whole"],
    ["weight_decay", "Weight decay", "number", 0, 10],
    ["label_smoothing", "Label smoothing", "number", 0, 0.9],
    ["n_epochs", "Epochs", "whole"],
    ["seed", "Seed", "whole"],
  ],
};
const UNREADABLE = "The address holds no settings that can be read.";
const NO_GREY = "train.py reads pictures in colour, so no command trains on yours in grey.";
const NO_TURNS = "train.py turns and shifts digits alone, so no command trains in this way.";
const FIELDS = Object.values(GROUPS).flat();

/** What is wrong with a setting, as a sentence, or "". */
function problemOf(lab, [name, label, kind, low = 1, high = lab.limits[name]], value) {
  if (kind === "sizes") return lab.patchSizes.includes(value) ? "" : `${label}: choose ${lab.patchSizes.join(", ")}.`;
  const isShare = Number.isFinite(value) && value >= 0 && value <= 1;
  if (name === "warm_up") return value === null || isShare ? "" : `${label}: a share from 0 to 1.`;
  if (Array.isArray(kind)) {
    const known = kind.map(([one]) => one);
    return known.includes(value) ? "" : `${label}: choose ${known.join(", ")}.`;
  }
  const isRight = kind === "whole" ? Number.isInteger(value) : Number.isFinite(value);
  if (isRight && value >= low && value <= high) return "";
  return `${label}: give a ${kind === "whole" ? "whole number" : "number"} from ${low} to ${high}.`;
}

/** Whether settings are the same, as those are that were changed and changed back. */
export const areSame = (one, other) => FIELDS.every(([name]) => one[name] === other[name]);

/** The first thing that is wrong with settings, as a sentence, or "". */
export const firstProblem = (lab, settings) =>
  FIELDS.map((field) => problemOf(lab, field, settings[field[0]])).find(Boolean) ?? "";

/** Settings, changed as a text from an address says: { settings }, or a sentence on what is wrong with it: { problem }. */
export function readSettings(lab, before, text) {
  try {
    const found = JSON.parse(decodeURIComponent(text));
    const unknown = Object.keys(found).find((name) => !Object.hasOwn(before, name));
    if (Object.getPrototypeOf(found) !== Object.prototype) return { problem: UNREADABLE };
    if (unknown !== undefined) return { problem: `The address holds ${unknown.slice(0, 40)}, which is no setting.` };
    const settings = { ...before, ...found };
    const problem = firstProblem(lab, settings);
    return problem ? { problem: `The address holds a setting that cannot be. ${problem}` } : { settings };
  } catch {
    return { problem: UNREADABLE };
  }
}

/** The configuration of the model that settings name. */
export function configOf({ shape: [C, H, W], names }, settings) {
  const { patch_size, n_layers, n_channel, n_hidden, norm, token_mixing, channel_mixing } = settings;
  const sizes = { n_image_channel: C, image_size: [H, W], n_output: names.length };
  const hidden = { n_hidden, n_hidden_token: n_hidden, n_hidden_channel: n_hidden };
  const options = { norm, token_mixing, channel_mixing, gelu: "erf", eps: 1e-5 };
  return { patch_size, n_layers, n_channel, ...sizes, ...hidden, ...options };
}

/** Parameters and multiply-adds for one image, in words. */
export function costOf(config) {
  const { shape, rows, columns, nTokens: T, nChannel: C } = sizesOf(config);
  const nParameters = tensorsOf(config).reduce((sum, [, size]) => sum + size.reduce((a, b) => a * b, 1), 0);
  const dense = ["linear", "toeplitz"].includes(config.token_mixing) ? T * T * C : 0;
  const token = WITH_HIDDEN.includes(config.token_mixing) ? 2 * T * C * config.n_hidden_token : dense;
  const factors = config.token_mixing === "kronecker" ? T * C * (rows + columns) : 0;
  const channel = config.channel_mixing === "none" ? 0 : 2 * T * C * config.n_hidden_channel;
  const ends = shape[0] * shape[1] * shape[2] * C + C * config.n_output;
  const total = ends + config.n_layers * (token + factors + channel);
  return `${nParameters.toLocaleString("en")} parameters; ${total.toLocaleString("en")} multiply-adds for an image`;
}

/** A setting in words, as its control says it. */
export function settingInWords(name, value) {
  const [, label, kind] = FIELDS.find(([known]) => known === name) ?? [name, name];
  const [, words] = (Array.isArray(kind) && kind.find(([known]) => known === `${value ?? ""}`)) || [value, value];
  return `${label}: ${words}`;
}

/** The equal line for a shell: { command }, or a sentence where there is none: { reason }. */
export function commandOf({ dataName, limits, isOwn, shape }, { n_train, ...rest }) {
  if (isOwn && shape[0] === 1) return { reason: NO_GREY };
  if (isOwn && rest.affine) return { reason: NO_TURNS };
  const data = isOwn ? { dataset: "folder", data_dir: "pictures", image_size: shape[1] } : { dataset: dataName };
  const few = n_train < limits.n_train ? { n_train } : {};
  const options = Object.entries({ ...data, recipe: "seed", ...few, ...rest }).filter(([, value]) => value !== null);
  return { command: `python train.py ${options.map(([name, value]) => `--${name} ${value}`).join(" ")}` };
}

/** A field for a number, with a sentence below it where it cannot be used. */
function numberField(label, kind, change) {
  const id = newId();
  const input = h("input", {
    id,
    type: "number",
    step: kind === "whole" ? 1 : "any",
    "aria-describedby": `${id}-note`,
  });
  const wrong = h("output", { id: `${id}-note`, class: "mx-wrong" });
  let shown; // what was written here last, or taken from here
  input.addEventListener("change", () => {
    const problem = change(Number(input.value || NaN));
    if (!problem) shown = input.value;
    say(wrong, problem);
  });
  const el = h("div", { class: "mx-control" }, h("label", { for: id }, label), input, wrong);
  const set = (value) => {
    if (document.activeElement === input && input.value !== shown) return; // what the reader types stays
    if (wrong.textContent && String(value) === shown) return; // so does what cannot be used, beside its sentence
    shown = String(value);
    if (input.value !== shown) input.value = shown;
    say(wrong, "");
  };
  return { el, set };
}

/** The choice of the schedule; of the warm-ups that an address or a kernel may set, the present one is offered as well. */
function scheduleField(label, kind, change) {
  const field = choice(label, kind, { change: (text) => change(text ? Number(text) : null) });
  let offered = kind;
  const set = (value) => {
    const isOffered = offered.some(([one]) => one === `${value}`);
    if (!isOffered) field.offer((offered = [...kind, [`${value}`, `warm-up of ${percent(value)}, then cosine`]]));
    field.set(value);
  };
  return { el: field.el, set };
}

/** All controls. Returns { el, draw }. */
export function makeSettings(model, lab) {
  const fields = FIELDS.map((field) => {
    const [name, label, kind] = field;
    const change = (value) => {
      const problem = problemOf(lab, field, value);
      if (!problem) put(model, "settings", { ...model.get("settings"), [name]: value });
      return problem;
    };
    if (kind === "sizes") return choice(label, same(lab.patchSizes), { change: (text) => change(Number(text)) });
    if (name === "warm_up") return scheduleField(label, kind, change);
    if (Array.isArray(kind)) return choice(label, kind, { change });
    return numberField(label, kind, change);
  });
  let first = 0;
  const groups = Object.entries(GROUPS).map(([words, part]) => {
    const own = fields.slice(first, (first += part.length));
    return foldable(words, false, h("fieldset", { "aria-label": words }, ...own.map(({ el }) => el)));
  });
  const draw = ({ settings }) => fields.forEach((field, i) => field.set(settings[FIELDS[i][0]] ?? ""));
  return { el: h("div", { class: "mx-settings" }, ...groups), draw };
}
