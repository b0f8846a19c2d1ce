// What MixerFlow can take away from the whole model at once: the token mixing of all layers, and the order of the patches.

import { describe, drawImage, picture } from "./canvas.js";
import { h, note, panel, put, tick } from "./page.js";

/** An order in which none of n patches keeps its place: Sattolo's algorithm, which makes one cycle of them all. */
function shuffledOrder(n) {
  const order = Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const k = Math.floor(i * Math.random());
    [order[i], order[k]] = [order[k], order[i]];
  }
  return order;
}

export const isInOrder = (order) => order.every((patch, place) => patch === place);

/** An image whose patches stand in another order: at each place the one that the order names. */
export function reorder(image, order, { W, columns, config: { patch_size: P } }) {
  if (isInOrder(order)) return image;
  const corner = (t) => Math.floor(t / columns) * P * W + (t % columns) * P;
  const moved = new Uint8Array(image.length);
  order.forEach((patch, place) => {
    for (let y = 0; y < P; y++) {
      const from = corner(patch) + y * W;
      moved.set(image.subarray(from, from + P), corner(place) + y * W);
    }
  });
  return moved;
}

/** Both switches, and the image as the model gets it, where that is not what is drawn. */
export function makeSwitches(model, { H, W, nTokens }) {
  const every = (on) => model.get("mixing").map(() => on);
  const mixes = tick("Token mixing", { change: (on) => put(model, "mixing", every(on)) });
  describe(mixes.input, "Token mixing of all layers");
  const order = (on) => (on ? shuffledOrder(nTokens) : Array.from({ length: nTokens }, (_, i) => i));
  const shuffles = tick("Shuffle the patches", { change: (on) => put(model, "order", order(on)) });
  const canvas = picture("The image with its patches shuffled, as the model gets it.");
  const shown = panel("mx-seen", canvas, note("What the model gets"));
  const draw = ({ mixing, isShuffled, seen }) => {
    mixes.set(mixing.every(Boolean));
    mixes.input.indeterminate = mixing.some(Boolean) && !mixing.every(Boolean);
    shuffles.set(isShuffled);
    shown.hidden = !isShuffled;
    drawImage(canvas, seen, [1, H, W]);
  };
  return { el: h("div", { class: "mx-switches" }, mixes.el, shuffles.el), shown, draw };
}
