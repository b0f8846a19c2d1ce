// Sharing in the laboratory: settings as an address and as a command, a run as a checkpoint, and runs beside each other.

import { button, h, note, percent, put, row, say, title } from "./page.js";
import { checkpointOf, readCheckpoint } from "./safetensors.js";
import { commandOf, configOf, firstProblem, readSettings } from "./settings.js";

const MARK = "#lab=";

/** Take the settings that the address holds; returns what is wrong with them, as a sentence, or "". */
export function readAddress(model, lab) {
  if (!location.hash.startsWith(MARK)) return "";
  const { settings, problem } = readSettings(lab, model.get("settings"), location.hash.slice(MARK.length));
  if (!problem) put(model, "settings", settings);
  return problem;
}

/** A line of the table of runs: what differs from the first. */
function runLine({ settings, history, test_accuracy }, i, first, drop) {
  const names = Object.keys(settings).filter((name) => settings[name] !== first[name]);
  const words = names.map((name) => `${name} ${settings[name]}`).join(", ") || "the same settings";
  const start = `${settings.n_layers} layers, token mixing ${settings.token_mixing}, seed ${settings.seed}`;
  const away = h("button", { type: "button", "aria-label": `Remove run ${i + 1}`, onclick: drop }, "Remove");
  const cells = [
    i ? words : start,
    percent(history.at(-1).validation_accuracy),
    test_accuracy === undefined ? "–" : percent(test_accuracy),
    away,
  ];
  return h("tr", {}, ...cells.map((cell) => h("td", {}, cell)));
}

/** The runs that were kept, beside each other. */
export function makeCompare(model, runner) {
  const body = h("tbody");
  const names = ["Run", "Validation", "Test", ""].map((words) => h("th", { scope: "col" }, words));
  const table = h("table", {}, h("thead", {}, h("tr", {}, ...names)), body);
  function keep() {
    const { history, settings, result } = runner;
    if (history.length) put(model, "runs", [...model.get("runs"), { settings, history, ...result }]);
  }
  const without = (i) => model.get("runs").filter((_, k) => k !== i);
  let drawn;
  function draw({ runs }) {
    if (runs === drawn) return; // a button that has the focus would lose it
    drawn = runs;
    table.hidden = !runs.length;
    const lines = runs.map((run, i) => runLine(run, i, runs[0].settings, () => put(model, "runs", without(i))));
    body.replaceChildren(...lines);
  }
  const hint = note(
    "Keep a run, change one setting, and train again. The lines below the first say what differs from it.",
  );
  return { el: h("div", {}, title("Compare"), button("Keep this run", keep), hint, table), draw, keep };
}

/** The run as a file. */
async function download(lab, { config, settings, shown }) {
  if (!shown) throw new Error("there are no weights yet");
  const { mean, std, names: class_names, dataName: dataset } = lab;
  const about = { mean, std, class_names, dataset, shuffle: settings.shuffle, settings };
  const link = h("a", { download: "lab.safetensors" });
  link.href = URL.createObjectURL(new Blob(await checkpointOf(config, shown.params, about)));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** The settings with which a model of a checkpoint goes on, from its configuration and metadata; an error, where it cannot. */
function settingsFor(config, about, model, lab) {
  const settings = { ...model.get("settings"), shuffle: about.shuffle ?? "none", n_hidden: config.n_hidden_token };
  for (const name of Object.keys(settings)) settings[name] = config[name] ?? settings[name];
  const own = configOf(lab, settings);
  const size = config.image_size;
  const found = {
    token_mixing: "mlp",
    channel_mixing: "mlp",
    ...config,
    image_size: Array.isArray(size) ? size : [size, size],
  };
  const [ours, theirs] = [own, found].map((sizes) => (name) => JSON.stringify(sizes[name]));
  const differs = Object.keys(own).find((name) => ours(name) !== theirs(name));
  if (differs) throw new Error(`its ${differs} is ${theirs(differs)}, and here it must be ${ours(differs)}`);
  if (firstProblem(lab, settings)) throw new Error(firstProblem(lab, settings).slice(0, -1));
  return settings;
}

/** Let the laboratory begin from the weights of a checkpoint. */
async function open(model, lab, runner, file) {
  let settings;
  const check = (config, about) => (settings = settingsFor(config, about, model, lab));
  const params = await readCheckpoint(await file.arrayBuffer(), check);
  put(model, "settings", settings);
  runner.reset(params);
}

/** Buttons that share the settings and the run. */
export function makeShare(model, lab, runner, tell) {
  const command = h("code");
  const settings = () => encodeURIComponent(JSON.stringify(model.get("settings")));
  const address = () => `${location.href.split("#")[0]}${MARK}${settings()}`;
  const attempt = (action, done) =>
    action.then(() => tell(done)).catch((error) => tell(`This failed: ${error.message}.`));
  const copy = (text) =>
    attempt(
      Promise.resolve().then(() => navigator.clipboard.writeText(text)),
      "Copied.",
    );
  const take = ({ target }) => {
    attempt(open(model, lab, runner, target.files[0]), "The weights are there. Train goes on from them.");
    target.value = "";
  };
  const file = h("input", { type: "file", accept: ".safetensors", onchange: take });
  const buttons = row(
    button("Copy address", () => copy(address())),
    button("Copy command", () => copy(command.textContent)),
    button("Download checkpoint", () => attempt(download(lab, runner), "The checkpoint is written.")),
    h("label", {}, "Open a checkpoint: ", file),
  );
  const words = note("The command trains such a model with PyTorch; its random numbers are others.");
  const draw = (scene) => say(command, commandOf(lab, scene.settings));
  return { el: h("div", {}, title("Share"), h("p", {}, command), words, buttons), draw };
}
