// The reader's own images as data of the laboratory: what is still missing, the splits, and the standardisation.

const FEWEST = 3; // images of a class: one for each split

/** How many of n images of a class are for training, validation and the test: shares as of the digits, at least one each. */
export function splitOf(n) {
  const test = Math.max(1, Math.floor(n / 5));
  const validation = Math.max(1, Math.round((n - test) / 10));
  return [n - test - validation, validation, test];
}

/** What is still wrong with classes, as a sentence, or "". */
export function missingIn(classes) {
  const names = classes.map(({ name }) => name);
  if (names.includes("")) return "A class has no name yet: give it one.";
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) return `Two classes have the name ${twice}: give one of them another.`;
  const few = classes.find(({ examples }) => examples.length < FEWEST);
  if (!few) return "";
  const n = few.examples.length;
  const parts = "one to train on, one for validation and one for the test";
  return `${few.name} has ${n} image${n === 1 ? "" : "s"}: each class needs at least ${FEWEST}, ${parts}.`;
}

/** The images [C, size, size] of one split with their labels, the classes in turn, so that the first few have all. */
function collect(classes, part, C, size) {
  const own = classes.flatMap(({ examples }, label) => {
    const counts = splitOf(examples.length);
    const first = counts.slice(0, part).reduce((a, b) => a + b, 0);
    return examples.slice(first, first + counts[part]).map(({ images }, i) => ({ i, label, image: images[C][size] }));
  });
  return own.sort((a, b) => a.i - b.i || a.label - b.label);
}

/** Mean and standard deviation of each channel, of values scaled to [0, 1]: `mean_and_std` in mixer/data.py. */
function meanAndStd(images, C, size) {
  const channels = Array.from({ length: C }, (_, c) => {
    const counts = new Float64Array(256);
    for (const { image } of images) for (let i = 0; i < size ** 2; i++) counts[image[c * size ** 2 + i]] += 1;
    const n = images.length * size ** 2;
    const mean = counts.reduce((sum, count, value) => sum + (count * value) / 255, 0) / n;
    const square = counts.reduce((sum, count, value) => sum + count * (value / 255) ** 2, 0) / n;
    return [mean, Math.sqrt(Math.max(square - mean * mean, 1e-12))].map((number) => Number(number.toFixed(6)));
  });
  return { mean: channels.map(([mean]) => mean), std: channels.map(([, std]) => std) };
}

/** What a laboratory needs of data: those of the classes, in place of those of `lab`. */
export function dataOf(lab, classes, C, size) {
  const parts = [0, 1, 2].map((part) => collect(classes, part, C, size));
  const [counts, all] = [parts.map(({ length }) => length), parts.flat()];
  const n = C * size ** 2; // bytes of an image
  const images = new Uint8Array(all.length * n);
  all.forEach(({ image }, i) => images.set(image, i * n));
  const sizes = { shape: [C, size, size], counts, limits: { ...lab.limits, n_train: counts[0] } };
  const patchSizes = Array.from({ length: size }, (_, i) => i + 1).filter((P) => size % P === 0);
  return {
    ...lab,
    ...sizes,
    ...meanAndStd(parts[0], C, size),
    patchSizes,
    images,
    labels: Uint8Array.from(all, ({ label }) => label),
    names: classes.map(({ name }) => name),
    imageOf: (i) => images.subarray(i * n, (i + 1) * n),
    dataName: "own images",
    background: "#ffffff",
    isOwn: true,
  };
}

/** Settings for the reader's own images; the first ones train a few images in seconds, and change them at random. */
export function settingsFor({ counts, patchSizes, shape }, settings, isFirst) {
  const patch_size = patchSizes.findLast((P) => 4 * P <= shape[1]) ?? 1;
  const nSteps = Math.ceil(counts[0] / 16); // of an epoch
  const n_epochs = Math.max(20, Math.min(200, Math.round(400 / nSteps)));
  const first = isFirst && { patch_size, batch_size: 16, n_epochs, warm_up: 0.1, affine: 1, shuffle: "none" };
  const fits = patchSizes.includes(settings.patch_size) ? settings.patch_size : patch_size;
  return { ...settings, patch_size: fits, ...first, n_train: counts[0] };
}
