// What the laboratory shows of a run: its curves, the maps of token mixing, the confusion matrix, and mistakes.

import { colour, describe, drawImage, drawMap, drawPixels, picture } from "./canvas.js";
import { tensorsOf, WITH_HIDDEN } from "./engine.js";
import { highest, largest, product, sizesOf } from "./numerics.js";
import { choice, decimal, h, note, panel, percent, row, say, slider, title } from "./page.js";

const WIDTH = 320; // of a chart, in units of its own
const HEIGHT = 150;
const MOST_MAPS = 64; // of a layer that are drawn
const N_MISTAKES = 6;
const SCALE = "Neighbour correlation: near 1 for smooth maps, about 0 for noise.";

// ---------------------------------------------------------------------------------------------------- curves

/** A line through the points of a history. */
function lineOf(history, name, nEpochs, high, kind) {
  const points = history.map((record) => {
    const y = HEIGHT - (HEIGHT - 10) * Math.min(1, record[name] / high);
    return `${((WIDTH * record.epoch) / nEpochs).toFixed(1)},${y.toFixed(1)}`;
  });
  return `<polyline class="${kind}" points="${points.join(" ")}"/>`;
}

/** A chart of one quantity, in training and in validation, with the runs that were kept behind it. */
function makeChart(words, quantity, highOf, pick) {
  const [heading, box] = [title(), h("div", { class: "mx-chart", role: "img" })];
  box.addEventListener("pointermove", (event) => event.buttons && choose(event));
  box.addEventListener("pointerdown", choose);
  function choose({ clientX }) {
    const { left, width } = box.getBoundingClientRect();
    pick((clientX - left) / width);
  }
  const [train, validation] = [`train_${quantity}`, `validation_${quantity}`];
  const draw = ({ history, runs, nEpochs, epoch }) => {
    const all = [history, ...runs.map((run) => run.history)];
    const longest = Math.max(nEpochs, ...all.map(({ length }) => length));
    const high = highOf(all.flat().flatMap((record) => [record[train], record[validation]]));
    const old = runs.map((run) => lineOf(run.history, validation, longest, high, "mx-old"));
    const own = [
      lineOf(history, train, longest, high, "mx-train"),
      lineOf(history, validation, longest, high, "mx-held"),
    ];
    const at = ((WIDTH * epoch) / longest).toFixed(1);
    const bar = `<line class="mx-now" x1="${at}" x2="${at}" y1="0" y2="${HEIGHT}"/>`;
    box.innerHTML = `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}">${old.join("")}${own.join("")}${bar}</svg>`;
    const record = history[Math.floor(epoch) - 1]; // of the last full epoch
    const text = record ? `: ${show(record[train])} training, ${show(record[validation])} validation` : "";
    say(heading, `${words}${text}`);
    describe(box, `${words} by epoch, from 0 to ${show(high)}${text}.`);
  };
  const show = quantity === "accuracy" ? percent : (loss) => (loss < 1e4 ? loss.toFixed(3) : loss.toExponential(1));
  return { el: panel("mx-wide", heading, box), draw };
}

const highestOf = (values) => Math.max(0.1, ...values);

/** Both curves and the time bar, whose places are the moments that can be shown; the last is where the run stands. */
export function makeCurves(moveTo) {
  let [nEpochs, moments] = [1, []];
  const pick = (share) => moveTo(Math.round(share * nEpochs));
  const charts = [makeChart("Loss", "loss", highestOf, pick), makeChart("Accuracy", "accuracy", () => 1, pick)];
  const time = slider("Epoch", {
    text: (i) => moments[i]?.words ?? "0",
    change: (i) => moveTo(i < moments.length - 1 ? moments[i].epoch : Infinity),
  });
  const legend = note("Solid: validation; dashed: training; grey: kept runs. Drag in a chart, or move the slider.");
  const draw = (scene) => {
    nEpochs = Math.max(scene.nEpochs, ...scene.runs.map((run) => run.history.length));
    charts.forEach((chart) => chart.draw(scene));
    moments = scene.moments;
    time.range(Math.max(0, moments.length - 1));
    time.set(moments.findLastIndex(({ epoch }) => epoch <= scene.epoch));
  };
  return { el: h("div", {}, row(...charts.map(({ el }) => el)), time.el, legend), draw };
}

// ---------------------------------------------------------------------------------------------------- maps

/** How alike neighbouring weights of maps are, as `neighbour_correlation` in mixer/analysis.py. */
function neighbourCorrelation(maps, n, rows, columns) {
  let [products, firsts, seconds] = [0, 0, 0];
  for (let i = 0; i < n; i++) {
    const map = maps.subarray(i * rows * columns, (i + 1) * rows * columns);
    const mean = map.reduce((sum, value) => sum + value, 0) / map.length;
    const pair = (a, b) => {
      products += (map[a] - mean) * (map[b] - mean);
      firsts += (map[a] - mean) ** 2;
      seconds += (map[b] - mean) ** 2;
    };
    for (let k = 0; k < map.length; k++) {
      if ((k + 1) % columns) pair(k, k + 1);
      if (k + columns < map.length) pair(k, k + columns);
    }
  }
  return products / Math.max(Math.sqrt(firsts * seconds), 1e-12);
}

/** Parameters by name, as views of the array that holds them all. */
function namedOf(config, params) {
  let at = 0;
  return Object.fromEntries(
    tensorsOf(config).map(([name, shape]) => [name, params.subarray(at, (at += product(shape)))]),
  );
}

/** The maps of a layer's token mixing, { maps, n, rows, columns }, or undefined where it has no such weights. */
function mapsOf(config, named, layer) {
  const { rows, columns, nTokens } = sizesOf(config);
  const name = `layers.${layer}.token_mixing`;
  if (config.token_mixing === "toeplitz")
    return { maps: named[`${name}.kernel`], n: 1, rows: 2 * rows - 1, columns: 2 * columns - 1 };
  const first = WITH_HIDDEN.includes(config.token_mixing) ? named[`${name}.fc1.weight`] : named[`${name}.fc.weight`];
  const n = first && Math.min(MOST_MAPS, first.length / nTokens);
  return first && { maps: first.subarray(0, n * nTokens), n, rows, columns };
}

/** The maps of every layer, copied: what is left of a run that is kept. */
export function allMapsOf(config, params) {
  const named = namedOf(config, params);
  const found = Array.from({ length: config.n_layers }, (_, i) => mapsOf(config, named, i));
  return found.map((layer) => layer && { ...layer, maps: layer.maps.slice() });
}

/** Draw maps beside each other, with one colour scale and a clear pixel between them. */
function drawMaps(canvas, { maps, n, rows, columns }, dark) {
  const across = Math.min(n, 16);
  const [width, height] = [across * (columns + 1) - 1, Math.ceil(n / across) * (rows + 1) - 1];
  const limit = largest(maps);
  drawPixels(canvas, width, height, (data) => {
    for (let i = 0; i < n * rows * columns; i++) {
      const [map, cell] = [Math.floor(i / (rows * columns)), i % (rows * columns)];
      const y = Math.floor(map / across) * (rows + 1) + Math.floor(cell / columns);
      const x = (map % across) * (columns + 1) + (cell % columns);
      data.set([...colour(maps[i], limit, dark), 255], 4 * (y * width + x));
    }
  });
}

const KINDS = {
  mlp: "the input map of one hidden unit",
  linear: "what one patch takes from all patches",
  toeplitz: "the kernel of a layer, with a patch's weight for itself in the middle",
};

/** The maps of one layer, with a heading. `draw` takes words, and the maps, or none where it has no such weights. */
function makeLayerMaps() {
  const [heading, canvas] = [title(), picture()];
  const el = panel("", heading, canvas);
  const draw = (words, found, dark, isThere) => {
    el.style.visibility = isThere ? "" : "hidden";
    canvas.hidden = !found;
    if (!found) return say(heading, `${words}: this token mixing has no maps`);
    canvas.classList.toggle("mx-one", found.n === 1);
    drawMaps(canvas, found, dark);
    const correlation = neighbourCorrelation(found.maps, found.n, found.rows, found.columns);
    say(heading, `${words}: neighbour correlation ${decimal(correlation)}`);
    describe(canvas, `${words}: ${found.n} maps of ${found.rows} by ${found.columns} weights.`);
  };
  return { el, draw };
}

/** The maps of every layer, and beside them those of a run that was kept: one of `kept()`. */
export function makeMaps(kept, changed) {
  const [box, words] = [h("div", { class: "mx-layers" }), note()];
  const beside = choice("Beside them, the maps of", [], {
    change(name) {
      chosen = name;
      changed();
    },
  });
  let [layers, others, runs, chosen] = [[], [], undefined, ""];
  /** The maps of the kept run that is chosen; the choice is written anew when other runs are kept. */
  function besideThem(now) {
    if (runs !== now) {
      [runs, others] = [now, kept()];
      beside.offer([["", "no other run"], ...others.map(({ name }) => [name, name])]);
      beside.el.hidden = !others.length;
    }
    const other = others.find(({ name }) => name === chosen);
    beside.set(other?.name ?? "");
    return other?.maps;
  }
  const draw = ({ config, params, dark, runs: now }) => {
    const other = besideThem(now);
    const named = params && namedOf(config, params);
    const n = Math.max(config.n_layers, other?.length ?? 0);
    if (layers.length !== n) {
      layers = Array.from({ length: n }, () => [makeLayerMaps(), makeLayerMaps()]);
      box.replaceChildren(...layers.flat().map(({ el }) => el));
    }
    box.classList.toggle("mx-pairs", Boolean(other));
    const what = KINDS[config.token_mixing] ?? KINDS.mlp;
    say(words, `Each small picture is ${what}: red weights are positive, blue ones negative. ${SCALE}`);
    layers.forEach(([own, second], i) => {
      const isThere = i < config.n_layers;
      own.draw(`Layer ${i}`, isThere && named && mapsOf(config, named, i), dark, isThere);
      second.el.hidden = !other;
      if (other) second.draw(`Kept run, layer ${i}`, other[i], dark, i < other.length);
    });
  };
  return { el: panel("mx-wide", title("Token mixing, growing"), beside.el, box, words), draw };
}

// ---------------------------------------------------------------------------------------------------- answers

/** The answers to the validation images: for each its class, the answer, and how sure the model is. */
function answersOf({ labels, counts }, shares, K) {
  return Array.from({ length: counts[1] }, (_, i) => {
    const own = shares.subarray(i * K, (i + 1) * K);
    const answer = own.indexOf(highest(own));
    return { i, label: labels[counts[0] + i], answer, share: own[answer] };
  });
}

/** The confusion matrix, and the mistakes of which the model is surest. */
export function makeAnswers(lab) {
  const { names, counts, shape, imageOf } = lab;
  const [matrix, words] = [picture(), note()];
  const mistakes = Array.from({ length: N_MISTAKES }, () => ({ canvas: picture(), words: note() }));
  const cards = mistakes.map((mistake) => h("div", {}, mistake.canvas, mistake.words));
  const draw = ({ shares, dark, epoch }) => {
    const [K, answers] = [names.length, shares ? answersOf(lab, shares, names.length) : []];
    const cells = new Float32Array(K * K);
    for (const { label, answer } of answers) cells[label * K + answer] += 1;
    drawMap(matrix, cells.map(Math.sqrt), K, K, undefined, dark);
    const wrong = answers.filter(({ label, answer }) => label !== answer).sort((a, b) => b.share - a.share);
    const when = Number.isInteger(epoch) ? "" : ` after epoch ${Math.floor(epoch)}`; // which is when they are asked
    say(words, `${counts[1]} validation images, ${wrong.length} answered wrongly${when}. Row: class; column: answer.`);
    describe(matrix, `Confusion matrix. ${words.textContent}`);
    mistakes.forEach(({ canvas, words: caption }, k) => {
      cards[k].hidden = k >= wrong.length;
      if (k >= wrong.length) return;
      const { i, label, answer, share } = wrong[k];
      const text = `${names[label]}, read as ${names[answer]} (${percent(share)})`;
      drawImage(canvas, imageOf(counts[0] + i), shape);
      describe(canvas, text);
      say(caption, text);
    });
  };
  const areShort = names.every((name) => name.length <= 2); // enough to stand beside a cell
  const edge = () => h("div", { "aria-hidden": "true" }, ...(areShort ? names.map((name) => h("span", {}, name)) : []));
  const labelled = h("div", { class: "mx-labelled" }, edge(), matrix, edge());
  const left = panel("mx-matrix", title("What is taken for what"), labelled, words);
  const right = panel("", title("The surest mistakes"), h("div", { class: "mx-mistakes" }, ...cards));
  return { el: row(left, right), draw };
}
