// Runs that were kept, beside each other: groups that differ in their seed alone, as dots, with chapter 8's rule.

import { button, h, note, percent, put, say, title } from "./page.js";
import { settingInWords } from "./settings.js";
import { allMapsOf } from "./views.js";

const COMPARING =
  "Keep a run, change one setting, and train again. Runs that differ in their seed alone are one group: each dot is the " +
  "validation accuracy at the end of one of them, and the line is their mean. The groups below the first say what " +
  "differs from it.";
const NOTHING = "Nothing to keep yet: a run counts from its first full epoch.";
const ENOUGH = 3; // runs in a group, before it is compared

const accuracyOf = (run) => run.history.at(-1).validation_accuracy;
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Settings but the seed, and whatever else makes runs differ, as [name, words] pairs. */
function traitsOf({ settings, history, start, images }) {
  const pairs = Object.entries(settings).filter(([name]) => name !== "seed");
  const done = history.length === settings.n_epochs ? [] : [["stopped", `stopped after epoch ${history.length}`]];
  const from = start ? [["start", `from a ${start}`]] : [];
  const own = images ? [["images", `own images, set ${images}`]] : [];
  return [...pairs.map(([name, value]) => [name, settingInWords(name, value)]), ...done, ...from, ...own];
}

const groupKey = (run) => JSON.stringify(traitsOf(run).sort());
const runKey = (run) => `${groupKey(run)}, seed ${run.settings.seed}`;

/** Runs in groups that differ in their seed alone, each an array. */
export function groupsOf(runs) {
  const groups = new Map();
  for (const run of runs) groups.set(groupKey(run), [...(groups.get(groupKey(run)) ?? []), run]);
  return [...groups.values()];
}

/** A group in words: what differs from the first, or of the first what it is. */
function nameOf([run], [first]) {
  if (run === first) {
    const names = ["n_layers", "token_mixing", ...(run.settings.channel_mixing === "none" ? ["channel_mixing"] : [])];
    return names.map((name) => settingInWords(name, run.settings[name])).join(", ");
  }
  const [known, own] = [new Map(traitsOf(first)), new Map(traitsOf(run))];
  const differs = [...own].filter(([name, words]) => known.get(name) !== words).map(([, words]) => words);
  const lost = [...known].filter(([name]) => !own.has(name)).map(([, words]) => `not ${words}`);
  return [...differs, ...lost].join(", ");
}

/** How many ways there are to choose k of n. */
const choose = (n, k) => Array.from({ length: k }, (_, i) => (n - i) / (i + 1)).reduce((all, part) => all * part, 1);

/** Whether a group differs from the first, by the rule of chapter 8: clear is what lies wholly above or below. */
export function verdictOf(group, first) {
  if (group.length < ENOUGH || first.length < ENOUGH)
    return `Too few runs to tell a difference: train ${ENOUGH} seeds of both.`;
  const [own, others] = [group.map(accuracyOf), first.map(accuracyOf)];
  const isAbove = Math.min(...own) > Math.max(...others);
  if (!isAbove && !(Math.max(...own) < Math.min(...others)))
    return "Nothing can be told: the dots of the two groups overlap.";
  const odds = Math.round(choose(own.length + others.length, own.length) / 2);
  return `Clearly ${isAbove ? "above" : "below"} the first: all its dots are, which happens by luck alone once in ${odds}.`;
}

const isAmount = (value) => Number.isFinite(value) && value >= 0;

/** The kept runs of the state, checked. */
export function readRuns(model) {
  const runs = model.get("runs");
  const names = ["train_loss", "train_accuracy", "validation_loss", "validation_accuracy"];
  const isRecord = (record, i) => record?.epoch === i + 1 && names.every((name) => isAmount(record[name]));
  const areRecords = (history) => Array.isArray(history) && history.length && history.every(isRecord);
  const isRun = (run) =>
    run?.settings && areRecords(run.history) && isAmount(run.test_accuracy ?? 0) && isAmount(run.images ?? 0);
  if (!Array.isArray(runs) || !runs.every(isRun)) throw new Error("its kept runs are damaged or incomplete");
  return runs;
}

/** The dots of a group between two accuracies, and their mean as a line. */
function dotsOf(group, low, high) {
  const place = (value) => `${(100 * (value - low)) / (high - low)}%`;
  const values = group.map(accuracyOf);
  const top = (i) => `${(100 * (i + 1)) / (values.length + 1)}%`;
  const dots = values.map((value, i) => h("i", { style: `left: ${place(value)}; top: ${top(i)}` }));
  const line = h("b", { style: `left: ${place(mean(values))}` });
  const words = `Validation accuracies ${values.map(percent).join(", ")}; mean ${percent(mean(values))}.`;
  return h("div", { class: "mx-dots", role: "img", "aria-label": words }, line, ...dots);
}

/** The two lines of the table for a group: in words and numbers, and its dots. */
function linesOf(group, i, groups, [low, high], drop) {
  const tests = group.map((run) => run.test_accuracy).filter((value) => value !== undefined);
  const seeds = `Seeds ${group.map(({ settings }) => settings.seed).join(", ")}.`;
  const away = h("button", { type: "button", "aria-label": `Remove group ${i + 1}`, onclick: drop }, "Remove");
  const values = [mean(group.map(accuracyOf)), tests.length ? mean(tests) : undefined];
  const numbers = values.map((value) => (value === undefined ? "–" : percent(value)));
  const name = h("th", { scope: "row" }, nameOf(group, groups[0]));
  const cells = [...numbers, away].map((cell) => h("td", {}, cell));
  const words = note(i ? `${seeds} ${verdictOf(group, groups[0])}` : seeds);
  return [h("tr", {}, name, ...cells), h("tr", {}, h("td", { colspan: 4 }, words, dotsOf(group, low, high)))];
}

/** The ends of the axis: whole twentieths around all accuracies. */
function axisOf(runs) {
  const values = runs.map(accuracyOf);
  const low = Math.min(0.95, Math.floor(20 * Math.min(...values)) / 20);
  return [low, Math.max(low + 0.05, Math.ceil(20 * Math.max(...values)) / 20)];
}

/** The table of the kept runs, group by group; without any, `keeper` gets the focus that a button in it has. */
function makeTable(model, keeper) {
  const body = h("tbody");
  const names = ["Runs", "Validation", "Test", ""].map((words) => h("th", { scope: "col" }, words));
  const axis = h("div", { class: "mx-axis" });
  const foot = h("tfoot", {}, h("tr", {}, h("td", { colspan: 4 }, axis)));
  const el = h("table", {}, h("thead", {}, h("tr", {}, ...names)), body, foot);
  const without = (group) => model.get("runs").filter((run) => !group.includes(run));
  const buttons = () => [...body.querySelectorAll("button")];
  let drawn;
  function draw({ runs }) {
    if (runs === drawn) return; // a button that has the focus would be another
    drawn = runs;
    const focused = buttons().indexOf(document.activeElement); // it is about to go
    fill(runs);
    if (focused >= 0) (buttons()[focused] ?? buttons().at(-1) ?? keeper).focus();
  }
  function fill(runs) {
    el.hidden = !runs.length;
    if (!runs.length) return body.replaceChildren();
    const [groups, [low, high]] = [groupsOf(runs), axisOf(runs)];
    const lines = (group, i) => linesOf(group, i, groups, [low, high], () => put(model, "runs", without(group)));
    body.replaceChildren(...groups.flatMap(lines));
    const words = [percent(low), "validation accuracy", percent(high)];
    axis.replaceChildren(...words.map((part) => h("span", {}, part)));
  }
  return { el, draw };
}

/**
 * The runs that were kept. Returns { el, draw, keep, kept }.
 *
 * The trait `runs` has the settings and the numbers of each. Its maps of token mixing stay in the page: they are large,
 * and the settings give them again. `kept` gives the runs of this page that have theirs, as { name, maps }.
 */
export function makeCompare(model, runner) {
  const [maps, wrong] = [new Map(), h("output", { class: "mx-wrong" })];
  function keep() {
    const { history, settings, result, isOpened, config, now } = runner;
    if (!history.length) return say(wrong, NOTHING);
    const { set: images } = model.get("own");
    const run = { settings, history, ...result, ...(isOpened && { start: "checkpoint" }), ...(images && { images }) };
    maps.set(runKey(run), allMapsOf(config, now.params));
    const others = model.get("runs").filter((other) => runKey(other) !== runKey(run));
    put(model, "runs", [...others, run]);
  }
  function kept() {
    const groups = groupsOf(model.get("runs"));
    const named = groups.flatMap((group) => group.map((run) => [nameOf(group, groups[0]), run]));
    const found = named.filter(([, run]) => maps.has(runKey(run)));
    return found.map(([name, run]) => ({ name: `${name}, seed ${run.settings.seed}`, maps: maps.get(runKey(run)) }));
  }
  const keeper = button("Keep this run", keep);
  const table = makeTable(model, keeper);
  const el = h("div", { class: "mx-compare" }, title("Compare"), keeper, wrong, note(COMPARING), table.el);
  const draw = (scene) => {
    if (scene.history.length) say(wrong, "");
    table.draw(scene);
  };
  return { el, draw, keep, kept };
}
