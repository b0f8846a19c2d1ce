// Sharing in the laboratory: settings as an address and as a command, and a run as a checkpoint.

import { addressOf } from "./links.js";
import { button, h, note, put, row } from "./page.js";
import { checkpointOf, readCheckpoint } from "./safetensors.js";
import { commandOf, configOf, firstProblem } from "./settings.js";

const OWN_HINT =
  " No address and no command holds your own images: they are in this page alone. For train.py, put them into folders, " +
  "pictures/train/ and pictures/test/ and in each one folder for each class.";

const OTHER_SCALE = " They learned from images that were standardised by other numbers than these are.";

const areNear = (numbers, others) => others.every((other, i) => Math.abs(numbers[i] - other) < 1e-5);

/** The run as a file. */
async function download(lab, { config, settings, shown }) {
  if (!shown) throw new Error("there are no weights yet");
  const { mean, std, names: class_names, dataName: data_set, background } = lab;
  const about = { mean, std, class_names, data_set, background, shuffle: settings.shuffle, settings };
  const link = h("a", { download: "lab.safetensors" });
  link.href = URL.createObjectURL(new Blob(await checkpointOf(config, shown.params, about)));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** The settings with which a model of a checkpoint goes on, from its configuration and metadata; an error, where it cannot. */
function settingsOf(config, about, model, lab) {
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
  if (about.class_names && `${about.class_names}` !== `${lab.names}`)
    throw new Error(`its classes are ${about.class_names.join(", ")}, and here they are ${lab.names.join(", ")}`);
  if (firstProblem(lab, settings)) throw new Error(firstProblem(lab, settings).slice(0, -1));
  return settings;
}

/** Let the laboratory begin from the weights of a checkpoint. */
async function open(model, lab, runner, file) {
  let [settings, isScaledAlike] = [undefined, true];
  const check = (config, about) => {
    settings = settingsOf(config, about, model, lab);
    isScaledAlike = ["mean", "std"].every((name) => !about[name] || areNear(about[name], lab[name]));
  };
  const params = await readCheckpoint(await file.arrayBuffer(), check);
  put(model, "settings", settings);
  runner.reset(params);
  return isScaledAlike ? "" : OTHER_SCALE;
}

/** A command in parts between which a line may end; alone it would end after any hyphen. */
const partsOf = (command) =>
  command.split(/ (?=--)/).flatMap((option, i) => [i ? " " : "", h("span", { class: "mx-option" }, option)]);

/** Buttons that share the settings and the run. */
export function makeShare(model, lab, runner, tell) {
  const line = h("code");
  const attempt = (action, done) =>
    action.then((more = "") => tell(done + more)).catch((error) => tell(`This failed: ${error.message}.`));
  const copy = (text) =>
    attempt(
      Promise.resolve().then(() => navigator.clipboard.writeText(text)),
      "Copied.",
    );
  const copyAddress = () =>
    lab.isOwn ? tell("No address holds your own images, so none was copied.") : copy(addressOf(model.get("settings")));
  const copyCommand = () => {
    const { command } = commandOf(lab, model.get("settings"));
    return command ? copy(command) : tell("There is no command, so none was copied.");
  };
  const take = ({ target }) => {
    attempt(
      open(model, lab, runner, target.files[0]),
      "The weights are there. With these settings, Train goes on from them.",
    );
    target.value = "";
  };
  const file = h("input", { type: "file", accept: ".safetensors", onchange: take });
  const buttons = row(
    button("Copy address", copyAddress),
    button("Copy command", copyCommand),
    button("Download checkpoint", () => attempt(download(lab, runner), "The checkpoint is written.")),
    h("label", {}, "Open a checkpoint: ", file),
  );
  const words = note("The command trains such a model with PyTorch; its random numbers are others.");
  if (lab.isOwn) words.append(OWN_HINT);
  const draw = (scene) => {
    const { command, reason } = commandOf(lab, scene.settings);
    if (line.textContent !== (command ?? reason)) line.replaceChildren(...(command ? partsOf(command) : [reason]));
    words.hidden = !command;
  };
  return { el: h("div", {}, h("p", {}, line), words, buttons), draw };
}
