// The model of the moment that the laboratory shows, on the page's own thread: single images pass through it.

import { Engine } from "./engine.js";
import { bytes } from "./numerics.js";

export class Probe {
  /** `changed` is called once images can pass. */
  constructor(model, lab, changed) {
    this.lab = lab;
    const start = async () => {
      this.engine = await Engine.start(bytes(model.get("engine")));
      changed();
    };
    start().catch(() => {}); // the run names what is wrong with the engine
  }

  /** The probabilities of an image [C, H, W] of bytes; undefined while the engine starts, without weights, or without room. */
  read(image, { config, params, order }) {
    if (!this.engine || !params) return undefined;
    try {
      this.engine.hold(config, [params], this.lab, order);
    } catch {
      return undefined; // the run has a memory of its own, and goes on
    }
    return this.engine.read(image);
  }
}
