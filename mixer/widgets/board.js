// A drawing board: an image that the reader draws with a mouse, a pen, a finger, or the keys.

import { describe, drawImage, picture, pointerOn } from "./canvas.js";
import { bytes } from "./numerics.js";
import { button, clamp, h, panel, place, put, row, stepOf, title } from "./page.js";

const KEYS = "Drawing board. Arrow keys move the cursor. Space or Enter puts the pen down, and lifts it again.";
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** A copy of an image [C, H, W] of bytes with a soft line on it, 2 pixels wide on 28, from one point [x, y] to another. */
export function paint(image, { H, W }, [x0, y0], [x1, y1]) {
  const radius = Math.max(0.6, W / 28);
  const [dx, dy] = [x1 - x0, y1 - y0];
  return image.map((old, i) => {
    const [x, y] = [(i % W) + 0.5 - x0, (Math.floor(i / W) % H) + 0.5 - y0];
    const share = clamp(0, (x * dx + y * dy) / (dx * dx + dy * dy || 1), 1);
    const distance = Math.hypot(x - share * dx, y - share * dy);
    return Math.max(old, Math.round(255 * clamp(0, radius + 0.5 - distance, 1)));
  });
}

/** Drawing with a pointer: mouse, pen or finger. */
function drawByPointer(board, size, { begin, read, show }) {
  const { H, W } = size;
  let last;
  const point = (event) => {
    const [x, y] = pointerOn(board, event);
    return [x * W, y * H];
  };
  board.addEventListener("pointerdown", (event) => {
    if (event.button || last) return;
    board.setPointerCapture(event.pointerId);
    begin();
    last = point(event);
    show(paint(read(), size, last, last));
  });
  board.addEventListener("pointermove", (event) => {
    if (!board.hasPointerCapture(event.pointerId)) return;
    const steps = event.getCoalescedEvents?.() ?? [];
    let image = read();
    for (const step of steps.length ? steps : [event]) image = paint(image, size, last, (last = point(step)));
    show(image);
  });
  board.addEventListener("lostpointercapture", ({ target }) => {
    if (target === board) last = undefined; // and not that of another finger, which the canvas had
  });
}

/** Drawing with the keys: the arrows move a cursor, Space or Enter puts the pen down and lifts it. */
function drawByKeys(board, size, { begin, read, show }) {
  const { H, W } = size;
  const cursor = h("div", { class: "mx-cursor", style: `width: ${100 / W}%; height: ${100 / H}%` });
  board.append(cursor);
  let [at, down] = [[Math.floor(W / 2), Math.floor(H / 2)], false];
  const line = (from, to) => show(paint(read(), size, ...[from, to].map(([x, y]) => [x + 0.5, y + 0.5])));
  const showCursor = () => {
    place(cursor, { left: at[0] / W, top: at[1] / H });
    cursor.classList.toggle("mx-down", down);
  };
  board.addEventListener("keydown", (event) => {
    const step = stepOf(event, STEPS);
    if (!step && event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    const next = step ? [clamp(0, at[0] + step[0], W - 1), clamp(0, at[1] + step[1], H - 1)] : at;
    if (!step) down = !down;
    if (down && !step) begin();
    if (down) line(at, next);
    at = next;
    showCursor();
  });
  board.addEventListener("blur", () => {
    down = false;
    showCursor();
  });
  showCursor();
}

/** The strokes on a board: what one begins with, and the images before the last ones, to which Undo goes back. */
function makeStrokes(model, start) {
  const before = [];
  const now = () => ["example", "image"].map((name) => model.get(name));
  const show = (image, example = -1) => {
    model.set("example", example);
    put(model, "image", image);
  };
  const remember = () => before.push(now());
  return {
    remember,
    read: () => bytes(model.get("image")),
    show: (image) => show(new DataView(image.buffer)),
    begin() {
      remember();
      const image = start();
      if (image) show(new DataView(image.buffer));
    },
    undo() {
      const [example, image] = before.pop() ?? now();
      show(image, example);
    },
    canUndo: () => before.length > 0,
  };
}

/**
 * The board with its grid of patches, and buttons that clear it and take the last stroke back.
 *
 * `start` may give the image on which a stroke begins, where that is not what the board shows. Returns { el, draw }, as
 * all parts do, the `surface` that is drawn on, and `remember`, to be called before something else changes the image.
 */
export function makeBoard(model, mixer, words = "Draw here", start = () => null) {
  const { C = 1, H, W, rows, columns } = mixer;
  const canvas = picture();
  const style = `--rows: ${rows}; --columns: ${columns}`;
  const surface = h("div", { class: "mx-board", style, tabindex: 0, role: "application", "aria-label": KEYS }, canvas);
  const empty = () => new Uint8Array(C * H * W);
  const strokes = makeStrokes(model, start);
  drawByPointer(surface, mixer, strokes);
  drawByKeys(surface, mixer, strokes);
  const clear = button("Clear", () => {
    strokes.begin();
    strokes.show(empty());
  });
  const undo = button("Undo", strokes.undo);
  const draw = ({ image, what }) => {
    drawImage(canvas, image, [C, H, W]);
    undo.setAttribute("aria-disabled", !strokes.canUndo()); // and not disabled, which would lose the focus
    describe(canvas, `The board, ${rows} by ${columns} patches. On it is ${what}.`);
  };
  return { el: panel("mx-draw", title(words), surface, row(clear, undo)), draw, surface, remember: strokes.remember };
}
