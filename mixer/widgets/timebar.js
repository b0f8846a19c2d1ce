// The time of training as a bar: a curve over the steps to drag in, a slider below it, and a button that plays.

import { describe, pointerOn } from "./canvas.js";
import { around, norm } from "./library.js";
import { rowOf } from "./numerics.js";
import { clamp, h, note, playButton, put, say, slider } from "./page.js";

const FINENESS = 8; // stops of the slider from one snapshot to the next
const FRAME = 60; // milliseconds from stop to stop while it plays
const WIDTH = 600; // of the curve, in units of its own
const HEIGHT = 60;

/** The training steps at which the slider stops: the snapshots, and up to 7 steps between two of them. */
function stopsOf(steps) {
  const between = steps.slice(1).map((step, i) => {
    const n = Math.min(FINENESS, step - steps[i]);
    return Array.from({ length: n }, (_, k) => Math.round(steps[i] + ((k + 1) / n) * (step - steps[i])));
  });
  return [steps[0], ...between.flat()];
}

/** The place of a training step on the slider, as a share of its length. */
function placeOf(stops, step) {
  const { before, share } = around(stops, clamp(0, step, stops.at(-1)));
  return (before + share) / Math.max(1, stops.length - 1);
}

/** The curve over the training: the loss where the checkpoint tells it, or else the mean norm of the input maps. */
function curveOf({ models, stored, nLayers, nUnits, nTokens }, m, layer) {
  const { steps, history } = models[m];
  if (history) return { words: "Loss on the validation images, from the end of the first epoch on", points: history };
  const size = nUnits * nTokens;
  const scale = stored[`${m}.scales`][layer * 2];
  const points = steps.map((step, i) => {
    const maps = rowOf(stored[`${m}.maps`], (i * nLayers + layer) * 2, size);
    let sum = 0;
    for (let unit = 0; unit < nUnits; unit++) sum += norm(rowOf(maps, unit, nTokens));
    return [step, (scale * sum) / nUnits];
  });
  return { words: "Mean norm of the input maps of this layer", points };
}

/** The value of the curve at a training step, as words; a loss is not known before the first epoch has ended. */
function valueAt({ points }, step) {
  const steps = points.map(([at]) => at);
  if (step < steps[0]) return "";
  const { before, after, share } = around(steps, step);
  const [from, to] = [points[before][1], points[after][1]];
  return `: ${(from + share * (to - from)).toFixed(3)} at this step`;
}

/** The curve with a line at every snapshot and one at the step that is shown. */
function drawCurve(box, { points }, steps, stops, step) {
  const high = Math.max(...points.map(([, value]) => value)) || 1;
  const x = (at) => (WIDTH * placeOf(stops, at)).toFixed(1);
  const y = (value) => (HEIGHT - (HEIGHT - 6) * Math.max(0, value / high)).toFixed(1);
  const upright = (at, kind) => `<line class="${kind}" x1="${x(at)}" x2="${x(at)}" y1="0" y2="${HEIGHT}"/>`;
  const marks = steps.map((one) => upright(one, "mx-old")).join("");
  const line = `<polyline points="${points.map(([at, value]) => `${x(at)},${y(value)}`).join(" ")}"/>`;
  const size = `viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none"`;
  box.innerHTML = `<svg ${size}>${marks}${line}${upright(step, "mx-now")}</svg>`;
}

/** The box of the curve; `moveTo` takes the share of its width at which a pointer drags. */
function makeChart(moveTo) {
  const chart = h("div", { class: "mx-chart", role: "img" });
  const drag = (event) => moveTo(clamp(0, pointerOn(chart, event)[0], 1));
  chart.addEventListener("pointerdown", (event) => {
    chart.setPointerCapture(event.pointerId);
    drag(event);
  });
  chart.addEventListener("pointermove", (event) => event.buttons && drag(event));
  return chart;
}

/** The time bar; `draw` takes the scene, and hides the bar where a run was not recorded. */
export function makeTime(model, library, shown) {
  const line = note();
  const stops = () => stopsOf(shown().steps);
  const last = () => stops().length - 1;
  const index = () => Math.round(placeOf(stops(), shown().step) * last());
  const show = (i) => put(model, "step", stops()[i]);
  const moveTo = (i) => {
    play.stop();
    show(i);
  };
  const chart = makeChart((share) => moveTo(Math.round(share * last())));
  const time = slider("Training step", { text: (i) => stops()[i], change: moveTo });
  const step = () => {
    show((index() + 1) % stops().length);
    return index() < last();
  };
  const still = () => {
    const { steps, step: now } = shown();
    put(model, "step", steps.find((one) => one > now) ?? steps[0]);
  };
  const play = playButton({ wait: FRAME, step, still, stillName: "Next step", atOnce: false });
  const el = h("div", { class: "mx-timebar" }, play.el, chart, time.el, line);
  const draw = ({ m, layer, steps, step: now }) => {
    el.classList.toggle("mixer-hidden", steps.length < 2);
    if (steps.length < 2) return;
    const curve = curveOf(library, m, layer);
    drawCurve(chart, curve, steps, stops(), now);
    const words = `${curve.words}${valueAt(curve, now)}`;
    describe(chart, `${words}; a line marks step ${now} of ${steps.at(-1)}.`);
    const between = steps.includes(now) ? "" : " Between two snapshots: interpolated.";
    const snapshots = `grey lines: the ${steps.length} snapshots; the first steps are drawn further apart`;
    say(line, `${words}; ${snapshots}.${between}`);
    time.range(last());
    time.set(index());
    play.name();
  };
  return { el, draw, isPlaying: play.isPlaying };
}
