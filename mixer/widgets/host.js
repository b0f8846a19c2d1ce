// Brings the figure around this script to life in a page without a kernel: it makes a model out of the stored state, with
// anywidget's get, set, on, off and save_changes, and gives it to the figure's own module.
(() => {
  const root = document.currentScript.parentElement;
  const still = root.querySelector(".mixer-still");

  function revive(value) {
    if (value === null || typeof value !== "object" || typeof value.base64 !== "string") return value;
    const text = atob(value.base64);
    return new DataView(Uint8Array.from(text, (character) => character.charCodeAt(0)).buffer);
  }

  function makeModel(state) {
    const listeners = new Map();
    const call = (event) => [...(listeners.get(event) ?? [])].forEach((listener) => listener());
    return {
      get: (name) => state[name],
      set(name, value) {
        if (state[name] === value) return;
        state[name] = value;
        call(`change:${name}`);
        call("change");
      },
      on(event, listener) {
        listeners.set(event, [...(listeners.get(event) ?? []), listener]);
      },
      off(event, listener) {
        listeners.set(event, (listeners.get(event) ?? []).filter((other) => other !== listener));
      },
      save_changes() {},
    };
  }

  function addStyle(css) {
    if (document.getElementById("mixer-figure-style")) return;
    const style = document.createElement("style");
    style.id = "mixer-figure-style";
    style.textContent = css;
    document.head.append(style);
  }

  async function start() {
    const stored = JSON.parse(root.querySelector("script[type='application/json']").textContent);
    const state = Object.fromEntries(Object.entries(stored.state).map(([name, value]) => [name, revive(value)]));
    const url = URL.createObjectURL(new Blob([stored.module], { type: "text/javascript" }));
    const { default: figure } = await import(url);
    URL.revokeObjectURL(url);
    addStyle(stored.css);
    const el = document.createElement("div");
    root.append(el);
    root.model = makeModel(state);
    figure.render({ model: root.model, el });
    still.classList.add("mixer-hidden");
  }

  start().catch((error) => {
    const sentence = document.createElement("p");
    sentence.setAttribute("role", "alert");
    sentence.textContent = `This figure cannot come to life: ${error.message}`;
    root.append(sentence);
  });
})();
