// Checkpoints in the page: files that `mixer.load_checkpoint` reads, and reading such files.

import { tensorsOf } from "./engine.js";
import { product } from "./numerics.js";

const METADATA = "__metadata__";
const FORMAT = "mixer-checkpoint-1";
const DAMAGED = "this file is no checkpoint of this book, or damaged; choose one that train.py wrote";
const TORCH_TYPES = { BF: "bfloat", F: "float", I: "int", U: "uint", BOOL: "bool" };
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

/** The SHA-256 that a file should have, by its header; undefined where the page cannot compute it. */
async function digestOfFile(header, bytesOf) {
  if (!globalThis.crypto?.subtle) return undefined;
  const names = Object.keys(header).filter((name) => name !== METADATA);
  const parts = names.toSorted().flatMap((name) => {
    const { dtype, shape } = header[name];
    const type = dtype.replace(/^[A-Z]+/, (kind) => TORCH_TYPES[kind]);
    return [`${name} torch.${type} [${shape.join(", ")}] `, bytesOf(name)];
  });
  return digestOf([header[METADATA].mixer, ...parts]);
}

/** All parameters in one array. */
function parametersOf(config, header, bytesOf) {
  const parts = tensorsOf(config).map(([name, shape]) => {
    const { dtype, shape: found } = header[`model.${name}`];
    const part = bytesOf(`model.${name}`);
    if (dtype !== "F32") throw new Error(`its weights are ${dtype}, and here they must be F32; save it as float32`);
    if (found.join() !== shape.join() || part.length !== 4 * product(shape)) throw new Error(DAMAGED);
    return part;
  });
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return new Float32Array(all.buffer);
}

/**
 * The parameters of a checkpoint's bytes in one array. `check` is given its configuration and its metadata, and throws
 * where these cannot be: before anything of the sizes that they name is made.
 */
export async function readCheckpoint(buffer, check) {
  try {
    const size = Number(new DataView(buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, size)));
    const { format, mixer, sha256 } = header[METADATA];
    const { config, ...about } = JSON.parse(mixer);
    if (format !== FORMAT) throw new Error(DAMAGED);
    check(config, about);
    const bytesOf = (name) => {
      const [begin, end] = header[name].data_offsets;
      return new Uint8Array(buffer, 8 + size + begin, end - begin);
    };
    const params = parametersOf(config, header, bytesOf);
    if (((await digestOfFile(header, bytesOf)) ?? sha256) !== sha256) throw new Error(DAMAGED);
    if (!params.every(Number.isFinite)) throw new Error("one of its weights is not a finite number; train it anew");
    return params;
  } catch (error) {
    throw error.constructor === Error ? error : new Error(DAMAGED); // not in the browser's own words
  }
}
