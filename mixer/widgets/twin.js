// ConvolutionTwin: one hidden unit of token mixing, as a row of W1 and as a kernel, adding up the same number twice.

const TRAITS = ["unit", "channel", "example", "n_added"];
const PLAY_TIME = 8000; // milliseconds to add up all products

// ---------------------------------------------------------------------------------------------------- numbers

/** n numbers of a DataView of float32, little-endian. */
function floats(view, n) {
  if (view?.byteLength !== 4 * n) throw new Error("its numbers are damaged or incomplete");
  const numbers = Float32Array.from({ length: n }, (_, i) => view.getFloat32(4 * i, true));
  if (!numbers.every(Number.isFinite)) throw new Error("one of its numbers is not finite");
  return numbers;
}

/** What does not change: the weights, the normalised tables, the images, and their sizes. */
function read(model) {
  const [counts, grid, shape] = ["counts", "grid", "shape"].map((name) => model.get(name));
  const nTokens = grid[0] * grid[1];
  const images = bytes(model.get("images"));
  const size = shape.reduce((product, n) => product * n, 1);
  if (images.length !== counts.example * size) throw new Error("its images are damaged or incomplete");
  return {
    counts,
    grid,
    shape,
    nTokens,
    W1: floats(model.get("W1"), counts.unit * nTokens),
    b1: floats(model.get("b1"), counts.unit),
    normed: floats(model.get("normed"), counts.example * counts.channel * nTokens),
    imageOf: (i) => images.subarray(i * size, (i + 1) * size),
  };
}

/** The sums of the first 1, 2, 3 … products of a row of W1 and a column of the table. */
function runningSums(row, column) {
  let sum = 0;
  return Array.from(row, (weight, t) => (sum += weight * column[t]));
}

/** Numbers, one per token, on the patch grid: an array of rows. */
const fold = (numbers, [rows, columns]) =>
  Array.from({ length: rows }, (_, y) => numbers.slice(y * columns, (y + 1) * columns));

/**
 * What conv2d computes: the cross-correlation of a map with a kernel, both arrays of rows, at every place where the
 * kernel lies wholly on the map. A kernel as large as the map has one such place, so the result is a map of 1×1.
 */
function correlate(map, kernel) {
  const places = (length, covered) => Array.from({ length: length - covered + 1 }, (_, place) => place);
  const rowSum = (weights, y, x) => weights.reduce((sum, weight, j) => sum + weight * map[y][x + j], 0);
  const at = (y, x) => kernel.reduce((sum, weights, i) => sum + rowSum(weights, y + i, x), 0);
  return places(map.length, kernel.length).map((y) => places(map[0].length, kernel[0].length).map((x) => at(y, x)));
}

/** All that is shown of a unit on a channel of an image when `nAdded` products are added, in both views. */
function compute({ counts, grid, nTokens, W1, b1, normed }, [unit, channel, example, nAdded], kind) {
  const column = normed.subarray((example * counts.channel + channel) * nTokens).subarray(0, nTokens);
  const row = W1.subarray(unit * nTokens, (unit + 1) * nTokens);
  const map = fold(column, grid);
  const partial = (end) => fold(row.map((weight, t) => (t < end ? weight : 0)), grid); // weights to come count as 0
  const rowSums = (kernel) => kernel.map((weights, y) => correlate([map[y]], [weights])[0][0]);
  const sums = runningSums(row, column);
  const totals = [nAdded ? sums[nAdded - 1] : 0, correlate(map, partial(nAdded))[0][0]];
  return {
    column,
    row,
    products: row.map((weight, t) => weight * column[t]),
    sums,
    rowSums: rowSums(partial(nAdded)),
    rowLimit: largest(rowSums(partial(nTokens))),
    totals,
    biased: totals.map((total) => total + b1[unit]),
    activations: totals.map((total) => gelu(total + b1[unit], kind)),
    bias: b1[unit],
  };
}

/** A number as it is shown, to five decimals and with a true minus sign. */
const shown = (x) => x.toFixed(5).replace(/^-(?=.*[1-9])/, "−").replace("-", "");

// ---------------------------------------------------------------------------------------------------- pictures

/** A number as a CSS colour. */
const fill = (value, limit) => `rgb(${colour(value, limit, isDark())})`;

/** Numbers as CSS colours, on a scale up to the largest of them. */
function fills(values) {
  const limit = largest(values);
  return Array.from(values, (value) => fill(value, limit));
}

/** Cells in so many columns. `paint` gives the first `end` of them their colours and frames the one at `lit`. */
function makeCells(n, columns, kind, pick) {
  const cells = Array.from({ length: n }, (_, i) => h("div", { onclick: () => pick(i) }));
  const el = h("div", { class: `mx-cells ${kind}`, role: "img", style: `--columns: ${columns}` }, ...cells);
  function paint(fills, label, lit, end = n) {
    cells.forEach((cell, i) => {
      cell.style.background = i < end ? fills[i] : "";
      cell.classList.toggle("mx-empty", i >= end);
      cell.classList.toggle("mx-lit", i === lit);
    });
    el.setAttribute("aria-label", label);
  }
  return { el, paint };
}

/** Bars between 0 and each sum as CSS pictures, in a frame from the lowest to the highest, and the line at 0. */
function barsOf(sums) {
  const highest = Math.max(0, ...sums);
  const height = highest - Math.min(0, ...sums) || 1;
  const stripe = (from, to, ink) => {
    const [top, bottom] = [from, to].map((value) => `${(100 * (highest - value)) / height}%`);
    return `linear-gradient(transparent ${top}, ${ink} ${top} ${bottom}, transparent ${bottom})`;
  };
  const bar = (sum) => stripe(Math.max(0, sum), Math.min(0, sum), fill(Math.sign(sum), 1));
  return { bars: sums.map(bar), zero: stripe(height / 100, -height / 100, "var(--mx-muted)") };
}

/** A picture under its caption. */
function captioned(words, picture) {
  const caption = h("p", { class: "mx-note" }, words);
  const set = (text) => (caption.textContent = text);
  return { el: h("div", { class: "mx-panel" }, caption, picture.el), set };
}

/** Left: the column, the row, their products and the running sum, as strips with one cell per token. */
function makeTokenView(nTokens, pick) {
  const [values, weights, products, sums] = ["mx-strip", "mx-strip", "mx-strip", "mx-bars"].map((kind) =>
    makeCells(nTokens, nTokens, kind, pick),
  );
  const parts = [values, weights, products, sums].map((cells) => captioned("", cells));
  const title = h("p", { class: "mx-title" }, "Token mixing: a row times a column");
  function draw(now, [unit, channel, , nAdded]) {
    const lit = nAdded - 1;
    values.paint(fills(now.column), `Column ${channel} of the normalised table, one cell per token`, lit);
    weights.paint(fills(now.row), `Row ${unit} of W1, one cell per token`, lit);
    products.paint(fills(now.products), `The first ${nAdded} of ${nTokens} products of the two`, lit, nAdded);
    const { bars, zero } = barsOf(now.sums);
    sums.paint(bars, `The running sum of the products, now ${shown(now.totals[0])}`, lit, nAdded);
    sums.el.style.background = zero;
    parts[0].set(`channel: the column LN(X)[:, ${channel}]`);
    parts[1].set(`weights: the row W₁[${unit}]`);
    parts[2].set("products");
    parts[3].set("running sum");
  }
  return { el: h("section", {}, title, ...parts.map((part) => part.el)), draw };
}

/** Right: the same numbers as a map, a kernel and their products, and the sums of the rows of products. */
function makeMapView([rows, columns], pick) {
  const nTokens = rows * columns;
  const [values, weights, products] = [0, 1, 2].map(() => makeCells(nTokens, columns, "mx-map", pick));
  const sums = makeCells(rows, 1, "mx-sums", (y) => pick((y + 1) * columns - 1));
  const parts = [
    captioned("channel map", values),
    captioned("kernel", weights),
    captioned("products", products),
    captioned("row sums", sums),
  ];
  const size = `${rows}×${columns}`;
  const once = "There is one place for it, so it gives one number, here added up row by row.";
  const note = `The kernel of ${size} covers the whole map of ${size}. ${once}`;
  function draw(now, [unit, channel, , nAdded]) {
    const lit = nAdded - 1;
    values.paint(fills(now.column), `Channel ${channel} as a map of ${size}`, lit);
    weights.paint(fills(now.row), `The weights of hidden unit ${unit} as a kernel of ${size}`, lit);
    products.paint(fills(now.products), `The first ${nAdded} of ${nTokens} products, as a map`, lit, nAdded);
    const rowFills = now.rowSums.map((sum) => fill(sum, now.rowLimit));
    sums.paint(rowFills, "The sum of each row of products", Math.floor(lit / columns), Math.ceil(nAdded / columns));
  }
  const title = h("p", { class: "mx-title" }, "Convolution: a kernel on a map");
  const el = h("section", {}, title, h("div", { class: "mx-fields" }, ...parts.map((part) => part.el)));
  el.append(h("p", { class: "mx-note" }, note));
  return { el, draw };
}

/** The numbers of both views side by side. */
function makeTable(columns, nTokens) {
  const corner = h("td");
  const body = h("tbody");
  const views = ["Token mixing", "Convolution"].map((view) => h("th", { scope: "col" }, view));
  function line(label, numbers, names = ["", ""]) {
    const entry = (number, i) => h("td", {}, h("span", { class: "mx-note" }, names[i]), " ", number);
    const texts = numbers.map((number) => (number === undefined ? "–" : shown(number)));
    return h("tr", {}, h("th", { scope: "row" }, label), ...texts.map(entry));
  }
  function draw(now, [unit, channel, , nAdded]) {
    const t = nAdded - 1;
    const place = nAdded ? `[${Math.floor(t / columns)}, ${t % columns}]` : "";
    const token = nAdded ? `[${t}, ${channel}]` : "";
    const both = (x) => [x, x];
    corner.textContent = nAdded ? `Token ${t}` : "No token yet";
    const atEnd = (pair) => (nAdded === nTokens ? pair : both(undefined));
    body.replaceChildren(
      line("value", both(now.column[t]), [`LN(X)${token}`, `map${place}`]),
      line("× weight", both(now.row[t]), [`W₁${nAdded ? `[${unit}, ${t}]` : ""}`, `kernel${place}`]),
      line("= product", both(now.products[t])),
      line(`sum of ${nAdded} of ${nTokens}`, now.totals),
      line(`+ bias ${shown(now.bias)}`, atEnd(now.biased)),
      line("GELU: activation", atEnd(now.activations)),
    );
  }
  return { el: h("table", {}, h("thead", {}, h("tr", {}, corner, ...views)), body), draw };
}

/** The image with the patch of a token framed. */
function makePicture({ shape, grid: [rows, columns], imageOf }) {
  const canvas = h("canvas", { role: "img" });
  const frame = h("div", { class: "mx-lit" });
  const el = h("div", { class: "mx-picture" }, canvas, frame);
  function draw([, , example, nAdded]) {
    const t = nAdded - 1;
    drawImage(canvas, imageOf(example), shape);
    canvas.setAttribute("aria-label", `Image ${example}${nAdded ? `; the patch of token ${t} is framed` : ""}.`);
    const [left, top] = [(t % columns) / columns, Math.floor(t / columns) / rows];
    const sides = { left, top, width: 1 / columns, height: 1 / rows };
    for (const [side, share] of Object.entries(sides)) frame.style[side] = `${100 * share}%`;
    frame.hidden = nAdded === 0;
  }
  return { el, draw };
}

// ---------------------------------------------------------------------------------------------------- the figure

/** A button that adds up the products one after the other; with reduced motion, one at a press. */
function makePlay(model, nTokens) {
  let timer = 0;
  const button = h("button", { type: "button", onclick: toggle }, "Play");
  function toggle() {
    if (timer) return stop();
    if (model.get("n_added") === nTokens) put(model, "n_added", 0);
    if (stillness()) return addOne();
    button.textContent = "Pause";
    timer = setInterval(addOne, PLAY_TIME / nTokens);
  }
  function addOne() {
    if (button.isConnected) put(model, "n_added", Math.min(nTokens, model.get("n_added") + 1));
    if (!button.isConnected || model.get("n_added") === nTokens) stop();
  }
  function stop() {
    clearInterval(timer);
    timer = 0;
    button.textContent = "Play";
  }
  return button;
}

/** What is to be read in words. */
function describe(now, [unit, channel, , nAdded], nTokens) {
  const [left, right] = now.totals;
  const equal = Math.abs(left - right) < 1e-9 ? "are equal" : "differ";
  const sums = `${nAdded} of ${nTokens} products are added. The two sums ${equal}: ${shown(left)} and ${shown(right)}.`;
  if (nAdded < nTokens) return sums;
  const which = `the activation of unit ${unit} on channel ${channel}`;
  return `${sums} With the bias and through GELU, ${which} is ${shown(now.activations[0])}.`;
}

function render({ model, el }) {
  return live({ model, el }, TRAITS, (box) => {
    const data = read(model);
    const { counts, grid, nTokens } = data;
    const control = (label, name) =>
      slider(label, { max: counts[name] - 1, value: model.get(name), change: (now) => put(model, name, now) });
    const labels = ["Hidden unit", "Channel", "Image", "Products added"];
    const controls = labels.map((label, i) => control(label, TRAITS[i]));
    const pick = (token) => put(model, "n_added", token + 1);
    const [tokenView, mapView] = [makeTokenView(nTokens, pick), makeMapView(grid, pick)];
    const picture = makePicture(data);
    const table = makeTable(grid[1], nTokens);
    const facts = h("p", { role: "status" });
    const scale = h("span", { class: "mx-scale" });
    const title = `Token mixing of layer ${model.get("layer")}: one hidden unit, computed in two ways`;
    const legend = [
      "above 0. Each strip has a scale of its own, and the map of the same numbers has the same scale.",
      "Empty cells are not added yet; the frame marks the token that was added last.",
    ];
    const hint = "Add the products one by one, or play, and compare the sums. A click on a cell adds up to its token.";
    const column = h("div", { class: "mx-sliders" }, ...controls.map((each) => each.el), makePlay(model, nTokens));
    box.classList.add("mx-twin");
    box.append(
      h("p", { class: "mx-title" }, title),
      h("div", { class: "mx-row" }, picture.el, column),
      h("div", { class: "mx-views" }, tokenView.el, mapView.el),
      table.el,
      facts,
      h("p", { class: "mx-note" }, "Below 0 ", scale, ` ${legend.join(" ")}`),
      h("p", { class: "mx-note" }, hint),
    );

    return () => {
      const choices = TRAITS.map((name) => model.get(name));
      const outside = TRAITS.find((name, i) => !(choices[i] >= 0 && choices[i] < counts[name]));
      if (outside) throw new Error(`there is no ${outside} ${model.get(outside)}`);
      controls.forEach((each, i) => each.set(choices[i]));
      const now = compute(data, choices, model.get("gelu"));
      picture.draw(choices);
      for (const view of [tokenView, mapView, table]) view.draw(now, choices);
      facts.textContent = describe(now, choices, nTokens);
      scale.style.background = `linear-gradient(to right, ${[-1, 0, 1].map((value) => fill(value, 1))})`;
    };
  });
}

export default { render };
