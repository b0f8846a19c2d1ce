// A row of PatchExplorer's table, folded back into a patch: as a picture, and number by number where there is room.

import { describe, drawImage, picture } from "./canvas.js";
import { h, note, panel, row, say, title } from "./page.js";

const LARGEST_PATCH = 8; // the side up to which numbers are written
const CELL = 30; // of a number, in units of the drawing

/** Whether black is easier to read on a colour than white: by its luminance, as WCAG 2.2 defines contrast. */
function isBright(rgb) {
  const shares = [0.2126, 0.7152, 0.0722];
  return shares.reduce((sum, share, c) => sum + share * (rgb[c] / 255) ** 2.2, 0) > 0.179;
}

/** One number as SVG, on its own colour. */
function numberAt(x, y, value, rgb) {
  const [left, top, middle] = [x * CELL, y * CELL, CELL / 2];
  return (
    `<rect x="${left}" y="${top}" width="${CELL}" height="${CELL}" fill="rgb(${rgb})"/>` +
    `<text x="${left + middle}" y="${top + middle}" fill="${isBright(rgb) ? "#000" : "#fff"}">${value}</text>`
  );
}

/** The numbers of one channel of a patch: a drawing of them, which says them too, and their places in the row. */
function makeNumbers(c, { image, tints }) {
  const [drawing, places] = [h("div", { role: "img" }), note()];
  const el = h("div", { class: "mx-numbers" }, drawing, places);
  const draw = ({ P, members }) => {
    const [first, end] = [c * P * P, (c + 1) * P * P];
    const own = members.slice(first, end);
    const parts = own.map((i, k) => numberAt(k % P, Math.floor(k / P), image[i], tints[i]));
    drawing.innerHTML = `<svg viewBox="0 0 ${P * CELL} ${P * CELL}">${parts.join("")}</svg>`;
    say(places, `numbers ${first} to ${end - 1}`);
    describe(drawing, own.map((i) => image[i]).join(", "));
  };
  return { el, draw };
}

/** The panel; its `draw` takes `members`, the places in the image of the row's numbers, in their order. */
export function makePatchRow(source) {
  const { C, image } = source;
  const [heading, canvas, hint] = [title(), picture(), note()];
  const fields = Array.from({ length: C }, (_, c) => makeNumbers(c, source));
  const all = row(h("div", { class: "mx-numbers" }, canvas, note("as a picture")), ...fields.map(({ el }) => el));
  const draw = (scene) => {
    const { P, token, members } = scene;
    const values = members.map((i) => image[i]);
    const isSmall = P <= LARGEST_PATCH;
    drawImage(canvas, values, [C, P, P]);
    describe(canvas, `Row ${token} of the table as a picture of ${P} by ${P} pixels.`);
    all.style.setProperty("--side", P);
    for (const field of fields) {
      field.el.hidden = !isSmall;
      if (isSmall) field.draw(scene);
    }
    say(heading, `Row ${token} of the table, folded to [C_in, P, P] = [${C}, ${P}, ${P}]`);
    say(hint, isSmall ? "" : `The numbers are written out for patches of up to ${LARGEST_PATCH} × ${LARGEST_PATCH}.`);
  };
  return { el: panel("", heading, all, hint), draw };
}
