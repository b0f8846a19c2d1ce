// The counts of CostExplorer: its sizes, checked, and the parameters and multiply-adds that a Mixer of them has.

import { areSizes, NORMS } from "./numerics.js";

export const COST_TRAITS = ["sizes", "setting"];
const MOST_SETTINGS = 32; // these are limits of cost.py
const MOST_TOKENS = 65536;
const MOST = {
  n_layers: 64,
  n_channel: 4096,
  n_hidden_token: 16384,
  n_hidden_channel: 16384,
  image_size: 1024,
  patch_size: 1024,
  n_image_channel: 64,
  n_output: 65536,
};

/** Parameters and multiply-adds of each block of a Mixer, and the multiply-adds of attention for its token mixing. */
export function costsOf(sizes) {
  const { n_layers: n, n_channel: C, n_output: nOutput, n_hidden_token: hiddenToken, n_hidden_channel: hidden } = sizes;
  const S = (sizes.image_size / sizes.patch_size) ** 2;
  const nPixels = sizes.n_image_channel * sizes.patch_size ** 2;
  const entries = sizes.norm === "channels" ? C : S * C; // of one LayerNorm
  const parameters = {
    per_patch: nPixels * C + C,
    token_mixing: n * (2 * S * hiddenToken + hiddenToken + S),
    channel_mixing: n * (2 * C * hidden + hidden + C),
    norm: (2 * n + 1) * 2 * entries,
    output: C * nOutput + nOutput,
  };
  const multiplyAdds = {
    per_patch: S * nPixels * C,
    token_mixing: n * C * 2 * S * hiddenToken,
    channel_mixing: n * S * 2 * C * hidden,
    norm: 0,
    output: C * nOutput,
  };
  return { nTokens: S, parameters, multiplyAdds, attention: { core: n * 2 * S * S * C, linear: n * 4 * S * C * C } };
}

export const totalOf = (counts) => Object.values(counts).reduce((sum, n) => sum + n, 0);

/** The patch sizes of an image: those that divide it and do not make too many tokens. */
export const patchSizesOf = (side) =>
  Array.from({ length: side }, (_, i) => i + 1).filter((P) => side % P === 0 && (side / P) ** 2 <= MOST_TOKENS);

/** The patch size of an image that is nearest to a wanted one. */
export const nearestPatch = (side, wanted) =>
  patchSizesOf(side).reduce((best, P) => (Math.abs(P - wanted) < Math.abs(best - wanted) ? P : best));

/** Whether sizes are those of a Mixer, and not too large to be counted exactly. */
function areMixers(sizes) {
  const names = Object.keys(MOST);
  const right = sizes !== null && typeof sizes === "object" && NORMS.includes(sizes.norm);
  if (
    !right ||
    !areSizes(
      names.map((name) => sizes[name]),
      names.length,
    )
  )
    return false;
  const { image_size: side, patch_size: P } = sizes;
  return names.every((name) => sizes[name] <= MOST[name]) && side % P === 0 && (side / P) ** 2 <= MOST_TOKENS;
}

/** Whether a pair is a name and sizes. */
const isSetting = (pair) => Array.isArray(pair) && typeof pair[0] === "string" && areMixers(pair[1]);

/** The named settings, checked. */
export function readSettings(model) {
  const settings = model.get("settings");
  const right = Array.isArray(settings) && settings.length > 0 && settings.length <= MOST_SETTINGS;
  if (!right || !settings.every(isSetting)) throw new Error("its settings are damaged or incomplete");
  return new Map(settings);
}

/** The sizes that the reader chose, and those that they are compared with, checked. */
export function readScene(model, settings) {
  const [sizes, setting] = COST_TRAITS.map((name) => model.get(name));
  if (!areMixers(sizes)) throw new Error("its sizes are damaged or incomplete");
  if (!settings.has(setting)) throw new Error(`there is no setting ${setting}`);
  return { sizes, setting, now: costsOf(sizes), before: costsOf(settings.get(setting)) };
}
