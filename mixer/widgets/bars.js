// Bars for the probabilities of the classes, under a heading that says the answer.

import { h, percent, say, title } from "./page.js";

/** A heading and a bar for each class. `draw` takes the words of the heading and the probabilities, or none. */
export function makeBars(names) {
  const heading = title();
  const bars = names.map((name) => {
    const [bar, number] = [h("div"), h("span")];
    return { bar, number, el: h("li", {}, h("span", {}, name), h("div", {}, bar), number) };
  });
  const draw = (words, shares, best) => {
    say(heading, words);
    bars.forEach(({ bar, number, el }, i) => {
      bar.style.width = shares ? `${100 * shares[i]}%` : "0";
      say(number, shares ? percent(shares[i]) : "");
      el.classList.toggle("mx-best", i === best);
    });
  };
  return { el: h("div", {}, heading, h("ul", { class: "mx-bars" }, ...bars.map(({ el }) => el))), draw };
}
