// Checkpoints in the page: files that `mixer.load_checkpoint` reads, and reading such files.

import { tensorsOf } from "./engine.js";
import { bytes, product } from "./numerics.js";

const METADATA = "__metadata__";
const FORMAT = "mixer-checkpoint-1";
const encode = (text) => new TextEncoder().encode(text);

/** The SHA-256 of parts, in hexadecimal. */
async function digestOf(parts) {
  const whole = await new Blob(parts).arrayBuffer();
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", whole));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The parts of a checkpoint's file, from a configuration, all parameters in one array, and metadata. */
export async function checkpointOf(config, params, about) {
  if (!globalThis.crypto?.subtle)
    throw new Error("this page cannot compute a SHA-256; open it from the disk or by https");
  let at = 0;
  const tensors = tensorsOf(config).map(([name, shape]) => {
    const numbers = params.slice(at, (at += product(shape)));
    return { name: `model.${name}`, shape, numbers };
  });
  const text = JSON.stringify({ ...about, config });
  const sorted = tensors.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const parts = sorted.flatMap(({ name, shape, numbers }) => [`${name} torch.float32 [${shape.join(", ")}] `, numbers]);
  const header = { [METADATA]: { format: FORMAT, mixer: text, sha256: await digestOf([text, ...parts]) } };
  let end = 0;
  for (const { name, shape, numbers } of tensors)
    header[name] = { dtype: "F32", shape, data_offsets: [end, (end += numbers.byteLength)] };
  const lines = encode(JSON.stringify(header));
  const padding = encode(" ".repeat((8 - (lines.length % 8)) % 8));
  const length = new DataView(new ArrayBuffer(8));
  length.setBigUint64(0, BigInt(lines.length + padding.length), true);
  return [length, lines, padding, ...tensors.map(({ numbers }) => numbers)];
}

/** The configuration, the parameters in one array, and the metadata of a checkpoint's bytes. */
export function readCheckpoint(buffer) {
  const wrong = new Error("this file is no checkpoint of this book, or damaged; choose one that train.py wrote");
  try {
    const size = Number(new DataView(buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, size)));
    if (header[METADATA].format !== FORMAT) throw wrong;
    const { config, ...about } = JSON.parse(header[METADATA].mixer);
    const parts = tensorsOf(config).map(([name, shape]) => {
      const { dtype, shape: found, data_offsets: ends } = header[`model.${name}`];
      if (dtype !== "F32" || found.join() !== shape.join()) throw wrong;
      return bytes(new DataView(buffer, 8 + size + ends[0], ends[1] - ends[0])).slice();
    });
    const params = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0) / 4);
    let at = 0;
    for (const part of parts) {
      params.set(new Float32Array(part.buffer), at);
      at += part.length / 4;
    }
    return { config, params, about };
  } catch {
    throw wrong;
  }
}
