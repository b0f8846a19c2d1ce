// Influence of tokens on one token, drawn on their patches of an image.

import { cellOn, drawImage, enlarge, picture } from "./canvas.js";
import { largest } from "./numerics.js";
import { h } from "./page.js";

const INK = [255, 140, 0]; // colour of influence on the image, the more opaque the larger
const DIM = 0.5; // brightness of the image behind it

/** The colours of influence, from 0 to the largest. */
export const influenceRamp = () =>
  h("span", { class: "mx-ramp", style: `background: linear-gradient(to right, #000, rgb(${INK}))` });

/** A picture of influence on images [C, H, W]; a click on a patch chooses its token. Returns { canvas, draw }. */
export function makeInfluenceMap([C, H, W], choose) {
  const scale = Math.ceil(280 / W);
  const [canvas, copy] = [picture(), h("canvas")];
  Object.assign(canvas, { width: W * scale, height: H * scale });
  let [rows, columns] = [1, 1];
  canvas.addEventListener("click", (event) => {
    const [y, x] = cellOn(canvas, event, rows, columns);
    choose(y * columns + x);
  });
  const draw = (image, grid, sizes, chosen) => {
    [rows, columns] = grid;
    const [width, height] = [canvas.width / columns, canvas.height / rows];
    const corner = (t) => [(t % columns) * width, Math.floor(t / columns) * height];
    drawImage(
      copy,
      image.map((value) => DIM * value),
      [C, H, W],
    );
    const context = enlarge(copy, canvas);
    const limit = largest(sizes);
    sizes.forEach((size, t) => {
      context.fillStyle = `rgba(${INK}, ${(0.9 * size) / limit})`;
      context.fillRect(...corner(t), width, height);
    });
    const [x, y] = corner(chosen);
    context.strokeStyle = "#fff";
    context.lineWidth = 4;
    context.strokeRect(x + 2, y + 2, width - 4, height - 4);
  };
  return { canvas, draw };
}

/** The tokens with the most influence, in words. */
export function strongest(sizes) {
  const order = Array.from(sizes.keys()).sort((a, b) => sizes[b] - sizes[a]);
  return order.slice(0, 3).join(", ");
}
