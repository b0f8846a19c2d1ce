// The opening of MixerFlow: the first image appears once, from its top on along its strokes, as if it were being drawn.

import { bytes } from "./numerics.js";
import { stillness } from "./page.js";

const DRAWN_IN = 1800; // milliseconds
const LIT = 64; // grey value from which a pixel belongs to a stroke

/** The eight neighbours of pixel i, and itself. */
function around(i, { H, W }) {
  const [x, y] = [i % W, Math.floor(i / W)];
  const near = [-1, 0, 1].flatMap((dy) => [-1, 0, 1].map((dx) => [x + dx, y + dy]));
  return near.filter(([u, v]) => u >= 0 && u < W && v >= 0 && v < H).map(([u, v]) => v * W + u);
}

/** For each pixel of an image the share of the drawing's time after which it appears. */
function whenDrawn(image, size) {
  const steps = new Float32Array(image.length); // along the ink, from 1 on
  let last = 0;
  for (let start = 0; start < image.length; start++) {
    if (image[start] < LIT || steps[start]) continue;
    const queue = [start];
    steps[start] = ++last;
    for (const i of queue) {
      last = steps[i];
      for (const k of around(i, size)) {
        if (image[k] < LIT || steps[k]) continue;
        steps[k] = steps[i] + 1;
        queue.push(k);
      }
    }
  }
  const soft = (i) => Math.min(...around(i, size).map((k) => steps[k] || last)); // the pale rim of a stroke
  return steps.map((step, i) => (step || soft(i)) / (last || 1));
}

/**
 * The first image of a model of the page while it appears. With reduced motion it is whole at once.
 *
 * Returns { watch, image, isOver, isFirst }: `watch` begins when an element comes into view, `image` is what is drawn
 * so far, and `isFirst` says whether nobody has put another image in its place yet.
 */
export function makeOpening(model, size, later) {
  const first = model.get("image");
  const isFirst = () => model.get("image") === first;
  let [begun, share, when] = [0, stillness() ? 1 : 0];
  const isOver = () => share >= 1 || !isFirst();
  function image() {
    const whole = bytes(model.get("image"));
    if (begun) share = (performance.now() - begun) / DRAWN_IN;
    if (isOver()) return whole;
    if (begun) later();
    when ??= whenDrawn(whole, size);
    return whole.map((value, i) => (when[i] <= share ? value : 0));
  }
  function watch(element) {
    if (isOver()) return;
    const begin = ([{ isIntersecting }]) => {
      if (!isIntersecting) return;
      observer.disconnect();
      begun = performance.now();
      later();
    };
    const observer = new IntersectionObserver(begin, { threshold: 0.5 });
    observer.observe(element);
  }
  return { watch, image, isOver, isFirst };
}
