// Pictures of numbers with one element to a cell, which can be framed and clicked.

import { colour, describe } from "./canvas.js";
import { largest } from "./numerics.js";
import { h, isDark } from "./page.js";

/** A number as a CSS colour. */
export const fill = (value, limit) => `rgb(${colour(value, limit, isDark())})`;

/** Numbers as CSS colours, on a scale up to the largest of them. */
export function fills(values) {
  const limit = largest(values);
  return Array.from(values, (value) => fill(value, limit));
}

/** Cells in so many columns. `paint` gives the first `end` of them their colours and frames the one at `lit`. */
export function makeCells(n, columns, kind, pick) {
  const cells = Array.from({ length: n }, (_, i) => h("div", { onclick: () => pick(i) }));
  const el = h("div", { class: `mx-cells ${kind}`, role: "img", style: `--columns: ${columns}` }, ...cells);
  function paint(backgrounds, label, lit, end = n) {
    cells.forEach((cell, i) => {
      cell.style.background = i < end ? backgrounds[i] : "";
      cell.classList.toggle("mx-empty", i >= end);
      cell.classList.toggle("mx-lit", i === lit);
    });
    describe(el, label);
  }
  return { el, paint };
}
