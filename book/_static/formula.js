// Formulas that a reader types as the answer to an exercise: read by hand, since nothing that is typed may run as code.

const sentence = (words) => new Error(words);
const MOST = 170; // the factorial of more is no number of a computer

function factorial(n) {
  if (!Number.isInteger(n) || n < 0 || n > MOST) throw sentence(`Factorials are known here from 0 to ${MOST}.`);
  return n > 1 ? n * factorial(n - 1) : 1;
}

const comb = (n, k) => factorial(n) / factorial(k) / factorial(n - k);
const FUNCTIONS = { ceil: Math.ceil, comb, factorial, floor: Math.floor, max: Math.max, min: Math.min };
const TOKENS = /\s*(\d+\.?\d*|\.\d+|[A-Za-z_]\w*|\*\*|\/\/|[-+*/^(),·×−÷])/y;
const SAME = { "·": "*", "×": "*", "−": "-", "÷": "/", "^": "**" };

/** The words of a formula; throws an Error with a sentence at a sign that has no meaning. */
function wordsOf(text) {
  const words = [];
  TOKENS.lastIndex = 0;
  const end = text.trimEnd().length;
  while (TOKENS.lastIndex < end) {
    const at = TOKENS.lastIndex;
    const found = TOKENS.exec(text);
    if (!found) throw sentence(`“${text.slice(at).trim()[0]}” has no meaning in a formula.`);
    words.push(Object.hasOwn(SAME, found[1]) ? SAME[found[1]] : found[1]);
  }
  return words;
}

const PRODUCTS = { "*": (a, b) => a * b, "/": (a, b) => a / b, "//": (a, b) => Math.floor(a / b) };

/** Reads the words of a formula from left to right, one method for each rank of signs. */
class Reader {
  constructor(words, values) {
    Object.assign(this, { words, values, at: 0 });
  }
  next(...expected) {
    return expected.includes(this.words[this.at]) && this.words[this.at++];
  }
  list() {
    const all = [this.sum()];
    while (this.next(",")) all.push(this.sum());
    return all;
  }
  sum() {
    let value = this.product();
    for (let sign = this.next("+", "-"); sign; sign = this.next("+", "-"))
      value += sign === "+" ? this.product() : -this.product();
    return value;
  }
  product() {
    let value = this.signed();
    for (let sign = this.next("*", "/", "//"); sign; sign = this.next("*", "/", "//"))
      value = PRODUCTS[sign](value, this.signed());
    return value;
  }
  signed() {
    if (this.next("-")) return -this.signed();
    if (this.next("+")) return this.signed();
    const base = this.single();
    return this.next("**") ? base ** this.signed() : base;
  }
  single() {
    const word = this.words[this.at++];
    if (word === undefined) throw sentence("The formula ends too early.");
    if (word === "(") return this.closed(this.sum());
    if (/^[\d.]/.test(word)) return Number(word);
    if (Object.hasOwn(FUNCTIONS, word) && this.next("(")) return FUNCTIONS[word](...this.closed(this.list()));
    if (Object.hasOwn(this.values, word)) return this.values[word];
    const names = Object.keys(this.values).join(", ");
    if (/^\w/.test(word)) throw sentence(`“${word}” is none of the names here: ${names}.`);
    throw sentence(`A number or a name is missing before “${word}”.`);
  }
  closed(value) {
    if (this.words[this.at] === ",") throw sentence("Write the formulas without parentheses around them.");
    if (!this.next(")")) throw sentence("A parenthesis is not closed.");
    return value;
  }
}

/**
 * The values of formulas with + - * / // ** and parentheses, an array: one formula, or several with commas between them.
 *
 * `values` has the number of each name. Throws an Error with a sentence for the reader.
 */
globalThis.evaluateFormula = (text, values) => {
  const words = wordsOf(text);
  if (!words.length) throw sentence("Write a formula first.");
  const reader = new Reader(words, values);
  const all = reader.list();
  if (reader.at < words.length) throw sentence(`A sign such as * is missing before “${words[reader.at]}”.`);
  return all;
};
