// What the units of token mixing answer to a drawing: how strongly each fires, and where on the grid of patches.

import { Engine, tensorsOf } from "./engine.js";
import { around, isMap, mapsAt } from "./library.js";
import { bytes, highest, product, rowOf } from "./numerics.js";

/** The weights of model m at its last step, in the order of the engine. */
function weightsAt(library, m) {
  const { models, stored, nUnits, nTokens } = library;
  const { steps, network } = models[m];
  const last = around(steps, steps.at(-1));
  let at = 0;
  return tensorsOf(network.config).map(([name, shape]) => {
    if (!isMap(name)) return stored[`${m}.network`].subarray(at, (at += product(shape)));
    const which = name.endsWith("fc1.weight") ? 0 : 1;
    const { numbers } = mapsAt(library, m, last, Number(name.split(".")[1]), which);
    const transposed = (i) => numbers[(i % nUnits) * nTokens + Math.floor(i / nUnits)];
    return which ? numbers.map((_, i) => transposed(i)) : numbers; // W₂ is [nTokens, nUnits]
  });
}

/** LN(X) of a table [n, C], as the LayerNorm of a configuration gives it. */
function normalised(table, { norm, eps, n_channel: C }, weight, bias) {
  const length = norm === "channels" ? C : table.length; // of what has one mean
  const result = new Float32Array(table.length);
  for (let start = 0; start < table.length; start += length) {
    const part = table.subarray(start, start + length);
    const mean = part.reduce((sum, value) => sum + value, 0) / length;
    const variance = part.reduce((sum, value) => sum + (value - mean) ** 2, 0) / length;
    const scale = 1 / Math.sqrt(variance + eps);
    part.forEach((value, i) => (result[start + i] = (value - mean) * scale * weight[i] + bias[i]));
  }
  return result;
}

/** A reader of drawings: `read(m, image, layer)` gives what model m makes of one, or undefined if it reads none. */
export async function makeNetworks(model, library) {
  if (!library.models.some(({ network }) => network)) return { read: () => undefined };
  const engine = await Engine.start(bytes(model.get("engine")));
  let [held, weights] = [-1];
  function hold(m) {
    const { network, pixel_order: order } = library.models[m];
    weights = weightsAt(library, m);
    engine.hold(network.config, weights, { mean: [network.mean], std: [network.std] }, order);
    held = m;
  }
  function read(m, image, layer) {
    const { network } = library.models[m];
    if (!network) return undefined;
    if (held !== m) hold(m);
    const shares = engine.read(image);
    const best = shares.indexOf(highest(shares));
    const answer = { name: network.class_names[best], share: shares[best] };
    return { ...answer, ...firingOf(engine, library, network.config, weights, layer) };
  }
  return { read };
}

/** How strongly each unit of a layer fires in the channel where it does most, and what each patch contributes there. */
function firingOf(engine, { nUnits, nTokens }, config, weights, layer) {
  const C = config.n_channel;
  const names = tensorsOf(config).map(([name]) => name);
  const of = (part) => weights[names.indexOf(`layers.${layer}.token_mixing.${part}`)];
  const hidden = engine.view(Float32Array, "hidden", nUnits * C, 2 * layer);
  const table = engine.view(Float32Array, "stream", nTokens * C, 2 * layer);
  const normed = normalised(table, config, of("norm.weight"), of("norm.bias"));
  const [activations, contributions] = [new Float32Array(nUnits), new Float32Array(nUnits * nTokens)];
  const channels = Array.from({ length: nUnits }, (_, unit) => {
    const row = rowOf(hidden, unit, C);
    activations[unit] = highest(row);
    return row.indexOf(activations[unit]);
  });
  const W1 = of("fc1.weight");
  for (let i = 0; i < W1.length; i++)
    contributions[i] = W1[i] * normed[(i % nTokens) * C + channels[Math.floor(i / nTokens)]];
  return { activations, channels, contributions };
}
