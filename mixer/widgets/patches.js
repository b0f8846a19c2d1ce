// PatchExplorer: an image, its table of patches, and every number on its way from the one to the other.

const STAGES = ["image", "cut", "axes exchanged", "table"];
const LIT = "#ffb000";

/** Where each number of an image stands at each stage, [x, y] in pixels of the image, and how far all of them reach. */
function places([C, H, W], P) {
  const columns = W / P;
  const gap = P * 0.4;
  const stops = STAGES.map(() => []);
  const tokens = [];
  for (let c = 0; c < C; c++)
    for (let y = 0; y < H; y++)
      for (let x = 0; x < W; x++) {
        const [row, column] = [Math.floor(y / P), Math.floor(x / P)];
        const cut = [x + column * gap, y + row * gap];
        tokens.push(row * columns + column);
        stops[0].push([x, y]);
        stops[1].push(cut);
        stops[2].push([cut[0] + c * (W + columns * gap), cut[1]]);
        stops[3].push([(c * P + (y % P)) * P + (x % P), row * columns + column]);
      }
  const reach = (points, axis) => points.reduce((far, point) => Math.max(far, point[axis]), 0) + 1;
  return { P, tokens, stops, reaches: stops.map((points) => [reach(points, 0), reach(points, 1)]) };
}

/** How numbers are laid on a canvas at a stage: the size of one, and the corner. The table fills the canvas. */
function fit(stage, [width, height], canvas) {
  let [x, y] = [canvas.width / width, canvas.height / height];
  if (stage < 3) x = y = Math.min(x, y);
  return { size: [x, y], corner: [(canvas.width - width * x) / 2, (canvas.height - height * y) / 2] };
}

function frameLit(context, x, y, width, height) {
  context.strokeStyle = LIT;
  context.lineWidth = 3;
  context.strokeRect(x + 1.5, y + 1.5, width - 3, Math.max(1, height - 3));
  context.lineWidth = 1;
}

function render({ model, el }) {
  return live({ model, el }, ["patch_size", "token", "stage"], (box) => {
    const shape = model.get("shape");
    const [C, H, W] = shape;
    const image = bytes(model.get("image"));
    if (image.length !== C * H * W) throw new Error("its image is damaged or incomplete");
    const sizes = model.get("patch_sizes");
    const tint = (i) => {
      const c = Math.floor(i / (H * W));
      return C === 1 ? [image[i], image[i], image[i]] : [0, 1, 2].map((k) => (k === c ? image[i] : 0));
    };
    const tints = Array.from(image, (_, i) => `rgb(${tint(i)})`);

    const light = (token) => token !== model.get("token") && put(model, "token", token);
    const nTokens = () => (H * W) / model.get("patch_size") ** 2;
    const patchSize = slider("Patch size", {
      max: sizes.length - 1,
      value: sizes.indexOf(model.get("patch_size")),
      text: (i) => `${sizes[i]} × ${sizes[i]}`,
      change(i) {
        model.set("token", Math.min(model.get("token"), (H * W) / sizes[i] ** 2 - 1));
        put(model, "patch_size", sizes[i]);
      },
    });
    const token = slider("Token", { max: nTokens() - 1, value: model.get("token"), change: light });
    const stage = slider("Step", {
      max: 300,
      value: model.get("stage"),
      text: (now) => STAGES[Math.round(now / 100)],
      change: (now) => put(model, "stage", now),
    });
    const play = h("button", { type: "button", onclick: walk }, "Play");

    const scale = Math.ceil(384 / W); // of the image on its canvas
    const whole = h("canvas", { width: W * scale, height: H * scale, role: "img", style: "width: 100%" });
    const table = h("canvas", { width: 480, height: 320, role: "img", style: "width: 100%; height: 14rem" });
    const way = h("canvas", { width: 720, height: 300, role: "img", style: "width: 100%" });
    const tableTitle = h("p", { class: "mx-title" });
    const wayTitle = h("p", { class: "mx-title" });
    const facts = h("p", { role: "status" });
    const hint =
      "Point at a patch or at a row of the table to light up its token. Drag the step, or play it, to see every " +
      "number walk from the image to its place in the table.";
    const panel = (width, title, canvas) => h("div", { class: "mx-panel", style: `flex: ${width}` }, title, canvas);
    box.append(
      h("div", { class: "mx-row" }, patchSize.el, token.el),
      h(
        "div",
        { class: "mx-row" },
        panel("1 1 10rem; max-width: 16rem", h("p", { class: "mx-title" }, "Image"), whole),
        panel("2 1 16rem", tableTitle, table),
      ),
      facts,
      wayTitle,
      way,
      h("div", { class: "mx-row mx-middle mx-time" }, stage.el, play),
      h("p", { class: "mx-note" }, hint),
    );

    function point(canvas, find) {
      canvas.addEventListener("pointermove", (event) => {
        const frame = canvas.getBoundingClientRect();
        const share = (at, start, length) => Math.max(0, Math.min(0.9999, (at - start) / length));
        light(find(share(event.clientX, frame.left, frame.width), share(event.clientY, frame.top, frame.height)));
      });
    }
    point(whole, (x, y) => {
      const P = model.get("patch_size");
      return Math.floor((y * H) / P) * (W / P) + Math.floor((x * W) / P);
    });
    point(table, (_, y) => Math.floor(y * nTokens()));

    let moving = false;
    function walk() {
      const start = model.get("stage") >= 300 ? 0 : model.get("stage");
      if (stillness()) return put(model, "stage", 100 * (Math.floor(start / 100) + 1));
      moving = !moving;
      play.textContent = moving ? "Pause" : "Play";
      const began = performance.now();
      const move = () => {
        if (!moving || !box.isConnected) return;
        const now = Math.min(300, start + Math.round((performance.now() - began) / 15));
        put(model, "stage", now);
        if (now < 300) return requestAnimationFrame(move);
        moving = false;
        play.textContent = "Play";
      };
      move();
    }

    let known;
    const layout = (P) => (known?.P === P ? known : (known = places(shape, P)));
    const copy = h("canvas");

    function drawWhole(P, row, column) {
      drawImage(copy, image, shape);
      const context = whole.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(copy, 0, 0, whole.width, whole.height);
      context.strokeStyle = "rgba(255, 255, 255, 0.5)";
      for (let x = P; x < W; x += P) context.strokeRect(x * scale, -1, 0, whole.height + 2);
      for (let y = P; y < H; y += P) context.strokeRect(-1, y * scale, whole.width + 2, 0);
      frameLit(context, column * P * scale, row * P * scale, P * scale, P * scale);
    }

    function drawTable(P, chosen) {
      const [rows, nPixels] = [nTokens(), C * P * P];
      const { tokens, stops } = layout(P);
      Object.assign(copy, { width: nPixels, height: rows });
      const picture = copy.getContext("2d").createImageData(nPixels, rows);
      tokens.forEach((row, i) => picture.data.set([...tint(i), 255], 4 * (row * nPixels + stops[3][i][0])));
      copy.getContext("2d").putImageData(picture, 0, 0);
      const context = table.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(copy, 0, 0, table.width, table.height);
      frameLit(context, 0, (chosen * table.height) / rows, table.width, table.height / rows);
      tableTitle.textContent = `Table: ${rows} tokens × ${nPixels} pixels`;
    }

    function drawWay(P, chosen) {
      const now = model.get("stage") / 100;
      const [from, to] = [Math.floor(now), Math.ceil(now)];
      const { tokens, stops, reaches } = layout(P);
      const [a, b] = [from, to].map((stage) => fit(stage, reaches[stage], way));
      const mix = (x, y) => x + (now - from) * (y - x);
      const size = [0, 1].map((axis) => mix(a.size[axis], b.size[axis]));
      const at = (i, axis) =>
        mix(a.corner[axis] + stops[from][i][axis] * a.size[axis], b.corner[axis] + stops[to][i][axis] * b.size[axis]);
      const context = way.getContext("2d");
      context.globalCompositeOperation = "source-over";
      context.clearRect(0, 0, way.width, way.height);
      context.globalCompositeOperation = "lighter"; // red, green and blue at one place add up to its colour
      for (let i = 0; i < tokens.length; i++) {
        context.fillStyle = tints[i];
        context.fillRect(at(i, 0), at(i, 1), size[0], size[1]);
      }
      context.globalCompositeOperation = "source-over";
      context.strokeStyle = LIT;
      tokens.forEach((owner, i) => owner === chosen && context.strokeRect(at(i, 0), at(i, 1), size[0], size[1]));
    }

    return () => {
      const P = model.get("patch_size");
      if (P < 1 || !sizes.includes(P)) throw new Error(`there is no patch size ${P}`);
      const [rows, columns] = [H / P, W / P];
      const chosen = Math.min(model.get("token"), rows * columns - 1);
      const [row, column] = [Math.floor(chosen / columns), chosen % columns];
      const step = Math.round(model.get("stage") / 100);
      patchSize.set(sizes.indexOf(P));
      token.range(0, rows * columns - 1);
      token.set(chosen);
      stage.set(model.get("stage"));
      drawWhole(P, row, column);
      drawTable(P, chosen);
      drawWay(P, chosen);
      wayTitle.textContent = [
        `The image: [C_in, H, W] = [${C}, ${H}, ${W}]`,
        `reshape → [C_in, H/P, P, W/P, P] = [${C}, ${rows}, ${P}, ${columns}, ${P}]`,
        `permute → [H/P, W/P, C_in, P, P] = [${rows}, ${columns}, ${C}, ${P}, ${P}]`,
        `reshape → [n_tokens, n_pixels] = [${rows * columns}, ${C * P * P}]`,
      ][step];
      const grid = `row ${row}, column ${column} of the patch grid`;
      facts.textContent = `Token ${chosen}: the patch in ${grid}, and row ${chosen} of the table.`;
      whole.setAttribute("aria-label", `The image in ${rows} by ${columns} patches; that of token ${chosen} is framed.`);
      table.setAttribute("aria-label", `The table, a row for each of ${rows * columns} tokens; row ${chosen} is framed.`);
      way.setAttribute("aria-label", `Every number of the image on its way to the table, at the stage: ${STAGES[step]}.`);
    };
  });
}

export default { render };
