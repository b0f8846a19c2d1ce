// A drawing in the laboratory, read by the model of the moment that is shown.

import { makeBars } from "./bars.js";
import { makeBoard } from "./board.js";
import { Engine } from "./engine.js";
import { bytes, highest } from "./numerics.js";
import { panel, row } from "./page.js";

const ASK = "Draw, and it is read";

/** A board, and what the model of the moment says of the drawing on it; for grey images. */
export function makeReader(model, lab) {
  const [, H, W] = lab.shape;
  const state = { image: new DataView(new ArrayBuffer(H * W)), example: -1 };
  const own = {
    get: (name) => state[name],
    set: (name, value) => (state[name] = value),
    save_changes: () => draw(scene),
  };
  const board = makeBoard(own, { H, W, rows: 1, columns: 1 });
  const frame = board.el.querySelector(".mx-board");
  const bars = makeBars(lab.names);
  let [engine, scene] = [];
  async function start() {
    engine = await Engine.start(bytes(model.get("engine")));
    if (scene) draw(scene);
  }
  function draw(now) {
    scene = now;
    const image = bytes(state.image);
    frame.style.setProperty("--rows", H / scene.config.patch_size);
    frame.style.setProperty("--columns", W / scene.config.patch_size);
    board.draw({ image, what: image.some(Boolean) ? "a drawing" : "nothing" });
    if (!engine || !scene.params || !image.some(Boolean)) return bars.draw(ASK);
    engine.hold(scene.config, [scene.params], lab, scene.order);
    const shares = engine.read(image);
    const best = shares.indexOf(highest(shares));
    bars.draw(`The model of this moment says: ${lab.names[best]}`, shares, best);
  }
  start().catch(() => {}); // the run names what is wrong with the engine
  return { el: row(board.el, panel("mx-answer", bars.el)), draw };
}
