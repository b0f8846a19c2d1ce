// A drawing or a picture in the laboratory, read by the model of the moment that is shown.

import { makeBars } from "./bars.js";
import { makeBoard } from "./board.js";
import { readPicture } from "./cut.js";
import { bytes, highest, product } from "./numerics.js";
import { filesField, onDrop, panel, put, row } from "./page.js";

const ASK = "Draw, and it is read";

/** Let the board take a picture file, too, cut to its size. */
function takePictures(board, own, [C, , W]) {
  const change = async ([file]) => {
    const images = await readPicture(file, [W]);
    board.remember();
    put(own, "image", new DataView(images[C][W].buffer));
    return "";
  };
  const files = filesField("Or choose a picture:", { change });
  board.el.append(files.el);
  onDrop(board.el, files.take);
}

/** A board, and what the model of the moment says of what is on it: a drawing, or, of the reader's own classes, a picture. */
export function makeReader(lab, probe, changed) {
  const [C, H, W] = lab.shape;
  const state = { image: new DataView(new ArrayBuffer(product(lab.shape))), example: -1 };
  const own = {
    get: (name) => state[name],
    set: (name, value) => (state[name] = value),
    save_changes: changed,
  };
  const board = makeBoard(own, { C, H, W, rows: 1, columns: 1 });
  const frame = board.el.querySelector(".mx-board");
  const bars = makeBars(lab.names);
  const drawing = () => bytes(state.image);
  function draw(scene) {
    const image = drawing();
    frame.style.setProperty("--rows", H / scene.config.patch_size);
    frame.style.setProperty("--columns", W / scene.config.patch_size);
    board.draw({ image, what: image.some(Boolean) ? "a drawing" : "nothing" });
    const shares = image.some(Boolean) ? probe.read(image, scene) : undefined;
    if (!shares) return bars.draw(ASK);
    const best = shares.indexOf(highest(shares));
    bars.draw(`The model of this moment says: ${lab.names[best]}`, shares, best);
  }
  if (lab.isOwn) takePictures(board, own, lab.shape);
  return { el: row(board.el, panel("mx-answer", bars.el)), draw, drawing };
}
