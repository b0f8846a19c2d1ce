// PatchExplorer: every number of an image walks from its place in the image to its place in the table of patches.

const STAGES = ["the image", "cut into patches", "channel by channel", "one row a patch"];
const GAP = 0.35; // between patches, in pixels of the image

/** Where each number of the image stands at each stage, in units of one pixel: [x, y] by stage, for every number. */
function places([C, H, W], P) {
  const [rows, columns] = [H / P, W / P];
  const all = [];
  for (let c = 0; c < C; c++)
    for (let y = 0; y < H; y++)
      for (let x = 0; x < W; x++) {
        const [row, column] = [Math.floor(y / P), Math.floor(x / P)];
        const token = row * columns + column;
        const pixel = (c * P + (y % P)) * P + (x % P);
        const cut = [x + column * GAP * P, y + row * GAP * P];
        const apart = [cut[0] + c * (W + columns * GAP * P + 1), cut[1]];
        all.push({ token, stops: [[x, y], cut, apart, [pixel, token]] });
      }
  const extent = (stage, axis) => Math.max(...all.map(({ stops }) => stops[stage][axis])) + 1;
  const sizes = STAGES.map((_, stage) => [extent(stage, 0), extent(stage, 1)]);
  return { all, sizes, rows, columns };
}

function render({ model, el }) {
  return live({ model, el }, ["patch_size", "token", "stage"], (box) => {
    const shape = model.get("shape");
    const [C, H, W] = shape;
    const image = bytes(model.get("image"));
    if (image.length !== C * H * W) throw new Error("its image is damaged or incomplete");
    const sizes = model.get("patch_sizes");

    const nTokens = () => (H / model.get("patch_size")) * (W / model.get("patch_size"));
    const light = (token) => put(model, "token", Math.max(0, Math.min(nTokens() - 1, token)));
    const patchSize = slider("Patch size", {
      max: sizes.length - 1,
      value: sizes.indexOf(model.get("patch_size")),
      text: (i) => `${sizes[i]} × ${sizes[i]} pixels`,
      change(i) {
        model.set("token", Math.min(model.get("token"), (H / sizes[i]) * (W / sizes[i]) - 1));
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
    const play = h("button", { type: "button", onclick: walk }, "Walk from image to table");
    const picture = h("canvas", { width: 640, height: 360, role: "img", style: "width: 100%; touch-action: pan-y" });
    const facts = h("p", { class: "mx-facts", role: "status" });
    box.append(
      h("div", { class: "mx-row" }, patchSize.el, token.el, stage.el, play),
      picture,
      facts,
      h("p", { class: "mx-note" }, "Point at a patch, or at a row of the table, to light up its token in both."),
    );

    let known;
    const layout = () => {
      const P = model.get("patch_size");
      if (known?.P !== P) known = { P, ...places(shape, P) };
      return known;
    };
    /** Where numbers stand at a moment between two stages, and how large one is, so that all fit on the canvas. */
    const view = () => {
      const now = model.get("stage") / 100;
      const [from, to] = [Math.floor(now), Math.ceil(now)];
      const share = now - from;
      const { sizes } = layout();
      const between = (a, b) => a + share * (b - a);
      // The table is drawn as wide as the canvas and as high as it, whatever its shape; images keep theirs.
      const scale = (stage) => {
        const [width, height] = sizes[stage];
        const [x, y] = [picture.width / width, picture.height / height];
        return stage === 3 ? [x, y] : [Math.min(x, y), Math.min(x, y)];
      };
      const [a, b] = [scale(from), scale(to)];
      return { from, to, between, size: [between(a[0], b[0]), between(a[1], b[1])], a, b };
    };
    const place = (number, { from, to, between, a, b }) =>
      [0, 1].map((axis) => between(number.stops[from][axis] * a[axis], number.stops[to][axis] * b[axis]));

    function walk() {
      const start = model.get("stage") >= 300 ? 0 : model.get("stage");
      if (stillness()) return put(model, "stage", start >= 300 ? 0 : Math.min(300, (Math.floor(start / 100) + 1) * 100));
      const began = performance.now();
      const move = () => {
        if (!box.isConnected) return;
        const now = Math.min(300, start + Math.round((performance.now() - began) / 15));
        model.set("stage", now);
        if (now < 300) requestAnimationFrame(move);
        else model.save_changes();
      };
      move();
    }

    picture.addEventListener("pointermove", (event) => {
      const frame = picture.getBoundingClientRect();
      const x = ((event.clientX - frame.left) / frame.width) * picture.width;
      const y = ((event.clientY - frame.top) / frame.height) * picture.height;
      const now = view();
      const under = layout().all.find((number) => {
        const [left, top] = place(number, now);
        return x >= left && x < left + now.size[0] && y >= top && y < top + now.size[1];
      });
      if (under && under.token !== model.get("token")) light(under.token);
    });

    return () => {
      const P = model.get("patch_size");
      const chosen = Math.min(model.get("token"), nTokens() - 1);
      patchSize.set(sizes.indexOf(P));
      token.range(0, nTokens() - 1);
      token.set(chosen);
      stage.set(model.get("stage"));
      const { all, rows, columns } = layout();
      const now = view();
      const context = picture.getContext("2d");
      context.globalCompositeOperation = "source-over";
      context.fillStyle = isDark() ? "#15171c" : "#30343c";
      context.fillRect(0, 0, picture.width, picture.height);
      context.globalCompositeOperation = "lighter"; // red, green and blue on one place add up to its colour
      all.forEach((number, i) => {
        const value = image[i];
        const c = Math.floor(i / (H * W));
        context.fillStyle = C === 1 ? `rgb(${value},${value},${value})` : `rgb(${[0, 1, 2].map((k) => (k === c ? value : 0))})`;
        const [x, y] = place(number, now);
        context.fillRect(x, y, now.size[0] + 0.1, now.size[1] + 0.1);
      });
      context.globalCompositeOperation = "source-over";
      context.strokeStyle = "#ffb000";
      context.lineWidth = 2;
      const mine = all.filter((number) => number.token === chosen).map((number) => place(number, now));
      const planes = model.get("stage") > 100 && model.get("stage") < 300 ? C : 1;
      for (let c = 0; c < planes; c++) {
        const part = mine.slice((c * mine.length) / planes, ((c + 1) * mine.length) / planes);
        const [xs, ys] = [part.map(([x]) => x), part.map(([, y]) => y)];
        const [left, top] = [Math.min(...xs), Math.min(...ys)];
        context.strokeRect(left, top, Math.max(...xs) - left + now.size[0], Math.max(...ys) - top + now.size[1]);
      }
      const shapes = [
        `[C_in, H, W] = [${C}, ${H}, ${W}]`,
        `reshape to [C_in, H/P, P, W/P, P] = [${C}, ${rows}, ${P}, ${columns}, ${P}]`,
        `permute to [H/P, W/P, C_in, P, P] = [${rows}, ${columns}, ${C}, ${P}, ${P}]`,
        `reshape to [n_tokens, n_pixels] = [${rows * columns}, ${C * P * P}]`,
      ];
      const where = `token ${chosen} is the patch in row ${Math.floor(chosen / columns)}, column ${chosen % columns}`;
      facts.textContent = `${shapes[Math.round(model.get("stage") / 100)]}; ${where}.`;
      picture.setAttribute("aria-label", `${STAGES[Math.round(model.get("stage") / 100)]}; ${where}`);
    };
  });
}

export default { render };
