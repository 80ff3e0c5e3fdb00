// PostgreSQL's wire protocol 3.0, as far as a server in the middle has to understand it.
// Source: https://www.postgresql.org/docs/17/protocol-message-formats.html

export const PROTOCOL_MAJOR = 3;
export const CANCEL_REQUEST = 80877102;
export const SSL_REQUEST = 80877103;
export const GSSENC_REQUEST = 80877104;
const LONGEST_STARTUP_BYTES = 10_000; // PostgreSQL's own limit (MAX_STARTUP_PACKET_LENGTH)

/** The client broke the protocol or a limit: it is told why with this SQLSTATE, and its connection ends. */
export class Violation extends Error {
  constructor(code, text, hint) {
    super(text);
    this.code = code;
    this.hint = hint;
  }
}

/** What the database answered with an ErrorResponse; `fields` by their one-letter names. */
export class DatabaseError extends Error {
  constructor(response) {
    const fields = fieldsOf(response);
    super(fields.M);
    this.code = fields.C;
    this.fields = fields;
  }
}

/** Cuts a stream of bytes into whole messages, without copying a large one more than once. */
export class Frames {
  #chunks = [];
  #held = 0;
  #longest;

  constructor(longestBytes = Infinity) {
    this.#longest = longestBytes;
  }

  /** Bytes that wait to become whole messages. */
  get held() {
    return this.#held;
  }

  push(chunk) {
    if (chunk.length === 0) return;
    this.#chunks.push(chunk);
    this.#held += chunk.length;
  }

  /** The next message with its type and length, or null while it is not complete. */
  next() {
    return this.#take(1, this.#longest, '54000');
  }

  /** The next message of a connection that has not started: these have a length and no type. */
  nextStartup() {
    return this.#take(0, LONGEST_STARTUP_BYTES, '08P01');
  }

  #take(typeBytes, longest, code) {
    const header = typeBytes + 4;
    if (this.#held < header) return null;
    if (this.#chunks[0].length < header) this.#join();
    const length = this.#chunks[0].readUInt32BE(typeBytes);
    if (length < 4) throw new Violation('08P01', `a message cannot be ${length} bytes long`);
    const size = typeBytes + length;
    // Refused by its header: the bytes that it announces are never collected.
    if (size > longest) throw new Violation(code, `a message of ${size} bytes is longer than ${longest} bytes`);
    if (this.#held < size) return null;
    if (this.#chunks[0].length < size) this.#join();
    const first = this.#chunks[0];
    if (first.length === size) this.#chunks.shift();
    else this.#chunks[0] = first.subarray(size);
    this.#held -= size;
    return first.subarray(0, size);
  }

  #join() {
    this.#chunks = [Buffer.concat(this.#chunks)];
  }
}

export const typeOf = (message) => String.fromCharCode(message[0]);

/** One message: strings become NUL-terminated, buffers stay as they are. */
export function packet(type, ...parts) {
  const body = parts.map((part) => (typeof part === 'string' ? Buffer.from(`${part}\0`) : part));
  const head = Buffer.alloc(5, type, 'latin1');
  head.writeInt32BE(4 + body.reduce((sum, part) => sum + part.length, 0), 1);
  return Buffer.concat([head, ...body]);
}

export function int32(...numbers) {
  const bytes = Buffer.alloc(4 * numbers.length);
  numbers.forEach((number, index) => bytes.writeInt32BE(number | 0, 4 * index));
  return bytes;
}

/** The NUL-terminated string at a position, and the position behind it. */
export function stringAt(message, position) {
  const end = message.indexOf(0, position);
  if (end < 0) throw new Violation('08P01', 'a string in a message has no end');
  return [message.toString('utf8', position, end), end + 1];
}

/** A row's values as strings, null for NULL. */
export function valuesOf(dataRow) {
  const values = [];
  let position = 7;
  for (let left = dataRow.readInt16BE(5); left > 0; left -= 1) {
    const length = dataRow.readInt32BE(position);
    position += 4;
    values.push(length < 0 ? null : dataRow.toString('utf8', position, position + length));
    position += Math.max(length, 0);
  }
  return values;
}

/** The fields of an ErrorResponse or NoticeResponse. */
export function fieldsOf(response) {
  const fields = {};
  for (let position = 5; response[position]; ) {
    const [text, next] = stringAt(response, position + 1);
    fields[String.fromCharCode(response[position])] = text;
    position = next;
  }
  return fields;
}

/** An ErrorResponse of our own; severity FATAL announces the end of the connection, as PostgreSQL does. */
export function errorResponse(severity, code, text, hint) {
  const fields = { S: severity, V: severity, C: code, M: text, ...(hint ? { H: hint } : {}) };
  const parts = Object.entries(fields).flatMap(([name, value]) => [Buffer.from(name), value]);
  return packet('E', ...parts, Buffer.alloc(1));
}

export const readyForQuery = (status) => packet('Z', Buffer.from(status));

/** Parameters of a StartupMessage by name, in the order in which they came. */
export function parametersOf(startup) {
  const parameters = new Map();
  for (let position = 8; startup[position]; ) {
    const [name, behindName] = stringAt(startup, position);
    const [value, next] = stringAt(startup, behindName);
    parameters.set(name, value);
    position = next;
  }
  return parameters;
}

/** The settings in libpq's `options` parameter: `-c name=value` and `--name=value`, blanks escaped by a backslash. */
export function settingsInOptions(options) {
  const words = [...options.matchAll(/(?:\\.|[^\s\\])+/gsu)].map(([word]) => word.replace(/\\(.)/gsu, '$1'));
  const settings = [];
  for (let index = 0; index < words.length; index += 1) {
    let word = words[index];
    if (word === '-c') word = words[(index += 1)] ?? '';
    else if (word.startsWith('-c') || word.startsWith('--')) word = word.slice(2);
    else throw new Violation('42601', `the connection option ${word} is not supported`);
    const split = word.indexOf('=');
    if (split < 1) throw new Violation('42601', `the connection option ${word} needs a value`);
    settings.push([word.slice(0, split).replaceAll('-', '_'), word.slice(split + 1)]);
  }
  return settings;
}
