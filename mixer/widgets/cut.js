// Pictures cut to the size of a model's images, as mixer/picture.py does it with Pillow: the middle of the shorter side's
// length, resized by an antialiased cubic filter, in whole numbers throughout.

const BITS = 22; // of the fraction of Pillow's weights, which are whole numbers

/** The cubic filter of Pillow's BICUBIC at a distance. */
function cubic(distance) {
  const x = Math.abs(distance);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? -0.5 * (((x - 5) * x + 8) * x - 4) : 0;
}

/** For each of `size` pixels, which cover the length from `start` of n pixels, the first pixel and the weights it takes. */
function tapsOf(n, start, length, size) {
  const scale = length / size;
  const width = Math.max(1, scale); // of a unit of the filter
  return Array.from({ length: size }, (_, i) => {
    const center = start + (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - 2 * width + 0.5));
    const last = Math.min(n, Math.trunc(center + 2 * width + 0.5));
    const shares = Array.from({ length: last - first }, (__, k) => cubic((first + k - center + 0.5) / width));
    const total = shares.reduce((sum, share) => sum + share, 0);
    const weights = shares.map((share) => Math.trunc((share / total) * 2 ** BITS + (share < 0 ? -0.5 : 0.5)));
    return { first, weights: Int32Array.from(weights) };
  });
}

/** Rows of n values, resized to `size` values each along the row; the result has rows and columns exchanged. */
function resizeRows(values, n, start, length, size) {
  const nRows = values.length / n;
  const result = new Uint8ClampedArray(nRows * size);
  tapsOf(n, start, length, size).forEach(({ first, weights }, i) => {
    for (let y = 0; y < nRows; y++) {
      const from = y * n + first;
      let sum = 1 << (BITS - 1);
      for (let k = 0; k < weights.length; k++) sum = (sum + Math.imul(weights[k], values[from + k])) | 0;
      result[i * nRows + y] = sum >> BITS;
    }
  });
  return result;
}

/** The middle of one channel [H, W] of bytes, at [size, size]. */
function cutChannel(channel, H, W, size) {
  if (H === size && W === size) return channel;
  const side = Math.min(H, W);
  const across = resizeRows(channel, W, (W - side) / 2, side, size); // [size, H]
  return resizeRows(across, H, (H - side) / 2, side, size); // [size, size]
}

/** Whether all pixels of four bytes are alike. */
function isPlain(data) {
  const pixels = new Uint32Array(data.buffer);
  return pixels.every((pixel) => pixel === pixels[0]);
}

/** The pixels of a picture, four bytes each, on white where it is transparent. */
function pixelsOf(bitmap) {
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  const drawn = (ground) => {
    context.clearRect(0, 0, width, height);
    context.fillStyle = ground;
    context.fillRect(0, 0, width, height);
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, width, height).data;
  };
  const data = drawn("#fff");
  if (isPlain(data) && !isPlain(drawn("#0000")))
    throw new Error("on white, where it is transparent, it is one plain colour");
  return data;
}

/** The channels [H, W] of a picture's file: red, green and blue, and grey. Upright, without a colour profile, as Pillow. */
async function channelsOf(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" }).catch(() => {
    throw new Error("it is no picture that this browser reads; choose JPEG, PNG or WebP");
  });
  const { width: W, height: H } = bitmap;
  const data = pixelsOf(bitmap);
  bitmap.close();
  const [red, green, blue, grey] = Array.from({ length: 4 }, () => new Uint8Array(H * W));
  for (let i = 0; i < H * W; i++) {
    red[i] = data[4 * i];
    green[i] = data[4 * i + 1];
    blue[i] = data[4 * i + 2];
    grey[i] = (red[i] * 19595 + green[i] * 38470 + blue[i] * 7471 + 32768) >> 16;
  }
  return { H, W, colours: [red, green, blue], grey };
}

/** The middle of channels at so many sizes, as images by their number of channels and size: 1 is grey, 3 is in colour. */
export function cutAll({ H, W, colours, grey }, sizes) {
  const cut = (channels, size) => {
    const image = new Uint8Array(channels.length * size * size);
    channels.forEach((channel, c) => image.set(cutChannel(channel, H, W, size), c * size * size));
    return [size, image];
  };
  const all = (channels) => Object.fromEntries(sizes.map((size) => cut(channels, size)));
  return { 1: all([grey]), 3: all(colours) };
}

/** Answer on a port with the images of a picture's file, or with what is wrong with it. */
async function cutFile({ file, sizes, port }) {
  try {
    port.postMessage({ images: cutAll(await channelsOf(file), sizes) });
  } catch (error) {
    port.postMessage({ wrong: error.constructor === Error ? error.message : "it is too large for this page" });
  }
}

/** What sends a file to be cut: to a worker, so that the page goes on; where none can be had, to the page itself. */
function startCutting() {
  const parts = [cubic, tapsOf, resizeRows, cutChannel, isPlain, pixelsOf, channelsOf, cutAll, cutFile].map(String);
  const text = [`const BITS = ${BITS};`, ...parts, "onmessage = ({ data }) => cutFile(data);"].join("\n");
  try {
    const worker = new Worker(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
    worker.onerror = () => {
      sendToCut = cutFile; // a page may forbid workers
      openCuts.forEach((ask) => ask());
    };
    return (job) => worker.postMessage(job, [job.port]);
  } catch {
    return cutFile;
  }
}

let sendToCut = null;
const openCuts = new Set(); // what asks for the files that are being cut

/** The images of a picture's file, as `cutAll` gives them; an error says what is wrong with the file. */
export function readPicture(file, sizes) {
  sendToCut ??= startCutting();
  return new Promise((resolve, reject) => {
    const ask = () => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = ({ data }) => {
        openCuts.delete(ask);
        if (data.images) resolve(data.images);
        else reject(new Error(`${file.name} cannot be used: ${data.wrong}`));
      };
      sendToCut({ file, sizes, port: port2 });
    };
    openCuts.add(ask);
    ask();
  });
}
