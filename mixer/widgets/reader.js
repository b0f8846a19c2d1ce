// A drawing in the laboratory, read by the model of the moment that is shown.

import { makeBars } from "./bars.js";
import { makeBoard } from "./board.js";
import { bytes, highest } from "./numerics.js";
import { panel, row } from "./page.js";

const ASK = "Draw, and it is read";

/** A board, and what the model of the moment says of the drawing on it; for grey images. */
export function makeReader(lab, probe, changed) {
  const [, H, W] = lab.shape;
  const state = { image: new DataView(new ArrayBuffer(H * W)), example: -1 };
  const own = {
    get: (name) => state[name],
    set: (name, value) => (state[name] = value),
    save_changes: changed,
  };
  const board = makeBoard(own, { H, W, rows: 1, columns: 1 });
  const frame = board.el.querySelector(".mx-board");
  const bars = makeBars(lab.names);
  const drawing = () => bytes(state.image);
  function draw(scene) {
    const image = drawing();
    frame.style.setProperty("--rows", H / scene.config.patch_size);
    frame.style.setProperty("--columns", W / scene.config.patch_size);
    board.draw({ image, what: image.some(Boolean) ? "a drawing" : "nothing" });
    const engine = image.some(Boolean) ? probe.pass(image, scene) : undefined;
    if (!engine) return bars.draw(ASK);
    const shares = engine.view(Float32Array, "probabilities", lab.names.length);
    const best = shares.indexOf(highest(shares));
    bars.draw(`The model of this moment says: ${lab.names[best]}`, shares, best);
  }
  return { el: row(board.el, panel("mx-answer", bars.el)), draw, drawing };
}
