// Bars for the probabilities of the classes, under a heading that says the answer.

import { h, percent, say, title } from "./page.js";

/**
 * A heading and a bar for each class. `draw` takes the words of the heading and the probabilities, or none, and those
 * before something was changed, if they are to be compared.
 */
export function makeBars(names) {
  const heading = title();
  const bars = names.map((name) => {
    const [bar, old, number] = [h("div"), h("div", { class: "mx-before" }), h("span")];
    return { bar, old, number, el: h("li", {}, h("span", {}, name), h("div", {}, bar, old), number) };
  });
  const draw = (words, shares, best, before) => {
    say(heading, words);
    bars.forEach(({ bar, old, number, el }, i) => {
      bar.style.width = shares ? `${100 * shares[i]}%` : "0";
      old.hidden = !before;
      old.style.width = before ? `${100 * before[i]}%` : "0";
      say(number, shares ? percent(shares[i]) : "");
      el.classList.toggle("mx-best", i === best);
    });
  };
  return { el: h("div", {}, heading, h("ul", { class: "mx-bars" }, ...bars.map(({ el }) => el))), draw };
}
