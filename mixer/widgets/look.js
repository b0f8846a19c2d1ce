// How the tables of MixerFlow are looked at: as tables or maps, what came out or was added, and the cell that is pointed at.

import { largest } from "./numerics.js";
import { choice, decimal, h, note, put, say, slider, stillness, tick } from "./page.js";

const FOLDED_IN = 700; // milliseconds

const smooth = (t) => t * t * (3 - 2 * t);

/** The names of the table before each that a block adds to. */
function tablesBefore(nLayers) {
  const before = {};
  for (let i = 0; i < nLayers; i++) {
    before[`layers.${i}.token_mixing`] = i ? `layers.${i - 1}.channel_mixing` : "tokens";
    before[`layers.${i}.channel_mixing`] = `layers.${i}.token_mixing`;
  }
  return before;
}

/** A cell of a table as the token, the channel or the hidden unit that it belongs to. */
function spotOf({ about, row, column, value }) {
  const { rowIs, columnIs, unit } = about;
  const token = rowIs === "token" ? row : undefined;
  const channel = columnIs === "channel" ? column : rowIs === "channel" ? row : undefined;
  return { name: about.name, token, channel, value, unit: unit && `${unit} ${column}` };
}

/** What all tables share: whether a size is new, whether they are folded, what they show, and the cell that is framed in each. */
export class Look {
  constructor(model, { config, columns }, later) {
    const before = tablesBefore(config.n_layers); // the name of the table to which each block adds
    Object.assign(this, { model, columns, later, before, share: 0, isNew: true, added: false, held: false, chosen: 0 });
  }

  get token() {
    return this.over?.token ?? this.model.get("token");
  }

  get channel() {
    return this.over?.channel ?? this.chosen;
  }

  /** Change something, and draw again. */
  set(name, value) {
    this[name] = value;
    this.later();
  }

  /** The pointer is over a cell, or over none. */
  point(cell) {
    if (cell || this.over) this.set("over", cell && spotOf(cell));
  }

  /** A finger that is lifted leaves what it touched as it is. */
  leave({ pointerType }) {
    if (pointerType !== "touch") this.point();
  }

  choose(cell) {
    if (!cell) return;
    this.point(cell);
    this.chosen = this.over.channel ?? this.chosen;
    if (this.over.token !== undefined) put(this.model, "token", this.over.token);
  }

  /** Choose a token by its number, wherever the pointer is. */
  chooseToken(token) {
    this.point();
    put(this.model, "token", token);
  }

  fold(on) {
    this.begun = stillness() ? -Infinity : performance.now();
    this.set("isFolded", on);
  }

  /** Bring the share of the folding that is done up to now. */
  step() {
    if (this.begun === undefined) return;
    const gone = smooth(Math.min(1, (performance.now() - this.begun) / FOLDED_IN));
    this.share = this.isFolded ? gone : 1 - gone;
    if (gone < 1) this.later();
  }

  /** The cell under the pointer, and its number. */
  words({ name, token, channel, unit, value } = this.over ?? {}) {
    if (!name) return "";
    const place = token !== undefined && `token ${token} ${this.place(token)}`;
    const parts = [place, channel !== undefined && `channel ${channel}`, unit].filter(Boolean).join(", ");
    return `${name}: ${parts}${value === undefined ? "" : `: ${decimal(value)}`}`;
  }

  place(token) {
    return `(row ${Math.floor(token / this.columns)}, column ${token % this.columns})`;
  }
}

/** The numbers of a table as they are looked at: what came out, or what was added since another. */
export function numbersOf({ results }, look, name, before = look.before[name]) {
  if (!look.added || !before) return results[name];
  const old = results[before];
  return results[name].map((value, i) => value - old[i]);
}

/** The number with the full colour: the largest of a table, or of all tables of its kind, where the scale is held. */
export function limitOf(scene, look, numbers, name) {
  if (!look.held) return largest(numbers);
  if (!look.before[name] && name !== "tokens") {
    const kind = name.replace(/^layers\.\d+/, "");
    const all = Object.keys(scene.results).filter((other) => other.endsWith(kind));
    return Math.max(...all.map((other) => largest(scene.results[other])));
  }
  const all = ["tokens", ...Object.keys(look.before)];
  return Math.max(largest(numbers), ...all.map((other) => largest(numbersOf(scene, look, other))));
}

/** The controls of the look. */
export function makeLookControls(look, { config }) {
  const folds = tick("Fold the tables into maps", { change: (on) => look.fold(on) });
  const kinds = [
    ["", "what came out"],
    ["added", "what was added"],
  ];
  const kind = choice("Show", kinds, { change: (value) => look.set("added", value !== "") });
  const holds = tick("One colour scale for all layers", { change: (on) => look.set("held", on) });
  const change = (number) => {
    look.over = undefined;
    look.set("chosen", number);
  };
  const channel = slider("Channel", { max: config.n_channel - 1, change });
  const el = h("div", { class: "mx-looks" }, folds.el, kind.el, holds.el, channel.el);
  return { el, draw: () => channel.set(look.chosen) };
}

/** A line with the number under the pointer. */
export function makeReading(look) {
  const el = note();
  el.classList.add("mx-reading");
  return { el, draw: () => say(el, look.words()) };
}

/** The same, or else the number of the chosen token and channel after the chosen layer. */
export function makeChosen(look, { config }) {
  const { el } = makeReading(look);
  const draw = (scene) => {
    const { layer, token } = scene;
    const numbers = numbersOf(scene, look, `layers.${layer}.channel_mixing`);
    const value = numbers[token * config.n_channel + look.chosen];
    say(el, look.words() || look.words({ name: `Layer ${layer}`, token, channel: look.chosen, value }));
  };
  return { el, draw };
}
