// Settings of the laboratory in an address, `#lab=…`: of the page itself, or of a link in it.

import { put } from "./page.js";
import { readSettings } from "./settings.js";

const MARK = "#lab=";

/** The address of this page with settings. */
export const addressOf = (settings) =>
  location.href.split("#")[0] + MARK + encodeURIComponent(JSON.stringify(settings));

/**
 * Take the settings that the end of an address holds, from # on; what it does not name is as in `first`.
 *
 * Returns what is wrong with them, as a sentence, or "".
 */
export function takeSettings(model, lab, hash, first) {
  const { settings, problem } = readSettings(lab, first, hash.slice(MARK.length));
  if (!problem) put(model, "settings", settings);
  return problem;
}

/** The laboratories of the page that are alive, in their order. */
const labsOfPage = () => [...document.querySelectorAll('.mx-lab:not(:has(> [role="alert"]))')];

/** Whether all figures before a box have come to life, or said why they cannot: until then the first is not known. */
function areEarlierAlive(box) {
  const isEarlier = (figure) => figure.compareDocumentPosition(box) === Node.DOCUMENT_POSITION_FOLLOWING;
  const figures = [...document.querySelectorAll(".mixer-figure")];
  return figures.filter(isEarlier).every((figure) => figure.querySelector('.mx, [role="alert"]'));
}

/** The laboratory that a link of this page means: the next one below it, or else the last. */
function meantBy(link) {
  const labs = labsOfPage();
  const isBelow = (lab) => link.compareDocumentPosition(lab) & Node.DOCUMENT_POSITION_FOLLOWING;
  return labs.find(isBelow) ?? labs.at(-1);
}

/** The link to settings in this page that was pressed to be opened in it, if one was. */
function pressedLink({ target, button, ctrlKey, metaKey, shiftKey }) {
  const link = target.closest?.(`a[href*="${MARK}"]`);
  const isHere = link && link.href.split("#")[0] === location.href.split("#")[0] && link.hash.startsWith(MARK);
  return isHere && !(button || ctrlKey || metaKey || shiftKey) ? link : undefined;
}

/**
 * Call `take` with the end of an address that holds settings, from # on, where it means the laboratory in a box.
 *
 * That is the address of the page, now and when it changes, or that of a link in the page that is pressed. Of several
 * laboratories the first takes what the page's address holds. Returns what ends this.
 */
export function followLinks(box, take) {
  let pressed; // of the link that was pressed last: the page's address is about to become this
  const read = () => {
    const { hash } = location;
    if (hash.startsWith(MARK) && hash !== pressed && labsOfPage()[0] === box) take(hash);
    pressed = undefined;
  };
  const press = (event) => {
    const link = pressedLink(event);
    if (!link) return;
    pressed = link.hash;
    if (meantBy(link) === box) take(pressed);
  };
  addEventListener("hashchange", read);
  document.addEventListener("click", press);
  let frame = requestAnimationFrame(begin); // once the box stands in the page
  function begin() {
    if (areEarlierAlive(box)) read();
    else frame = requestAnimationFrame(begin);
  }
  return () => {
    cancelAnimationFrame(frame);
    removeEventListener("hashchange", read);
    document.removeEventListener("click", press);
  };
}
