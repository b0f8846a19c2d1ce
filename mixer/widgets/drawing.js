// A digit that the reader draws, and which units of token mixing fire for it.

import { makeBoard, paint } from "./board.js";
import { drawMap, describe, picture } from "./canvas.js";
import { makeNetworks } from "./network.js";
import { bytes, largest, rowOf, sizesOf } from "./numerics.js";
import { decimal, h, note, panel, percent, say, statusLine, tick } from "./page.js";

const READING =
  "The trained model reads the drawing, whatever step is shown. Small map: what each patch contributes to the chosen " +
  "unit, in the channel in which it fires most.";
const ASK = "Nothing is drawn yet. Draw, and the sheet shows what the drawing adds.";
const N_NAMED = 3; // units that are named
const SEVEN = [
  [0.3, 0.25],
  [0.7, 0.25],
  [0.45, 0.8],
]; // the first drawing, as shares of the board's width and height

/** The first drawing, so that something fires from the start. */
function firstDrawing(H, W) {
  const points = SEVEN.map(([x, y]) => [x * W, y * H]);
  const line = (image, from, to) => paint(image, { H, W }, from, to);
  return line(line(new Uint8Array(H * W), points[0], points[1]), points[1], points[2]);
}

/** The firing for a drawing, computed anew only for another drawing, model or layer; none on an empty board. */
function remembered(networks) {
  let last = {};
  return (image, m, layer) => {
    const now = { image, m, layer };
    if (Object.keys(now).some((name) => now[name] !== last[name])) {
      const isEmpty = !bytes(image).some(Boolean);
      last = { ...now, firing: isEmpty ? undefined : networks.read(m, bytes(image), layer) };
    }
    return last.firing;
  };
}

/** The board and what the units answer. `read` adds to a scene what fires; `draw` shows it. */
export async function makeDrawing(model, library, later) {
  const networks = await makeNetworks(model, library);
  const { network } = library.models.find((one) => one.network) ?? {};
  if (!network) return { el: "", read: (scene) => scene, draw() {} };
  const { shape, rows, columns } = sizesOf(network.config);
  const [, H, W] = shape;
  const state = { image: new DataView(firstDrawing(H, W).buffer), isInMaps: false };
  const own = { get: (name) => state[name], set: (name, value) => (state[name] = value), save_changes: later };
  const board = makeBoard(own, { H, W, rows, columns }, "Draw: which units fire?");
  const [map, facts, firingOf] = [picture(), statusLine(), remembered(networks)];
  map.classList.add("mx-fires");
  const change = (isOn) => {
    state.isInMaps = isOn;
    later();
  };
  const wish = tick("In the maps above: what the drawing adds", { change });
  const read = (scene) => {
    const firing = firingOf(state.image, scene.m, scene.layer);
    if (!firing || !state.isInMaps) return { ...scene, firing };
    const { contributions } = firing;
    return { ...scene, firing, isDrawn: true, maps: { numbers: contributions, limit: largest(contributions) / 2 } };
  };
  const draw = ({ firing, unit, m }) => {
    const image = bytes(state.image);
    board.draw({ image, what: image.some(Boolean) ? "a drawing" : "nothing" });
    map.classList.toggle("mixer-hidden", !firing);
    if (firing) drawAnswer(map, facts, firing, unit, library);
    else say(facts, !library.models[m].network ? "This model reads no drawings." : state.isInMaps ? ASK : "");
  };
  return { el: panel("mx-draw", board.el, wish.el, map, facts, note(READING)), read, draw };
}

/** The contributions to the chosen unit, and in words the model's answer and the units that fire most. */
function drawAnswer(
  map,
  facts,
  { name, share, activations, channels, contributions },
  unit,
  { rows, columns, nTokens },
) {
  const own = rowOf(contributions, unit, nTokens);
  drawMap(map, own, rows, columns, largest(own));
  describe(map, `What the patches of the drawing contribute to unit ${unit} in channel ${channels[unit]}.`);
  const order = Array.from(activations.keys()).sort((a, b) => activations[b] - activations[a]);
  const first = order.slice(0, N_NAMED).join(", ");
  const stronger = order.indexOf(unit);
  const strength = decimal(activations[unit]);
  const answer = `The model reads ${name} (${percent(share)}). Most excited: units ${first}.`;
  say(
    facts,
    `${answer} Unit ${unit} fires with ${strength} in channel ${channels[unit]}; ${stronger} of ${order.length} units fire more strongly.`,
  );
}
