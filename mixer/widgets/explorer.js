// TokenMixingExplorer: the hidden units of token mixing as maps, over layers, models and the time of training.

const TYPES = { float32: Float32Array, int8: Int8Array, uint8: Uint8Array, uint16: Uint16Array };
const TRAITS = ["layer", "unit", "step", "label", "order"];
const ORDERS = {
  norm: "by norm, largest first",
  frequency: "by mean frequency, lowest first",
  opposite: "in pairs, most opposite first",
};
const MAP_SIDE = 28; // of a map on the sheet, in about so many pixels
const GAP = 4; // pixels between maps
const PAUSE = 500; // milliseconds between two snapshots that are played

/** Arrays by name, from bytes and a list of [name, type, shape]. */
function arrays(view, sections) {
  let end = 0;
  const cuts = sections.map(([name, type, shape]) => {
    const start = end;
    end += shape.reduce((product, n) => product * n, TYPES[type].BYTES_PER_ELEMENT);
    return [name, TYPES[type], start, end];
  });
  if (view?.byteLength !== end) throw new Error("its weights are damaged or incomplete");
  const cut = (start, stop) => view.buffer.slice(view.byteOffset + start, view.byteOffset + stop);
  return Object.fromEntries(cuts.map(([name, Type, start, stop]) => [name, new Type(cut(start, stop))]));
}

/** Numbers stored as int8 with their scale, as float32. */
const scaled = (numbers, scale) => new Float32Array(numbers).map((number) => number * scale);

const within = (i, n) => Number.isInteger(i) && i >= 0 && i < n;

/** A function that finds what is stored of one layer of one model at one step, by the figure's traits. */
function library(geometry, view) {
  const { rows, columns, n_layers: L, n_units: U, models, images } = geometry;
  const T = rows * columns;
  const stored = arrays(view, geometry.sections);
  const pictureSize = images && images.shape.reduce((product, n) => product * n, 1);

  return ({ label, step, layer, unit, order }) => {
    const m = models.findIndex((one) => one.label === label);
    if (m < 0) throw new Error("it holds no model of this name");
    if (!within(layer, L) || !within(unit, U)) throw new Error("it holds no unit of this number");
    if (!Object.hasOwn(ORDERS, order)) throw new Error("it holds no order of this name");
    const { steps, pixel_order: pixels } = models[m];
    const s = steps.includes(step) ? steps.indexOf(step) : steps.length - 1;
    const part = (name) => stored[`${m}.${name}`];

    const matrix = (which) => {
      const at = (s * L + layer) * 2 + which;
      const scale = part("scales")[at];
      const limit = part("limits")[layer * 2 + which];
      if (!(scale > 0 && limit > 0)) throw new Error("the scale of its weights is damaged");
      const numbers = part("maps").subarray(at * U * T, (at + 1) * U * T);
      const map = (unit) => scaled(numbers.subarray(unit * T, (unit + 1) * T), scale);
      return { numbers, scale, limit, map };
    };
    const row = layer * Object.keys(ORDERS).length + Object.keys(ORDERS).indexOf(order);
    const units = [...part("orders").subarray(row * U, (row + 1) * U)];
    const picture = (i) => {
      const image = stored.images.subarray(i * pictureSize, (i + 1) * pictureSize);
      const nPixels = pixels?.length;
      return pixels ? image.map((_, j) => image[j - (j % nPixels) + pixels[j % nPixels]]) : image;
    };
    const excitation = (unit, rank) => {
      const at = (layer * U + unit) * images.n_top + rank;
      const scale = part("contribution_scales")[at];
      return {
        number: images.used[part("chosen")[at]],
        image: picture(part("chosen")[at]),
        channel: part("channels")[at],
        preActivation: part("pre_activations")[at],
        map: scaled(part("contributions").subarray(at * T, (at + 1) * T), scale),
      };
    };
    const bias = (unit) => part("biases")[(s * L + layer) * U + unit];
    return { steps, now: s, inputs: matrix(0), outputs: matrix(1), units, bias, excitation };
  };
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}
const norm = (a) => Math.sqrt(dot(a, a));

/** The unit whose map is most opposite to that of a unit, itself if it is alone, and the cosine between the two. */
function mostOpposite(unit, nUnits, numbers) {
  const T = numbers.length / nUnits;
  const maps = Array.from({ length: nUnits }, (_, i) => numbers.subarray(i * T, (i + 1) * T));
  const own = maps[unit];
  const cosines = maps.map((map, i) => (i === unit ? Infinity : dot(map, own) / (norm(map) * norm(own) || 1)));
  const cosine = Math.min(...cosines);
  return { unit: cosines.indexOf(cosine), cosine };
}

/** The mean frequency of a spectrum, weighted by power, in cycles per patch; frequency 0 stands in the middle. */
function meanFrequency(power, rows, columns) {
  const frequency = (i) =>
    Math.hypot(
      (Math.floor(i / columns) - Math.floor(rows / 2)) / rows,
      ((i % columns) - Math.floor(columns / 2)) / columns,
    );
  const total = power.reduce((sum, value) => sum + value, 0);
  return power.reduce((sum, value, i) => sum + value * frequency(i), 0) / (total || 1);
}

/** Where maps stand on a sheet, in its pixels; `paired` leaves more room after every second one. */
function sheetLayout({ rows, columns, n_units: U, n_columns: across }, paired) {
  const size = Math.max(2, Math.round(MAP_SIDE / Math.max(rows, columns))); // of one weight
  const [width, height] = [columns * size, rows * size];
  const left = (column) => column * (width + GAP) + (paired ? Math.floor(column / 2) * GAP : 0);
  return {
    size,
    mapWidth: width,
    mapHeight: height,
    width: left(across - 1) + width,
    height: Math.ceil(U / across) * (height + GAP) - GAP,
    corner: (place) => [left(place % across), Math.floor(place / across) * (height + GAP)],
    find(x, y) {
      let column = across - 1;
      while (column > 0 && left(column) > x) column--;
      return Math.min(U - 1, Math.floor(y / (height + GAP)) * across + column);
    },
  };
}

/** Draw the maps of all units on one canvas; between them it stays clear. */
function drawSheet(canvas, { rows, columns }, layout, units, { numbers, scale, limit }) {
  const dark = isDark();
  const palette = new Uint8ClampedArray(4 * 256).fill(255);
  for (let number = -127; number < 128; number++) palette.set(colour(number * scale, limit, dark), 4 * (number & 255));
  const colours = new Uint32Array(palette.buffer);
  Object.assign(canvas, { width: layout.width, height: layout.height });
  const picture = canvas.getContext("2d").createImageData(layout.width, layout.height);
  const pixels = new Uint32Array(picture.data.buffer);
  units.forEach((unit, place) => {
    const [left, top] = layout.corner(place);
    for (let y = 0; y < layout.mapHeight; y++) {
      const row = (unit * rows + Math.floor(y / layout.size)) * columns;
      const start = (top + y) * layout.width + left;
      for (let x = 0; x < layout.mapWidth; x++)
        pixels[start + x] = colours[numbers[row + Math.floor(x / layout.size)] & 255];
    }
  });
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

const decimal = (number) => number.toFixed(2).replace("-", "−");

/** Where a map has its highest and its lowest value, in words. */
function extremes(map, columns) {
  const [highest, lowest] = [Math.max(...map), Math.min(...map)];
  const place = (weight) => `row ${Math.floor(map.indexOf(weight) / columns)}, column ${map.indexOf(weight) % columns}`;
  const said = (weight) => `${decimal(weight)}, in ${place(weight)}`;
  return `highest value, ${said(highest)}, and its lowest, ${said(lowest)}`;
}

/** The frequency of most power in a spectrum, in words. */
function strongest(power, rows, columns) {
  const at = power.indexOf(Math.max(...power));
  const [down, across] = [Math.floor(at / columns) - Math.floor(rows / 2), (at % columns) - Math.floor(columns / 2)];
  return `${Math.abs(down)} cycles down the grid and ${Math.abs(across)} across`;
}

/** A titled canvas with lines under it. */
function mapPanel(title, ...notes) {
  const canvas = h("canvas", { role: "img" });
  const lines = h("div", { class: "mx-note" }, ...notes);
  return { el: h("div", { class: "mx-panel" }, h("p", { class: "mx-title" }, title), canvas, lines), canvas };
}

/** A strip of the colours from -limit to limit, and its two ends in numbers. */
function legend() {
  const ramp = h("canvas", { "aria-hidden": "true" });
  const [low, high] = [h("span"), h("span")];
  const draw = (limit) => {
    drawMap(ramp, Float32Array.from({ length: 65 }, (_, i) => i - 32), 1, 65);
    low.textContent = `−${limit.toPrecision(2)}`;
    high.textContent = `+${limit.toPrecision(2)}`;
  };
  return { el: h("span", { class: "mx-legend" }, low, ramp, high), draw };
}

/** The choice of model, layer, order and unit. Each part of the figure is { el, draw }. */
function controlsPart(model, geometry, shown) {
  const { n_layers: L, n_units: U, models } = geometry;
  const traitSlider = (name) => ({ value: model.get(name), change: (now) => put(model, name, now) });
  function chooseModel(label) {
    const { steps } = models.find((one) => one.label === label);
    if (!steps.includes(model.get("step"))) model.set("step", steps.at(-1));
    put(model, "label", label);
  }
  const labels = models.map((one) => [one.label, one.label]);
  const label = choice("Model", labels, { value: model.get("label"), change: chooseModel });
  const layer = slider("Layer", { max: L - 1, ...traitSlider("layer") });
  const order = choice("Order", Object.entries(ORDERS), traitSlider("order"));
  const unit = slider("Unit", {
    max: U - 1,
    value: 0,
    text: (place) => shown().units[place],
    change: (place) => put(model, "unit", shown().units[place]),
  });
  const parts = [models.length > 1 && label, L > 1 && layer, order, unit].filter(Boolean);
  return {
    el: h("div", { class: "mx-row mx-middle" }, ...parts.map((part) => part.el)),
    draw({ units }) {
      for (const [name, part] of Object.entries({ label, layer, order })) part.set(model.get(name));
      unit.set(units.indexOf(model.get("unit")));
    },
  };
}

/** The slider over the training, and its playing. */
function timePart(model, shown) {
  let timer = 0;
  const time = slider("Training step", {
    max: 0,
    value: 0,
    text: (i) => shown().steps[i],
    change(i) {
      pause();
      put(model, "step", shown().steps[i]);
    },
  });
  const button = h("button", { type: "button", onclick: () => (timer ? pause() : stillness() ? advance() : play()) });
  const el = h("div", { class: "mx-row mx-middle mx-time" }, time.el, button);
  const name = () => (button.textContent = stillness() ? "Next step" : timer ? "Pause" : "Play");
  function pause() {
    clearInterval(timer);
    timer = 0;
    name();
  }
  function advance() {
    const { steps, now } = shown();
    put(model, "step", steps[(now + 1) % steps.length]);
    if (now + 2 === steps.length || !el.isConnected) pause();
  }
  function play() {
    timer = setInterval(advance, PAUSE);
    advance();
    name();
  }
  return {
    el,
    isPlaying: () => timer !== 0,
    draw({ steps, now }) {
      el.classList.toggle("mixer-hidden", steps.length < 2);
      time.range(0, steps.length - 1);
      time.set(now);
      name();
    },
  };
}

/** All maps of the layer on one sheet, to choose a unit from. */
function sheetPart(model, geometry, shown) {
  const { rows, columns, n_units: U, n_columns: across } = geometry;
  const layout = () => sheetLayout(geometry, model.get("order") === "opposite");
  const canvas = h("canvas", { role: "img" });
  const [chosen, opposite] = [h("div", { class: "mx-frame" }), h("div", { class: "mx-frame mx-dashed" })];
  const keys = "Maps of all units; the arrow keys choose one";
  const pad = h("div", { class: "mx-sheet", tabindex: 0, role: "group", "aria-label": keys }, canvas, opposite, chosen);
  const choose = (place) => put(model, "unit", shown().units[place]);
  pad.addEventListener("click", (event) => {
    const frame = canvas.getBoundingClientRect();
    const [x, y] = [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
    choose(layout().find(x * canvas.width, y * canvas.height));
  });
  pad.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across }[event.key];
    if (!step) return;
    event.preventDefault();
    const place = shown().units.indexOf(model.get("unit")) + step;
    if (place >= 0 && place < U) choose(place);
  });
  function move(frame, place) {
    const { corner, width, height, mapWidth, mapHeight } = layout();
    const [left, top] = corner(place);
    const sides = { left: left / width, top: top / height, width: mapWidth / width, height: mapHeight / height };
    for (const [side, share] of Object.entries(sides)) frame.style[side] = `${100 * share}%`;
  }
  const title = h("p", { class: "mx-title" });
  let lastLook = ""; // what the sheet shows: it is not drawn again when only the chosen unit changes
  const key = h("p", { class: "mx-note" });
  const hint = h("p", { class: "mx-note" });
  return {
    el: h("div", { class: "mx-panel mx-wide" }, title, pad, key, hint),
    draw({ units, inputs, partner, steps }) {
      const lines = [
        `Red: positive weight; blue: negative; full colour from ±${inputs.limit.toPrecision(2)} on.`,
        "Solid frame: the chosen unit; dashed: the one with the most opposite map.",
        model.get("order") === "opposite" && "Of the units not yet in a pair, the most opposite two make the next.",
        steps.length > 1 && "Scale and order are those of the last step.",
      ];
      key.textContent = lines.filter(Boolean).join(" ");
      const growth = steps.length > 1 ? " Play the training to see the maps grow." : "";
      hint.textContent = `Click on a map, or walk with the arrow keys, to look into a unit.${growth}`;
      const look = ["label", "step", "layer", "order"].map((name) => model.get(name)).concat(isDark()).join("\n");
      if (look !== lastLook) drawSheet(canvas, geometry, layout(), units, inputs);
      lastLook = look;
      move(chosen, units.indexOf(model.get("unit")));
      move(opposite, units.indexOf(partner.unit));
      title.textContent = `Input maps of the ${U} hidden units of layer ${model.get("layer")}`;
      const words = `${U} maps of ${rows} by ${columns} weights, ${ORDERS[model.get("order")]}`;
      canvas.setAttribute("aria-label", `${words}; the map of unit ${model.get("unit")} is framed.`);
    },
  };
}

/** One unit: its two maps, the spectrum of the first, and its facts in words. */
function unitPart(model, { rows, columns }, isPlaying) {
  const [inputLegend, outputLegend] = [legend(), legend()];
  const input = mapPanel("Input map", inputLegend.el, "row of W₁: where it looks");
  const output = mapPanel("Output map", outputLegend.el, "column of W₂: where it writes");
  const power = mapPanel("Spectrum", "of the input map; white: most power; middle: frequency 0");
  const title = h("p", { class: "mx-title" });
  const facts = h("p", { role: "status" });
  const el = h("div", {}, title, h("div", { class: "mx-maps" }, input.el, output.el, power.el), facts);
  return {
    el,
    draw({ steps, now, inputs, outputs, bias, partner }) {
      const unit = model.get("unit");
      const [map, written] = [inputs.map(unit), outputs.map(unit)];
      const powers = spectrum(map, rows, columns);
      const strength = 255 / largest(powers);
      drawMap(input.canvas, map, rows, columns, inputs.limit);
      drawMap(output.canvas, written, rows, columns, outputs.limit);
      drawImage(power.canvas, powers.map((value) => strength * value), [1, rows, columns]);
      inputLegend.draw(inputs.limit);
      outputLegend.draw(outputs.limit);
      title.textContent = `Unit ${unit} of layer ${model.get("layer")}`;
      input.canvas.setAttribute("aria-label", `The input map of unit ${unit} has its ${extremes(map, columns)}.`);
      output.canvas.setAttribute("aria-label", `The output map of unit ${unit} has its ${extremes(written, columns)}.`);
      power.canvas.setAttribute("aria-label", `The spectrum has most power at ${strongest(powers, rows, columns)}.`);
      facts.setAttribute("aria-live", isPlaying() ? "off" : "polite"); // else every step that is played is read out
      const when = steps.length > 1 ? ` at training step ${steps[now]}` : "";
      const frequency = `mean frequency ${decimal(meanFrequency(powers, rows, columns))} cycles per patch`;
      const { unit: other, cosine } = partner;
      const opposite = other === unit ? "" : ` Most opposite input map: unit ${other}, cosine ${decimal(cosine)}.`;
      const own = `input map with norm ${decimal(norm(map))} and ${frequency}; bias ${decimal(bias(unit))}`;
      facts.textContent = `Unit ${unit} of layer ${model.get("layer")}${when}: ${own}.${opposite}`;
    },
  };
}

/** The images that excite the unit most, and what their patches contribute. */
function excitedPart(model, { rows, columns, images }) {
  const places = Array.from({ length: images.n_top }, () => {
    const [picture, map] = [h("canvas", { role: "img" }), h("canvas", { role: "img" })];
    const caption = h("div", { class: "mx-note" });
    return { el: h("div", { class: "mx-panel" }, picture, map, caption), picture, map, caption };
  });
  const title = h("p", { class: "mx-title" });
  const note = h(
    "p",
    { class: "mx-note" },
    "Above: an image as the trained model sees it. Below: what each patch t contributes to unit u, ",
    "W₁[u, t] · LN(X)[t, c], in the channel c with the highest pre-activation. ",
    "Under it: that pre-activation, the sum of the contributions and the bias.",
  );
  return {
    el: h("div", {}, title, h("div", { class: "mx-maps mx-four" }, ...places.map((one) => one.el)), note),
    draw({ excitation }) {
      const unit = model.get("unit");
      const all = places.map((_, rank) => excitation(unit, rank));
      const limit = Math.max(...all.map((one) => largest(one.map)));
      title.textContent = `What excites unit ${unit} most`;
      all.forEach(({ number, image, channel, preActivation, map }, rank) => {
        const { picture, map: canvas, caption } = places[rank];
        drawImage(picture, image, images.shape);
        drawMap(canvas, map, rows, columns, limit);
        picture.setAttribute("aria-label", `Image ${number}.`);
        canvas.setAttribute("aria-label", `The contributions of its patches have their ${extremes(map, columns)}.`);
        caption.textContent = `image ${number}, channel ${channel}: ${decimal(preActivation)}`;
      });
    },
  };
}

function render({ model, el }) {
  return live({ model, el }, TRAITS, (box) => {
    const geometry = model.get("geometry");
    const find = library(geometry, model.get("numbers"));
    const shown = () => find(Object.fromEntries(TRAITS.map((name) => [name, model.get(name)])));
    const controls = controlsPart(model, geometry, shown);
    const time = timePart(model, shown);
    const sheet = sheetPart(model, geometry, shown);
    const unit = unitPart(model, geometry, time.isPlaying);
    const parts = [controls, time, sheet, unit, geometry.images && excitedPart(model, geometry)].filter(Boolean);
    const details = h("div", { class: "mx-panel mx-wide" }, ...parts.slice(3).map((part) => part.el));
    box.append(controls.el, time.el, h("div", { class: "mx-row" }, sheet.el, details));
    return () => {
      const now = shown();
      const partner = mostOpposite(model.get("unit"), geometry.n_units, now.inputs.numbers);
      parts.forEach((part) => part.draw({ ...now, partner }));
    };
  });
}

export default { render };
