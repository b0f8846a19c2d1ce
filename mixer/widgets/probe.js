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

  /** The engine, through which an image [C, H, W] of bytes has passed; undefined while it starts, or without weights. */
  pass(image, { config, params, order }) {
    const { engine, lab } = this;
    if (!engine || !params) return undefined;
    engine.configure(config, 1);
    engine.setImages(image, [0], order);
    engine.setRecipe({}, lab);
    engine.params.set(params);
    engine.calls.run_one(0);
    return engine;
  }
}
