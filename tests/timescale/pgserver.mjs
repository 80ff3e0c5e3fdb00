// TimescaleDB Community for tests: a server that speaks PostgreSQL's wire protocol for several clients over one
// in-process database (PostgreSQL in WebAssembly, which has one backend and no sockets).
//
//   node pgserver.mjs --modules DIR [--data dump.tar] [--port 0] [--host 127.0.0.1] [limits]
//   node pgserver.mjs --modules DIR --prepare dump.tar
//
// prints {"port": N, "boot_ms": N} when it is ready, logs to stderr, and ends on SIGTERM, on SIGINT or when its stdin
// closes, so that it cannot outlive the tests. A line of JSON on stdin is an order, answered by one on stdout:
//   {"do": "reset", "data": "dump.tar"}   end all clients, start a new database from the dump (default: as at start)
//   {"do": "dump", "path": "dump.tar"}    write the data directory, to start others from
//
// One backend, so one transaction at a time: a client has the backend from the first message of a transaction until
// ReadyForQuery says idle; the others wait in a queue. What makes it look like a backend for each:
//   worker.mjs    the database's thread, which can wait for COPY data
//   backend.mjs   the other end of that thread
//   sessions.mjs  settings, temporary tables and advisory locks of each client
//   client.mjs    the protocol; prepared statements, portals and channels of each client
//   turns.mjs     the queue
//   prepare.mjs   the data directory to start from
//   wire.mjs      messages
//
// What differs from a real server:
//   - No two transactions overlap: no lock waits, no deadlocks, no serialization failures. A client that leaves a
//     transaction open keeps all others waiting, and is ended after a while.
//   - Nothing stops a statement that runs: no cancelling, no statement_timeout or lock_timeout. Cancelling a statement
//     that still waits for its turn works.
//   - Any password is accepted. Settings of ALTER ROLE ... SET and ALTER DATABASE ... SET are not applied.
//   - pg_backend_pid() is 0 for all and pg_stat_activity is empty, so pg_terminate_backend() has nobody to end.
//   - Clocks tick in milliseconds. There are no background workers: policies run by CALL run_job().
//   - Names of PREPARE, of cursors WITH HOLD and of temporary types and functions are shared by all clients, as are
//     the effects of CLOSE ALL and DISCARD TEMP on them. DISCARD ALL and DEALLOCATE ALL concern their client when sent
//     alone as a simple query.
//   - After a RESET the settings of the startup packet come back when the message ends, not before its next statement.
//   - pg_advisory_lock() does not wait but fails with lock_not_available (see prepare.mjs).
//   - A setting with a dot in its name is kept per client when the name stands in a SET or set_config() of its own, not
//     when a function sets it unseen. The only extensions are plpgsql and timescaledb.

import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

import { Backend, load } from './backend.mjs';
import { Client } from './client.mjs';
import { prepare } from './prepare.mjs';
import { Session, Stage } from './sessions.mjs';
import { Turns } from './turns.mjs';
import { stringAt, Violation } from './wire.mjs';

const OPTIONS = {
  modules: { type: 'string', default: 'node_modules' }, // the folder that npm filled
  host: { type: 'string', default: '127.0.0.1' },
  port: { type: 'string', default: '0' },
  data: { type: 'string' }, // a dump to start from; without it one is prepared, which takes some seconds
  prepare: { type: 'string' }, // write such a dump and end
  'message-mib': { type: 'string', default: '64' }, // longest message of a client
  clients: { type: 'string', default: '100' }, // most clients at a time
  waiting: { type: 'string', default: '100' }, // most clients that wait for their turn
  'idle-transaction-s': { type: 'string', default: '30' }, // longest pause of a client in its turn
  'startup-s': { type: 'string', default: '10' }, // longest time until a client's startup packet
};
const log = (...words) => console.error(new Date().toISOString(), ...words);

class Server {
  databaseName = 'postgres';
  log = log;
  limits;

  #parts;
  #image;
  #database; // promise of the one that is served
  #clients = new Map(); // by number
  #lastNumber = 0;

  constructor(parts, image, limits) {
    this.#parts = parts;
    this.#image = image;
    this.limits = limits;
    this.#database = this.#open();
  }

  get clientCount() {
    return this.#clients.size;
  }

  database() {
    return this.#database;
  }

  /** All channels that somebody listens to. */
  channels() {
    return [...new Set([...this.#clients.values()].flatMap((client) => [...client.channels]))];
  }

  async serve(socket) {
    this.#lastNumber += 1;
    const client = new Client(socket, this, this.#lastNumber);
    this.#clients.set(client.pid, client);
    await client.serve();
    this.#clients.delete(client.pid);
  }

  cancel(number, key) {
    if (!this.#clients.get(number)?.cancel(key)) log(`client ${number} asked to cancel: not possible now`);
  }

  /** End all clients and start over. */
  async reset(data) {
    if (data) this.#image = await readFile(data);
    const old = await this.#database.catch(() => null); // it may have failed to start
    for (const client of this.#clients.values()) client.end(new Violation('57P01', 'the test database starts over'));
    await old?.backend.stop();
    this.#database = this.#open();
    await this.#database;
  }

  async dump(path) {
    const { backend, stage, turns } = await this.#database;
    await turns.take(this);
    try {
      await stage.enter(new Session([])); // as the superuser
      await writeFile(path, await backend.dump());
    } finally {
      turns.give(this);
    }
  }

  async #open() {
    const backend = await Backend.boot(this.#parts, this.#image, this.databaseName);
    // Nothing preloads the extension, and the session authorization reads as empty until it has been set once.
    await backend.query("RESET ALL; SET SESSION AUTHORIZATION postgres; LOAD 'timescaledb'");
    const turns = new Turns(this.limits.waiting);
    backend.onNotification = (message) => {
      const [channel] = stringAt(message, 9);
      const from = turns.owner?.pid ?? 0;
      for (const client of this.#clients.values()) if (client.channels.has(channel)) client.notify(message, from);
    };
    backend.onCrash = (error) => {
      log('the database has crashed:', error);
      process.exit(1);
    };
    return { backend, turns, stage: new Stage(backend) };
  }
}

/** Do what stdin says, one order after the other. */
async function obey(server) {
  for await (const line of createInterface({ input: process.stdin })) {
    const started = performance.now();
    try {
      const order = JSON.parse(line);
      if (order.do === 'reset') await server.reset(order.data);
      else if (order.do === 'dump') await server.dump(order.path);
      else throw new Error(`unknown order ${line}`);
      answer({ done: order.do, ms: Math.round(performance.now() - started) });
    } catch (error) {
      log(error);
      answer({ error: error.message });
    }
  }
}

const answer = (object) => process.stdout.write(`${JSON.stringify(object)}\n`);

async function main() {
  const started = performance.now();
  const { values: options } = parseArgs({ options: OPTIONS });
  const parts = await load(options.modules);
  if (options.prepare) return writeFile(options.prepare, await prepare(parts));
  const server = new Server(parts, await (options.data ? readFile(options.data) : prepare(parts)), {
    messageBytes: Number(options['message-mib']) * 1024 * 1024,
    clients: Number(options.clients),
    waiting: Number(options.waiting),
    idleTransactionSeconds: Number(options['idle-transaction-s']),
    startupSeconds: Number(options['startup-s']),
  });
  await server.database();
  const listener = createServer({ allowHalfOpen: true }, (socket) => server.serve(socket).catch((error) => log(error)));
  listener.maxConnections = server.limits.clients + 20; // some more, so that they can be told why they are refused
  await new Promise((resolve, reject) => {
    listener.once('error', reject);
    listener.listen(Number(options.port), options.host, resolve);
  });
  answer({ port: listener.address().port, boot_ms: Math.round(performance.now() - started) });
  await obey(server);
}

process.once('SIGTERM', () => process.exit(0));
process.once('SIGINT', () => process.exit(0));
await main();
process.exit(0);
