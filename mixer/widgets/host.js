// Start of the figure around this script in a page without a kernel: the stored state becomes a model with anywidget's
// get, set, on, off and save_changes, which the figure's own module renders.
(() => {
  const root = document.currentScript.parentElement;

  function revive(value) {
    if (typeof value?.base64 !== "string") return value;
    const characters = atob(value.base64);
    const bytes = new Uint8Array(characters.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i); // ten times as fast as Uint8Array.from
    return new DataView(bytes.buffer);
  }

  function makeModel(state) {
    const events = new EventTarget();
    return {
      get: (name) => state[name],
      set(name, value) {
        if (state[name] === value) return;
        state[name] = value;
        for (const event of [`change:${name}`, "change"]) events.dispatchEvent(new Event(event));
      },
      on: (event, listener) => events.addEventListener(event, listener),
      off: (event, listener) => events.removeEventListener(event, listener),
      save_changes() {},
    };
  }

  function addStyle(css) {
    if (document.getElementById("mixer-figure-style")) return;
    const style = Object.assign(document.createElement("style"), { id: "mixer-figure-style", textContent: css });
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
    await figure.render({ model: root.model, el });
    root.querySelector(".mixer-still").classList.add("mixer-hidden");
  }

  start().catch((error) => {
    const sentence = document.createElement("p");
    sentence.setAttribute("role", "alert");
    sentence.textContent = `This figure cannot come to life: ${error.message}`;
    root.append(sentence);
  });
})();
