// Questions that are answered in the page: predictions before a result, and exercises. Answers stay in this browser.
//
// <details class="predict" data-choices="Yes|No" data-answer="No" data-covers="1"> is a choice. Without data-choices the
// answer is a number, with data-unit="%" on a bar from 0 to 100. data-covers says how many of the next results wait for
// an answer, and data-covers-text that the text behind them waits too, since it tells the answer. Behind a paragraph
// that begins with "Predict:" it is an experiment, whose outcome the reader opens.
// <div class="answer" data-formula="H*W" data-names="H W" data-trials="2 3; 4 5"></div> is an exercise: the formula that
// is typed must give the same numbers.

const STORE = "mlp-mixer-book: answers";
const PAGE =
  location.pathname
    .split("/")
    .pop()
    .replace(/\.html$/, "") || "index";
let answers = {}; // page -> question -> what was said, or null where it was skipped
read();

/** Read what the browser keeps: another tab may have answered meanwhile. */
function read() {
  try {
    answers = Object(JSON.parse(localStorage.getItem(STORE)));
  } catch {
    // A browser may keep nothing; then answers last as long as the page.
  }
}

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const button = (words, onclick) => make("button", { type: "button", onclick }, words);
const said = (question) => answers[PAGE]?.[question];

function store(question, value) {
  read();
  answers[PAGE] = { ...answers[PAGE], [question]: value };
  if (value === undefined) delete answers[PAGE][question];
  try {
    localStorage.setItem(STORE, JSON.stringify(answers));
  } catch {
    // As above.
  }
}

// ------------------------------------------------------------------------------------------------------- predictions

/** The paragraph that asks, where the reader makes an experiment before the outcome is opened. */
const askedBefore = (details) =>
  [...details.parentElement.querySelectorAll(":scope > p")].find((p) => p.textContent.startsWith("Predict:"));

/** The question in words, without those before the colon. */
const questionOf = (element) => element.textContent.replace(/^\s*Predict( first)?:\s*/, "").trim();

/** The results that wait for an answer: the outputs of the next cells that have any. */
function coveredBy(details) {
  const isBehind = (cell) => details.compareDocumentPosition(cell) & Node.DOCUMENT_POSITION_FOLLOWING;
  const all = [...document.querySelectorAll("div.cell > .cell_output")];
  const outputs = all.filter((cell) => isBehind(cell) && !cell.querySelector(".mixer-figure"));
  return outputs.slice(0, Number(details.dataset.covers ?? 0));
}

/** Whether the text behind a result ends before an element: a paragraph that begins with bold words has another subject. */
const endsText = (element) =>
  element.matches("div.cell, section, details, .question") ||
  (element.matches("p") && element.firstChild?.nodeName === "STRONG");

/** The text behind a result. */
function textBehind(output) {
  const text = [];
  let next = output.closest("div.cell").nextElementSibling;
  for (; next && !endsText(next); next = next.nextElementSibling) text.push(next);
  return text;
}

function cover(output, details) {
  if (output.classList.contains("waits")) return;
  output.classList.add("waits");
  const ask = button("To the question", () => details.closest(".question").querySelector("button, input").focus());
  const show = button("Show the result", () => {
    const top = output.getBoundingClientRect().top;
    details.querySelector("summary").click(); // the answer unfolds above, and the result is to stay where it is
    scrollBy({ top: output.getBoundingClientRect().top - top, behavior: "instant" });
    output.tabIndex = -1;
    output.focus({ preventScroll: true });
  });
  output.append(make("div", { className: "waits-for" }, ask, show));
}

function uncover(output) {
  output.classList.remove("waits");
  output.querySelector(".waits-for")?.remove();
}

/** A function that hides what waits for an answer, or shows it. */
function makeKeeper(details) {
  const outputs = coveredBy(details);
  const texts = "coversText" in details.dataset ? outputs.flatMap(textBehind) : [];
  return (isAsked) => {
    outputs.forEach((output) => (isAsked ? cover(output, details) : uncover(output)));
    texts.forEach((text) => text.classList.toggle("waits-too", isAsked));
  };
}

/** The control for a number: a bar from 0 to 100 for a share, else a box. */
function numberControl(unit) {
  if (unit !== "%") return { el: make("input", { type: "number", step: "any", required: true }), words: [] };
  const shown = make("output", {}, "0 %");
  const el = make("input", { type: "range", min: 0, max: 100, value: 0 });
  el.addEventListener("input", () => (shown.value = `${el.value} %`));
  return { el, words: [shown] };
}

function controlsFor({ choices, unit }, question, say) {
  const answer = choices
    ? make("div", {}, ...choices.split("|").map((words) => button(words, () => say(words))))
    : numberForm(unit, question, say);
  const label = `Your answer: ${question}`;
  return make(
    "div",
    { role: "group", "aria-label": label },
    answer,
    button("Skip", () => say(null)),
  );
}

function numberForm(unit, label, say) {
  const { el, words } = numberControl(unit);
  el.setAttribute("aria-label", label);
  const form = make("form", {}, el, ...words, make("button", { type: "submit" }, "This is my answer"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    say(`${el.value}${unit ? ` ${unit}` : ""}`);
  });
  return form;
}

/** What one is told after an answer, or after a question was skipped. */
function resultOf(value, { answer, unit }, isHidden) {
  if (isHidden) return value === null ? "Skipped. Now try it." : `You said: ${value}. Now try it.`;
  const right = `It is: ${answer}${unit ? ` ${unit}` : ""}.`;
  return value === null ? right : `You said: ${value}. ${right}`;
}

/** The box of a question: around its fold, or behind the paragraph that asks. */
function boxFor(details, asked) {
  const status = make("p", { role: "status" });
  const box = make("div", { className: "question" });
  if (asked) asked.after(box);
  else details.before(box);
  box.append(...(asked ? [] : [details]), status);
  return { box, status };
}

function makePrediction(details) {
  const asked = askedBefore(details);
  const question = questionOf(asked ?? details.querySelector("summary"));
  const keep = makeKeeper(details);
  const { box, status } = boxFor(details, asked);
  let controls;
  function draw() {
    controls?.remove();
    const isAsked = said(question) === undefined;
    keep(isAsked);
    tell();
    controls = isAsked ? controlsFor(details.dataset, question, say) : button("Answer again", ask);
    controls.classList.add("question-controls");
    box.append(controls);
  }
  function tell() {
    const value = said(question);
    status.textContent = value === undefined ? "" : resultOf(value, details.dataset, asked && !details.open);
  }
  function say(value) {
    store(question, value);
    details.open = details.open || !asked;
    draw();
    controls.focus();
  }
  function ask() {
    store(question, undefined);
    details.open = false;
    draw();
    controls.querySelector("button, input").focus();
  }
  details.querySelector("summary").addEventListener("click", () => {
    if (said(question) !== undefined) return;
    store(question, null); // whoever opens the fold has skipped the question
    draw();
  });
  details.addEventListener("toggle", tell);
  details.open = !asked && said(question) !== undefined;
  draw();
}

// --------------------------------------------------------------------------------------------------------- exercises

/** The sizes of each trial of a formula, by name. */
const trialsOf = ({ names, trials }) =>
  trials.split(";").map((row) => {
    const numbers = row.trim().split(" ").map(Number);
    return Object.fromEntries(names.split(" ").map((name, i) => [name, numbers[i]]));
  });
const isClose = (a, b) => Number.isFinite(a) && Math.abs(a - b) <= 1e-9 * Math.max(Math.abs(a), Math.abs(b), 1);
const written = (values) => values.map((value) => Number(value.toPrecision(6))).join(", ");

/** What is said of a typed formula, as the checks of the chapters say it. */
function judge(text, exercise) {
  for (const values of trialsOf(exercise)) {
    const right = globalThis.evaluateFormula(exercise.formula, values);
    let got;
    try {
      got = globalThis.evaluateFormula(text, values);
    } catch ({ message }) {
      return `Not yet. ${message}`;
    }
    const sizes = Object.entries(values).map(([name, value]) => `${name} = ${value}`);
    const where = `Not yet: for ${sizes.join(", ")}`;
    if (got.length !== right.length)
      return `Not yet: ${right.length === 1 ? "one formula is" : "two formulas are"} asked for.`;
    if (got.some((value, i) => !isClose(value, right[i])))
      return `${where} it gives ${written(got)}, and the answer is ${written(right)}.`;
  }
  return "Correct.";
}

function makeExercise(box) {
  const [question] = box.previousElementSibling.textContent.match(/^Exercise [\d.]+/);
  const { formula, names } = box.dataset;
  const [trial] = trialsOf(box.dataset);
  const isPair = globalThis.evaluateFormula(formula, trial).length > 1;
  const input = make("input", { type: "text", spellcheck: false, autocapitalize: "off", autocomplete: "off" });
  const what = isPair ? "two formulas, with a comma between them," : "a formula";
  const label = make("label", {}, `${question}, answered here: ${what} of ${names.replaceAll(" ", ", ")} `, input);
  const status = make("p", { role: "status" });
  const form = make("form", { className: "question-controls" }, label, make("button", { type: "submit" }, "Check"));
  const check = () => (status.textContent = judge(input.value, box.dataset));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    store(question, input.value.trim() ? input.value : undefined);
    check();
  });
  box.classList.add("question");
  box.append(form, status);
  if (said(question) === undefined) return;
  input.value = said(question);
  check();
}

/** Where the code of an exercise can be run: what the cell prints in the page is only that nothing was done yet. */
function makeCode(cell) {
  const href = document.querySelector("a[href*='colab.research']")?.href;
  const colab = href ? [make("a", { href }, "Colab"), " or "] : [];
  cell.append(
    make(
      "p",
      { className: "exercise-code" },
      "Open this chapter in ",
      ...colab,
      "Jupyter to complete this cell and have it checked.",
    ),
  );
}

// ---------------------------------------------------------------------------------------------------------- progress

/** How many questions of each chapter were answered, in the rows of the introduction that lead to them. */
function showProgress(marker) {
  for (const [page, total] of Object.entries(JSON.parse(marker.dataset.totals ?? "{}"))) {
    const count = Object.values(answers[page] ?? {}).filter((value) => value !== null).length;
    const row = document.querySelector(`table td a[href$="${page}.html"]`)?.closest("tr");
    row?.lastElementChild.append(
      make("span", { className: "answered" }, `${Math.min(count, total)} of ${total} questions answered`),
    );
  }
}

addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("details.predict").forEach(makePrediction);
  document.querySelectorAll("div.answer").forEach(makeExercise);
  document.querySelectorAll("div.tag_exercise").forEach(makeCode);
  document.querySelectorAll("div.reader-answers").forEach(showProgress);
});
