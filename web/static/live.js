// What becomes of uploads, as the gateway tells it. All tabs of a visitor have
// one connection: the tab that holds a lock keeps it and shares what it hears;
// when it goes, another takes over. Where the browser has no locks, as on plain
// http from elsewhere, each tab that is seen has its own.

import { follow } from "./api.js";
import * as session from "./session.js";
import { SHA256 } from "./sha256.js";

/**
 * @typedef {import("./api.js").Happening} Happening
 */

/**
 * What tabs tell each other. "ask" is answered by the one with the connection:
 * "here". "live" says that there is a new one.
 * @typedef {{kind: "ask" | "here" | "live" | "lost" | "alive"} | {kind: "happened", happenings: Happening[]}} Message
 */

/** Milliseconds until a connection that broke is tried again: the first time, and at most. */
const pause = { first: 500, most: 8000 };

/** Milliseconds without a sign of life after which nobody is relied on; the gateway gives one every 15 seconds. */
const silence = 40_000;

export class Live {
  #changed;
  #happened;
  /** @type {AbortController | null} while it runs */
  #running = null;
  /** @type {BroadcastChannel | null} */
  #others = null;
  #live = false;
  /** Whether the connection is this tab's. */
  #leads = false;
  #heard = 0;

  /**
   * changed is called when events begin to come, from which on none is missed,
   * and when they end.
   * @param {(live: boolean) => void} changed
   * @param {(happenings: Happening[]) => void} happened
   */
  constructor(changed, happened) {
    this.#changed = changed;
    this.#happened = happened;
    setInterval(() => {
      if (!this.#live || performance.now() - this.#heard < silence) return;
      this.stop();
      this.start();
    }, silence / 4);
  }

  /** Whether events come. */
  get is() {
    return this.#live;
  }

  /** Listens for events from now on; at most once. */
  start() {
    if (this.#running) return;
    const { signal } = (this.#running = new AbortController());
    if (!navigator.locks) {
      void this.#keep(signal);
      return;
    }
    const name = lockName();
    this.#others = new BroadcastChannel(name);
    this.#others.onmessage = ({ data }) => this.#hear(data);
    navigator.locks.request(name, { signal }, () => this.#keep(signal)).catch(() => {}); // it was stopped
    this.#tell({ kind: "ask" });
  }

  /** Lets go of the connection, or of what another tab tells. */
  stop() {
    this.#running?.abort();
    this.#running = null;
    this.#others?.close();
    this.#others = null;
    this.#leads = false;
    this.#set(false);
  }

  /**
   * Has the connection until signal says otherwise.
   * @param {AbortSignal} signal
   */
  async #keep(signal) {
    this.#leads = true;
    let wait = pause.first;
    while (!signal.aborted) {
      try {
        for await (const happenings of follow(signal)) {
          if (signal.aborted) return;
          wait = pause.first;
          const began = happenings.some(({ event }) => event === "ready" || event === "reset");
          this.#share(began ? { kind: "live" } : happenings.length > 0 ? { kind: "happened", happenings } : { kind: "alive" });
        }
      } catch {
        // Whoever asks for the list learns why.
      }
      if (signal.aborted) return;
      this.#share({ kind: "lost" });
      await new Promise((resolve) => setTimeout(resolve, wait));
      wait = Math.min(wait * 2, pause.most);
    }
  }

  /** @param {Message} message */
  #share(message) {
    this.#tell(message);
    this.#hear(message);
  }

  /** @param {Message} message */
  #tell(message) {
    this.#others?.postMessage(message);
  }

  /** @param {Message} message */
  #hear(message) {
    this.#heard = performance.now();
    switch (message.kind) {
      case "ask":
        if (this.#live && this.#leads) this.#tell({ kind: "here" });
        break;
      case "here":
        if (!this.#live) this.#set(true);
        break;
      case "live":
        this.#set(true);
        break;
      case "lost":
        this.#set(false);
        break;
      case "happened":
        if (this.#live) this.#happened(message.happenings);
    }
  }

  /** @param {boolean} live */
  #set(live) {
    if (!live && !this.#live) return;
    this.#live = live;
    this.#changed(live);
  }
}

/**
 * The same for all tabs of a visitor, and for no one else: those with another
 * token hear other things.
 */
function lockName() {
  const sum = new SHA256();
  sum.update(new TextEncoder().encode(session.current()));
  return `ferry-events-${sum.digest()}`;
}
