// One backend: who may use it. First come, first served.

import { Violation } from './wire.mjs';

export class Turns {
  #owner = null;
  #waiting = [];
  #most;

  constructor(mostWaiting) {
    this.#most = mostWaiting;
  }

  /** Whose turn it is. */
  get owner() {
    return this.#owner;
  }

  /** Resolves when it is this client's turn. Raises Violation when too many wait, or what `withdraw` was given. */
  async take(client) {
    if (this.#owner === null) {
      this.#owner = client;
      return;
    }
    if (this.#waiting.length >= this.#most) {
      throw new Violation('53300', `more than ${this.#most} clients wait for the one backend of the test server`);
    }
    const place = { client, ...Promise.withResolvers() };
    this.#waiting.push(place);
    await place.promise;
  }

  /** The turn is over; the next one in the queue has it at once. */
  give(client) {
    if (this.#owner !== client) return;
    const next = this.#waiting.shift();
    this.#owner = next?.client ?? null;
    next?.resolve();
  }

  /** Take a client out of the queue; its `take` raises the error. False when it is not waiting. */
  withdraw(client, error) {
    const index = this.#waiting.findIndex((place) => place.client === client);
    if (index < 0) return false;
    const [place] = this.#waiting.splice(index, 1);
    place.reject(error);
    return true;
  }
}
