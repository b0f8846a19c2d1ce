// What a token is mixed from, in the laboratory: its sources in every layer, by the model of the moment that is shown.

import { describe } from "./canvas.js";
import { influenceRamp, makeInfluenceMap, strongest } from "./influence.js";
import { highest, sizesOf } from "./numerics.js";
import { choice, h, note, panel, percent, row, say, slider, title } from "./page.js";

const MEANING =
  "Choose a token on its patch, or with the slider. The influence of token s on it, in a layer: by how much what token " +
  "mixing adds to it changes for a small change of LN(X) at token s, in this very image; the size of that derivative, averaged " +
  "over all channels. The figure of the whole Mixer in chapter 5 shows the same of a trained model, under Look inside.";

/** What can be chosen: an image, and a token. Returns { el, chosen, draw }. */
function makeChoices(lab, drawing, changed) {
  const { counts, labels, names, imageOf } = lab;
  const state = { image: 0, token: undefined, isDrawn: false };
  const set = (name) => (value) => {
    state[name] = value;
    changed();
  };
  const which = [["", "a validation image"], ["drawn", "my drawing"]]; // prettier-ignore
  const source = choice("Image", which, { change: (value) => set("isDrawn")(value !== "") });
  const words = (i) => `${i} (class ${names[labels[counts[0] + i]]})`;
  const image = slider("Validation image", { max: counts[1] - 1, text: words, change: set("image") });
  let columns = 1;
  const text = (t) => `${t} (row ${Math.floor(t / columns)}, column ${t % columns})`;
  const token = slider("Token", { text, change: set("token") });
  const parts = [...(drawing ? [source.el] : []), image.el, token.el];
  const draw = (sizes) => {
    const middle = Math.floor(sizes.rows / 2) * sizes.columns + Math.floor(sizes.columns / 2);
    if (!(state.token < sizes.nTokens)) state.token = middle;
    columns = sizes.columns;
    token.range(sizes.nTokens - 1);
    token.set(state.token);
    image.set(state.image);
    image.el.hidden = state.isDrawn;
  };
  const pixels = () => (state.isDrawn ? drawing() : imageOf(counts[0] + state.image));
  return { el: row(...parts), state, choose: set("token"), draw, pixels };
}

/** An image [C, H, W] as the model sees it, its pixels in the order that the settings give them. */
function asSeen(image, order) {
  const n = order?.length;
  return order ? image.map((_, i) => image[i - (i % n) + order[i % n]]) : image;
}

/** A layer's picture, with a heading. */
function makeCard(lab, i, choose) {
  const { canvas, draw: drawSizes } = makeInfluenceMap(lab.shape, choose);
  const heading = title();
  const draw = (image, { rows, columns }, sizes, token) => {
    const isMixed = highest(sizes) > 0;
    drawSizes(image, [rows, columns], sizes, token);
    say(heading, `Layer ${i}: ${isMixed ? `up to ${highest(sizes).toFixed(2)}` : "nothing is mixed"}`);
    const from = isMixed ? `mixed most from the tokens ${strongest(sizes)}` : "mixed from none";
    describe(canvas, `The image with the influence on token ${token} in layer ${i}: it is ${from}.`);
  };
  return { el: panel("", heading, canvas), draw };
}

/** The influence on a token in every layer, for an image that is chosen, or for `drawing()` where there is a board. */
export function makeSources(lab, probe, drawing, changed) {
  const [box, answer] = [h("div", { class: "mx-sources" }), note()];
  const choices = makeChoices(lab, drawing, changed);
  let cards = [];
  function draw(scene) {
    const { config, order } = scene;
    const sizes = sizesOf(config);
    choices.draw(sizes);
    if (cards.length !== config.n_layers) {
      cards = Array.from({ length: config.n_layers }, (_, i) => makeCard(lab, i, choices.choose));
      box.replaceChildren(...cards.map(({ el }) => el));
    }
    const image = choices.pixels();
    const shares = probe.read(image, scene);
    if (!shares) return;
    const best = shares.indexOf(highest(shares));
    say(answer, `The model of this moment says ${lab.names[best]} with ${percent(shares[best])}.`);
    cards.forEach((card, i) => {
      const found = probe.engine.influence(i, choices.state.token, sizes.nTokens);
      card.draw(asSeen(image, order), sizes, found, choices.state.token);
    });
  }
  const legend = note(
    "Influence: 0 ",
    influenceRamp(),
    " to the largest of the layer. The image shines through. White frame: the token.",
  );
  return { el: h("div", {}, note(MEANING), choices.el, answer, box, legend), draw };
}
