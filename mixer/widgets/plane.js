// A plane with logarithmic axes, as the text of an SVG: its frame with ticks, and marks and lines in it.

import { clamp } from "./page.js";

const WIDTH = 360; // in units of its own
const HEIGHT = 236;
const LEFT = 34;
const RIGHT = WIDTH - 10;
const TOP = 40;
const BOTTOM = HEIGHT - 26;
export const BAND = 17; // the height at which everything above the axis stands
export const LOSSES = [0.05, 10]; // the ends of the upright axis, as in valley.py
const TICKS = [0.1, 1, 10];

/** The place of a value between two ends of a logarithmic axis, as a share. */
const shareOf = (value, [low, high]) => Math.log(clamp(low, value, high) / low) / Math.log(high / low);

/** Whether a loss stands above the axis: it is too large, or no longer a number. */
export const isAbove = (loss) => loss === null || loss > LOSSES[1];

export const upOf = (loss) => (isAbove(loss) ? BAND : BOTTOM - (BOTTOM - TOP) * shareOf(loss, LOSSES));

/** The place of a value on an axis that runs across, logarithmic or not. */
export const acrossOf = (value, [low, high], isLog) =>
  LEFT + 8 + (RIGHT - LEFT - 16) * (isLog ? shareOf(value, [low, high]) : (value - low) / (high - low));

const text = (x, y, anchor, words) =>
  `<text x="${x}" y="${y}" text-anchor="${anchor}" fill="currentColor" font-size="11">${words}</text>`;

const line = (x1, y1, x2, y2, rest) =>
  `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="currentColor" ${rest}/>`;

/** The axes, the band above them, and the loss of guessing; `ticks` are [place, words] on the axis that runs across. */
export function frameOf(ticks, guess) {
  const rows = TICKS.map((loss) => line(LEFT, upOf(loss), RIGHT, upOf(loss), 'stroke-opacity="0.15"'));
  const labels = TICKS.map((loss) => text(LEFT - 5, upOf(loss) + 4, "end", String(loss)));
  const feet = ticks.map(([x, words]) => line(x, BOTTOM, x, BOTTOM + 4, "") + text(x, HEIGHT - 8, "middle", words));
  const guessing = line(LEFT, upOf(guess), RIGHT, upOf(guess), 'stroke-dasharray="2 4" stroke-opacity="0.7"');
  const axes = line(LEFT, 6, LEFT, BOTTOM, "") + line(LEFT, BOTTOM, RIGHT, BOTTOM, "");
  return [...rows, ...labels, text(LEFT - 5, BAND + 4, "end", "more"), ...feet, guessing, axes].join("");
}

/** An upright line through the whole plane. */
export const uprightAt = (x) => line(x, 6, x, BOTTOM, 'stroke-width="1.5"');

/** A line through points [x, loss]. */
export function pathOf(points, ink, rest) {
  const places = points.map(([x, loss]) => `${x.toFixed(1)},${upOf(loss).toFixed(1)}`);
  return `<polyline points="${places.join(" ")}" fill="none" stroke="${ink}" ${rest}/>`;
}

/** An SVG of these parts, which a screen reader hears as words. */
export const planeOf = (parts, style) =>
  `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" style="display: block; width: 100%; ${style}" aria-hidden="true">${parts.join("")}</svg>`;
