// A drawing in the laboratory, read by the model of the moment that is shown.

import { makeBoard } from "./board.js";
import { Engine } from "./engine.js";
import { bytes } from "./numerics.js";
import { h, panel, row, say, title } from "./page.js";

const ASK = "Draw, and it is read";

/** A bar for each class. Returns { el, draw }, and draw takes the probabilities, or nothing. */
function makeBars(names) {
  const heading = title(ASK);
  const bars = names.map((name) => {
    const [bar, number] = [h("div"), h("span")];
    return { bar, number, el: h("li", {}, h("span", {}, name), h("div", {}, bar), number) };
  });
  const draw = (shares) => {
    const best = shares?.indexOf(shares.reduce((a, b) => Math.max(a, b)));
    say(heading, shares ? `The model of this moment says: ${names[best]}` : ASK);
    bars.forEach(({ bar, number, el }, i) => {
      bar.style.width = shares ? `${100 * shares[i]}%` : "0";
      say(number, shares ? `${(100 * shares[i]).toFixed(1)} %` : "");
      el.classList.toggle("mx-best", i === best);
    });
  };
  return { el: panel("mx-answer", heading, h("ul", { class: "mx-bars" }, ...bars.map(({ el }) => el))), draw };
}

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
    if (!engine || !scene.params || !image.some(Boolean)) return bars.draw();
    engine.configure(scene.config, 1);
    engine.setImages(image, [0], scene.order);
    engine.setRecipe({}, lab);
    engine.params.set(scene.params);
    engine.calls.run_one(0);
    bars.draw(engine.view(Float32Array, "probabilities", lab.names.length));
  }
  start().catch(() => {}); // the run names what is wrong with the engine
  return { el: row(board.el, bars.el), draw };
}
