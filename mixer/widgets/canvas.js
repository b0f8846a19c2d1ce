// Pictures of the live figures: canvases with their descriptions, weights as colours, and the cell under a pointer.

import { largest } from "./numerics.js";
import { clamp, h, isDark } from "./page.js";

/** A canvas with its description for screen readers. */
export const picture = (words = "") => h("canvas", { role: "img", "aria-label": words });

/** Change the description of a picture. */
export const describe = (element, words) => element.setAttribute("aria-label", words);

/** Position of a pointer on an element, [x, y] as shares of its width and height. */
export function pointerOn(element, { clientX, clientY }) {
  const { left, top, width, height } = element.getBoundingClientRect();
  return [(clientX - left) / width, (clientY - top) / height];
}

/** Row and column of the cell under a pointer. */
export function cellOn(element, event, rows, columns) {
  const [x, y] = pointerOn(element, event);
  return [clamp(0, Math.floor(y * rows), rows - 1), clamp(0, Math.floor(x * columns), columns - 1)];
}

const LIGHT = { below: [33, 102, 172], zero: [247, 247, 247], above: [178, 24, 43] };
const DARK = { below: [96, 172, 240], zero: [32, 34, 40], above: [244, 120, 100] };

/** A weight as [red, green, blue]: blue below 0, red above, pale at 0 on a light page and dark on a dark one. */
export function colour(value, limit, dark) {
  const { below, zero, above } = dark ? DARK : LIGHT;
  const share = Math.min(1, Math.abs(value) / limit);
  const end = value < 0 ? below : above;
  return zero.map((z, i) => Math.round(z + share * (end[i] - z)));
}

/** Give a canvas its size, if it has another: even the same one again would cost a layout of the page. */
function resize(canvas, width, height) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
}

/** Draw on a canvas of so many pixels: `fill` writes their colours, four bytes to a pixel. */
export function drawPixels(canvas, width, height, fill) {
  resize(canvas, width, height);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  fill(pixels.data);
  context.putImageData(pixels, 0, 0);
}

/** Draw a map [rows, columns] of weights, one canvas pixel a weight; CSS makes it large. */
export function drawMap(canvas, values, rows, columns, limit = largest(values), dark = isDark()) {
  const { below, zero, above } = dark ? DARK : LIGHT;
  drawPixels(canvas, columns, rows, (data) => {
    for (let i = 0; i < rows * columns; i++) {
      const share = Math.min(1, Math.abs(values[i]) / limit);
      const end = values[i] < 0 ? below : above;
      data[4 * i] = zero[0] + share * (end[0] - zero[0]); // rounded by the array
      data[4 * i + 1] = zero[1] + share * (end[1] - zero[1]);
      data[4 * i + 2] = zero[2] + share * (end[2] - zero[2]);
      data[4 * i + 3] = 255;
    }
  });
}

/** Draw all colours of weights, from the lowest to the highest, in 2·n + 1 steps. */
export function drawRamp(canvas, n) {
  const weights = Float32Array.from({ length: 2 * n + 1 }, (_, i) => i - n);
  drawMap(canvas, weights, 1, weights.length);
}

/** Draw an image [C, H, W] of bytes, grey or in colour. */
export function drawImage(canvas, image, [C, H, W]) {
  drawPixels(canvas, W, H, (data) => {
    for (let i = 0; i < H * W; i++) {
      for (let c = 0; c < 3; c++) data[4 * i + c] = image[(C === 1 ? 0 : c) * H * W + i];
      data[4 * i + 3] = 255;
    }
  });
}

/** Copy one canvas to the whole of another, with sharp pixels. */
export function enlarge(source, canvas) {
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return context;
}
