// Where each number of PatchExplorer's image stands at the stages between the image and the table.

export const RIM = 3; // of what is lit, in pixels of a canvas, which has room for it on all sides

const reach = (points, axis) => points.reduce((far, point) => Math.max(far, point[axis]), 0) + 1;

/**
 * Positions of each number of an image at each stage, [x, y] in pixels of the image, and how far all of them reach;
 * the row of the table that each number comes to, and the patch that it belongs to. Without the permute they differ.
 */
export function places([C, H, W], P, permute) {
  const columns = W / P;
  const nPixels = C * P * P;
  const gap = P * 0.4;
  const stops = [[], [], [], []];
  const [tokens, patches] = [[], []];
  for (let c = 0; c < C; c++)
    for (let y = 0; y < H; y++)
      for (let x = 0; x < W; x++) {
        const [down, across] = [Math.floor(y / P), Math.floor(x / P)];
        const patch = down * columns + across;
        const i = patches.push(patch) - 1;
        const pixel = (c * P + (y % P)) * P + (x % P);
        const end = permute ? [pixel, patch] : [i % nPixels, Math.floor(i / nPixels)];
        const cut = [x + across * gap, y + down * gap];
        tokens.push(end[1]);
        stops[0].push([x, y]);
        stops[1].push(cut);
        stops[2].push(permute ? [cut[0] + c * (W + columns * gap), cut[1]] : cut);
        stops[3].push(end);
      }
  return { tokens, patches, stops, reaches: stops.map((points) => [reach(points, 0), reach(points, 1)]) };
}

/** The numbers that come to a row of the table, in their order there. */
export function membersOf({ tokens, stops }, token) {
  const members = tokens.flatMap((owner, i) => (owner === token ? [i] : []));
  return members.sort((i, j) => stops[3][i][0] - stops[3][j][0]);
}

/** Layout of a stage on a canvas: the size of one number, and the corner. The table fills the canvas. */
function fit(stage, [width, height], canvas) {
  let [x, y] = [(canvas.width - 2 * RIM) / width, (canvas.height - 2 * RIM) / height];
  const scale = Math.min(x, y);
  if (stage < 3) x = y = Math.floor(scale) || scale; // whole pixels, so that the edges of the image are sharp
  const corner = [canvas.width - width * x, canvas.height - height * y].map((rest) => Math.round(rest / 2));
  return { size: [x, y], corner };
}

/** Boxes of all numbers between two stages on a canvas: i → [x, y, width, height]. */
export function boxesAt({ stops, reaches }, now, canvas) {
  const [from, to] = [Math.floor(now), Math.ceil(now)];
  const [a, b] = [from, to].map((stage) => fit(stage, reaches[stage], canvas));
  const mix = (x, y) => x + (now - from) * (y - x);
  const [width, height] = [0, 1].map((axis) => mix(a.size[axis], b.size[axis]));
  const at = (i, axis) =>
    mix(a.corner[axis] + stops[from][i][axis] * a.size[axis], b.corner[axis] + stops[to][i][axis] * b.size[axis]);
  return (i) => [at(i, 0), at(i, 1), width, height];
}
