// The tables of a Mixer that runs in the engine, all of them, from the patches to the probabilities.

import { product, sizesOf } from "./numerics.js";

/**
 * The tables of the image that an engine has read, by the names of MLPMixer.forward_intermediates in Python, with its
 * shapes; beside them "pooled" [nChannel], "logits" and "probabilities". They are valid until it reads the next one.
 */
export function tablesOf(engine, config) {
  const { shape, nTokens, nChannel } = sizesOf(config);
  const table = (name, n, i = 0) => engine.view(Float32Array, name, n, i);
  const stream = (i) => table("stream", nTokens * nChannel, i);
  const tables = { patches: table("patches", product(shape)), tokens: stream(0), pooled: table("pooled", nChannel) };
  for (const name of ["logits", "probabilities"]) tables[name] = table(name, config.n_output);
  for (let i = 0; i < config.n_layers; i++) {
    const [token, channel] = [`layers.${i}.token_mixing`, `layers.${i}.channel_mixing`];
    const units = table("hidden", nChannel * config.n_hidden_token, 2 * i); // [nHiddenToken, nChannel]
    tables[`${token}.hidden`] = transposed(units, nChannel);
    tables[token] = stream(2 * i + 1);
    tables[`${channel}.hidden`] = table("hidden", nTokens * config.n_hidden_channel, 2 * i + 1);
    tables[channel] = stream(2 * i + 2);
  }
  return tables;
}

/** A table of so many columns with its axes exchanged. */
function transposed(table, columns) {
  const rows = table.length / columns;
  return table.map((_, i) => table[(i % rows) * columns + Math.floor(i / rows)]);
}
