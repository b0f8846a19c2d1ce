// Parts of the page that the live figures share: elements, controls, a play button, the theme, and the redrawing.

// ---------------------------------------------------------------------------------------------------- elements

/** An element with attributes and children; attributes that begin with "on" are listeners, strings become text. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export const title = (...words) => h("p", { class: "mx-title" }, ...words);
export const note = (...words) => h("p", { class: "mx-note" }, ...words);
export const row = (...children) => h("div", { class: "mx-row" }, ...children);
export const timeRow = (...children) => h("div", { class: "mx-row mx-middle mx-time" }, ...children);
export const panel = (kind, ...children) => h("div", { class: `mx-panel ${kind}`.trim() }, ...children);
export const button = (words, onclick) => h("button", { type: "button", onclick }, words);
export const statusLine = () => h("p", { role: "status" });

/** A part that is folded away under its heading: at first if it is to be, and on a narrow page always. */
export const foldable = (words, isClosed, ...children) => {
  const open = !isClosed && !matchMedia("(max-width: 40rem)").matches;
  return h("details", { class: "mx-fold", open }, h("summary", { class: "mx-title" }, words), ...children);
};

/** Change the text of an element, if it is another: the same one again could be announced twice. */
export const say = (element, text) => element.textContent !== text && (element.textContent = text);

/** A share in per cent. */
export const percent = (share) => `${(100 * share).toFixed(1)} %`;

/** A number with a true minus sign, and with none before a zero. */
export const decimal = (number, digits = 2) =>
  number
    .toFixed(digits)
    .replace(/^-(?=.*[1-9])/, "\u2212")
    .replace("-", "");

export const clamp = (low, value, high) => Math.max(low, Math.min(high, value));

/** Place an element in the one around it: sides as shares of that one's, among left, top, width and height. */
export function place(element, sides) {
  for (const [side, share] of Object.entries(sides)) element.style[side] = `${100 * share}%`;
}

// ---------------------------------------------------------------------------------------------------- controls

/** Set a trait and tell the kernel, if there is one. */
export function put(model, name, value) {
  model.set(name, value);
  model.save_changes();
}

let nIds = 0;
export const newId = () => `mx-${++nIds}-${Math.random().toString(36).slice(2, 8)}`;

const control = (...parts) => h("div", { class: "mx-control" }, ...parts);

/** A slider over whole numbers; `text` says a value in words. Returns { el, set, range }. */
export function slider(label, { max = 0, text = String, change }) {
  const id = newId();
  const input = h("input", { id, type: "range", min: 0, max, step: 1 });
  const output = h("output", { for: id, "aria-live": "off" }); // aria-valuetext says the same
  const set = (value) => {
    input.value = value;
    output.textContent = text(Number(input.value));
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.addEventListener("input", () => {
    set(input.value);
    change(Number(input.value));
  });
  return { el: control(h("label", { for: id }, label), input, output), set, range: (last) => (input.max = last) };
}

/** A choice among [value, words] pairs. Returns { el, set, offer }; `offer` takes other pairs. */
export function choice(label, options, { change }) {
  const id = newId();
  const select = h("select", { id });
  const offer = (pairs) => select.replaceChildren(...pairs.map(([value, words]) => h("option", { value }, words)));
  offer(options);
  select.addEventListener("change", () => change(select.value));
  return { el: control(h("label", { for: id }, label), select), set: (value) => (select.value = value), offer };
}

/** What a table gives for the key of an event; nothing with Alt, Ctrl or ⌘, by which the browser has keys of its own. */
export function stepOf({ key, altKey, ctrlKey, metaKey }, steps) {
  return altKey || ctrlKey || metaKey ? undefined : steps[key];
}

/** A box to tick. Returns { el, set, input }. */
export function tick(label, { change }) {
  const id = newId();
  const input = h("input", { id, type: "checkbox" });
  input.addEventListener("change", () => change(input.checked));
  return { el: control(input, h("label", { for: id }, label)), set: (value) => (input.checked = value), input };
}

/** Call `take` with the files that are dropped on an element. */
export function onDrop(element, take) {
  const mark = (isOver) => element.classList.toggle("mx-over", isOver);
  const listen = (event, action) =>
    element.addEventListener(event, (dropped) => {
      dropped.preventDefault(); // the browser would leave the page for the file
      dropped.stopPropagation();
      action(dropped);
    });
  listen("dragover", () => mark(true));
  listen("dragleave", () => mark(false));
  listen("drop", ({ dataTransfer }) => {
    mark(false);
    take([...dataTransfer.files]);
  });
}

/** A field for picture files. What `change` returns or throws is said below it. Returns { el, name, take }. */
export function filesField(label, { change, multiple = false }) {
  const id = newId();
  const words = h("label", { for: id }, label);
  const input = h("input", { id, type: "file", accept: "image/*", multiple, "aria-describedby": `${id}-note` });
  const wrong = h("output", { id: `${id}-note`, class: "mx-wrong" });
  const tell = (text) => say(wrong, text);
  async function take(files) {
    if (files.length) tell(await change(files, tell).catch((error) => `${error.message}.`));
  }
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // so that the same files can be chosen again
    take(files);
  });
  return { el: control(words, input, wrong), name: (text) => say(words, text), take };
}

/** Whether movement is left out, as the reader asked the system. */
export const stillness = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/**
 * A button that calls `step` every `wait` milliseconds, or at every frame where no `wait` is given, until it returns
 * false or the button is pressed again. With reduced motion each press calls `still` once instead.
 *
 * `begin` is called at each press that starts; `atOnce` says whether the first step follows it without a wait.
 * Returns { el, stop, name, isPlaying }; `name` writes the words on the button anew.
 */
export function playButton({ wait, begin = () => {}, step, still = step, stillName, atOnce = true }) {
  const start = () => (wait ? setInterval(next, wait) : requestAnimationFrame(next));
  const end = wait ? clearInterval : cancelAnimationFrame;
  let timer = 0;
  const el = h("button", { type: "button", onclick: press });
  const name = () => say(el, (stillName && stillness() && stillName) || (timer ? "Pause" : "Play"));
  function stop() {
    end(timer);
    timer = 0;
    name();
  }
  function next() {
    if (!el.isConnected || step() === false) stop();
    else if (!wait) timer = start();
  }
  function press() {
    if (timer) return stop();
    begin();
    if (stillness()) return still();
    if (!atOnce || step() !== false) timer = start();
    name();
  }
  name();
  return { el, stop, name, isPlaying: () => timer !== 0 };
}

// ---------------------------------------------------------------------------------------------------- theme and redrawing

/** Whether the page is dark: the book's theme, JupyterLab's, Colab's, or else what the system prefers. */
export function isDark() {
  const page = document.documentElement;
  const theme = page.dataset.theme ?? page.getAttribute("theme");
  if (theme === "dark" || theme === "light") return theme === "dark";
  if (document.body.dataset.jpThemeLight) return document.body.dataset.jpThemeLight === "false";
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Call back whenever the theme changes; returns a function that ends it. */
function onTheme(callback) {
  const observer = new MutationObserver(callback);
  observer.observe(document.documentElement, { attributeFilter: ["data-theme", "theme"] });
  observer.observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", callback);
  return () => {
    observer.disconnect();
    system.removeEventListener("change", callback);
  };
}

/** An error in words. Those of the browser name no part of the state: they are for the console. */
function wordsOf(error) {
  if (error.constructor === Error) return error.message;
  console.warn(error);
  return "what it holds is damaged or incomplete";
}

/**
 * Run `build`, which fills a box and returns its `draw`, or a promise of it; then put the box into `el`, and call
 * `draw` again when a trait or the theme changes, or `build` calls its third argument, at most once a frame. Returns
 * what ends it, as anywidget expects, and then calls what `build` has given to its fourth argument. An error shows as a
 * sentence in the box.
 */
export async function live({ model, el }, traits, build) {
  const box = h("div", { class: "mx" });
  // With this attribute JupyterLab leaves the keys to a control; without it an arrow key would move to the next cell.
  box.addEventListener("focusin", ({ target }) => target.setAttribute("data-lm-suppress-shortcuts", "true"));
  const events = traits.map((name) => `change:${name}`);
  const endings = [];
  let [frame, ended, draw] = [0, false];
  const fail = (error) => {
    end();
    box.replaceChildren(h("p", { role: "alert" }, `This figure cannot come to life: ${wordsOf(error)}`));
  };
  const redraw = () => {
    frame = 0;
    try {
      draw();
    } catch (error) {
      fail(error);
    }
  };
  const later = () => {
    if (draw && !ended) frame ||= requestAnimationFrame(redraw);
  };
  const endTheme = onTheme(later);
  const end = () => {
    ended = true;
    cancelAnimationFrame(frame);
    events.forEach((event) => model.off(event, later));
    endTheme();
    for (const ending of endings.splice(0)) ending();
  };
  try {
    draw = await build(model, box, later, (ending) => endings.push(ending));
    events.forEach((event) => model.on(event, later));
  } catch (error) {
    draw = () => fail(error);
  }
  el.append(box);
  redraw();
  return end;
}
