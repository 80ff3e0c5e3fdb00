// The database's thread: PGlite, driven by messages of the wire protocol.
//
// Why a thread of its own: PostgreSQL in WebAssembly is one synchronous call per message. When a COPY FROM STDIN needs
// more rows it *calls* for them and cannot be suspended; a thread can simply sleep until they have come, so that COPY
// streams as it does from a socket, and meanwhile the server's other thread goes on serving sockets.

import { receiveMessageOnPort, workerData } from 'node:worker_threads';

const { port, bell, moduleUrl, extensionUrl, wasm, bundle, image, database } = workerData;
const FLUSH_BYTES = 256 * 1024; // a long result goes out in parts
const ringing = new Int32Array(bell);

const { PGlite } = await import(moduleUrl);
const { timescaledb } = await import(extensionUrl);
const db = await PGlite.create({
  database,
  extensions: { timescaledb },
  wasmModule: wasm,
  fsBundle: new Blob([bundle]),
  ...(image ? { loadDataDir: new Blob([image]) } : {}),
});
const engine = db.Module;

let input = new Uint8Array(0);
let consumed = 0;
let output = [];
let outputBytes = 0;

/** Sleep until the server's thread has sent something. */
function receive() {
  for (;;) {
    const received = receiveMessageOnPort(port);
    if (received) return received.message;
    Atomics.wait(ringing, 0, 0);
    Atomics.store(ringing, 0, 0);
  }
}

function post(state) {
  const bytes = Buffer.concat(output, outputBytes);
  output = [];
  outputBytes = 0;
  port.postMessage({ state, bytes });
}

/** PostgreSQL's recv(). It is given one message at a time: it never holds part of one that nobody reads any more. */
function read(pointer, space) {
  if (consumed === input.length) {
    post('hungry');
    input = receive().bytes;
    consumed = 0;
  }
  const part = input.subarray(consumed, consumed + space);
  engine.HEAPU8.set(part, pointer);
  consumed += part.length;
  return part.length;
}

/** PostgreSQL's send(). */
function write(pointer, length) {
  output.push(engine.HEAPU8.slice(pointer, pointer + length));
  outputBytes += length;
  if (outputBytes >= FLUSH_BYTES) post('busy');
  return length;
}

// PGlite's own two callbacks parse every message into objects that they keep for ever, and cannot wait for input.
engine._set_read_write_cbs(engine.addFunction(read, 'iii'), engine.addFunction(write, 'iii'));
post('done');

for (;;) {
  const { bytes, kind, first } = receive();
  if (kind === 'dump') {
    const dumped = await (await db.dumpDataDir('none')).arrayBuffer();
    port.postMessage({ state: 'done', bytes: Buffer.from(dumped) });
  } else {
    input = bytes;
    consumed = 0;
    engine._interactive_one(bytes.length, first ?? bytes[0]);
    post('done');
  }
}
