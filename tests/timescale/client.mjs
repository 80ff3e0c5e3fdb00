// One client's connection: from its startup packet to the end of its last transaction.

import { Stopped } from './backend.mjs';
import { Session } from './sessions.mjs';
import {
  CANCEL_REQUEST, DatabaseError, errorResponse, fieldsOf, Frames, GSSENC_REQUEST, int32, packet, parametersOf,
  PROTOCOL_MAJOR, readyForQuery, settingsInOptions, SSL_REQUEST, stringAt, typeOf, Violation,
} from './wire.mjs';

const FRONTEND = 'QPBEDCSHFXdcf'; // any other type would end the backend, and with it everybody's database
const NO_SETTINGS = new Set(['user', 'database', 'options', 'replication']);
const FLUSH_BYTES = 64 * 1024;
const READ_AHEAD_BYTES = 4 * 1024 * 1024; // of a client that sends faster than its messages are run
// Commands that leave the session as it is, so that it need not be read again when the next client takes over.
const HARMLESS = /^(?:INSERT|UPDATE|DELETE|MERGE|COPY|BEGIN|START TRANSACTION|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)\b/;
const DISCARD_ALL = /^\s*discard\s+all\s*;?\s*$/i;
const DEALLOCATE_ALL = /^\s*deallocate\s+(?:prepare\s+)?all\s*;?\s*$/i;

/** Raised in a client that waits for its turn when it is told to cancel. */
class Cancelled extends Error {}

export class Client {
  channels = new Set(); // what it listens to
  session = null;

  #socket;
  #server;
  #database; // backend, stage and turns
  #number;
  #key = Math.trunc(Math.random() * 2 ** 31);
  #frames;
  #wake = () => {};
  #ended = false; // it sends no more
  #failure = null; // why it has to go
  #leaving = false; // it is being cleaned up after
  #out = [];
  #outBytes = 0;

  #owns = false; // it is this client's turn
  #status = 'I'; // of its transaction: idle, in one, in a failed one
  #pipeline = false; // an extended query is open: no Sync has come yet
  #preparing = true; // the pipeline has run nothing so far
  #failed = false; // the pipeline has failed: PostgreSQL skips the rest
  #skipping = false; // we skip the rest of a pipeline, up to its Sync
  #statements = new Map(); // prepared statements: name to SQL
  #portals = new Map(); // portals: name to SQL
  #reported = new Map(); // parameters as this client was last told them
  #touched = false; // a setting may have changed in this transaction
  #resets = ''; // SQL that reset something
  #listening = []; // LISTEN and UNLISTEN of this transaction
  #rolledBack = false;

  constructor(socket, server, number) {
    this.#socket = socket;
    this.#server = server;
    this.#number = number;
    this.#frames = new Frames(server.limits.messageBytes);
    socket.setNoDelay(true);
    socket.on('data', (chunk) => this.#receive(chunk));
    socket.on('error', () => socket.destroy());
    socket.on('end', () => this.#end());
    socket.on('close', () => this.#end());
  }

  /** Also what BackendKeyData says; pg_backend_pid() is 0 for all. */
  get pid() {
    return this.#number;
  }

  /** The whole life of the connection. */
  async serve() {
    try {
      if (!(await this.#start())) return;
      const limit = this.#server.limits.idleTransactionSeconds;
      for (;;) {
        const message = await (this.#owns
          ? this.#next(limit, '25P03', 'a transaction was left idle: the one backend of the test server is needed')
          : this.#next());
        if (message === null || typeOf(message) === 'X') break;
        await this.#handle(message);
        await this.#drained();
      }
    } catch (error) {
      this.#sayWhy(error);
    } finally {
      this.#socket.end();
      await this.#leave().catch((error) => this.#server.log(`client ${this.pid} could not be cleaned up:`, error));
      this.#socket.destroySoon();
    }
  }

  /** End the connection, for a reason that the client is told. */
  end(violation) {
    this.#failure ??= violation;
    this.#database?.turns.withdraw(this, violation);
    this.#wake();
  }

  /** A cancel request. What runs cannot be stopped; what waits for its turn can. */
  cancel(key) {
    return key === this.#key && Boolean(this.#database?.turns.withdraw(this, new Cancelled()));
  }

  /** A notification on a channel of this client; it was sent by the client with this number. */
  notify(message, from) {
    const own = Buffer.from(message);
    own.writeInt32BE(from, 5);
    if (this.#owns) this.#write(own); // in the middle of an answer: in its place there
    else this.#socket.write(own);
  }

  // Input and output

  #receive(chunk) {
    this.#frames.push(chunk);
    if (this.#frames.held > READ_AHEAD_BYTES) this.#socket.pause();
    this.#wake();
  }

  #end() {
    this.#ended = true;
    if (!this.#leaving) this.#database?.turns.withdraw(this, new Violation('08006', 'the client is gone'));
    this.#wake();
  }

  /** The client's next message, or null when it sends no more. Raises Violation, also when it takes too long. */
  async #next(seconds = Infinity, code = '', text = '', startup = false) {
    let late = false;
    const timer = seconds < Infinity && setTimeout(() => { late = true; this.#wake(); }, seconds * 1000);
    try {
      for (;;) {
        if (this.#failure) throw this.#failure;
        const message = startup ? this.#frames.nextStartup() : this.#frames.next();
        if (message) return message;
        if (this.#ended) return null;
        if (late) throw (this.#failure = new Violation(code, `${text} (limit: ${seconds} s)`));
        const woken = new Promise((resolve) => { this.#wake = resolve; });
        this.#socket.resume();
        await woken;
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #write(message) {
    this.#out.push(message);
    this.#outBytes += message.length;
    if (this.#outBytes >= FLUSH_BYTES) this.#flush();
  }

  #flush() {
    if (this.#out.length && this.#socket.writable) this.#socket.write(Buffer.concat(this.#out, this.#outBytes));
    this.#out = [];
    this.#outBytes = 0;
  }

  /** Wait until a client that reads slowly has read its last answer. It never waits while it is its turn. */
  async #drained() {
    while (!this.#owns && this.#socket.writableNeedDrain && !this.#ended && !this.#failure) {
      await new Promise((resolve) => {
        this.#wake = resolve;
        this.#socket.once('drain', resolve);
      });
    }
  }

  #sayWhy(error) {
    if (!this.#ended) this.#server.log(`client ${this.pid} is ended:`, error.message);
    if (error instanceof Stopped) {
      this.#write(errorResponse('FATAL', '57P01', 'the test database was stopped'));
    } else if (error instanceof Violation || error instanceof DatabaseError) {
      this.#write(errorResponse('FATAL', error.code, error.message, error.hint));
    } else {
      this.#server.log(error);
      this.#write(errorResponse('FATAL', 'XX000', `the test server failed: ${error.message}`));
    }
    this.#flush();
  }

  // Startup

  /** Read the startup packet and put its settings in force; false when there is nothing to serve. */
  async #start() {
    const { limits } = this.#server;
    let startup;
    for (;;) {
      startup = await this.#next(limits.startupSeconds, '08P01', 'no startup packet came', true);
      if (startup === null) return false;
      const code = startup.length >= 8 ? startup.readInt32BE(4) : 0;
      if (code === CANCEL_REQUEST && startup.length >= 16) {
        this.#server.cancel(startup.readInt32BE(8), startup.readInt32BE(12));
        return false; // PostgreSQL does not answer these either
      }
      if (code !== SSL_REQUEST && code !== GSSENC_REQUEST) break;
      this.#socket.write('N');
    }
    if (startup.readUInt16BE(4) !== PROTOCOL_MAJOR) throw new Violation('0A000', 'only protocol 3 is supported');
    const parameters = parametersOf(startup);
    if (this.#server.clientCount > limits.clients) throw new Violation('53300', 'too many clients already');
    if (parameters.has('replication')) throw new Violation('0A000', 'replication is not supported');
    this.#negotiate(startup, parameters);
    const name = parameters.get('database') ?? parameters.get('user');
    if (name !== this.#server.databaseName) throw new Violation('3D000', `database "${name}" does not exist`);

    this.session = new Session(startupSettings(parameters));
    this.#database = await this.#server.database();
    await this.#takeTurn();
    this.#reported = new Map([...this.#database.backend.parameters, ...(await this.#database.stage.reported())]);
    this.#write(packet('R', int32(0)));
    for (const [parameter, value] of this.#reported) this.#write(packet('S', parameter, value));
    this.#write(packet('K', int32(this.pid, this.#key)));
    this.#giveTurn();
    this.#write(readyForQuery('I'));
    this.#flush();
    return true;
  }

  /** Newer clients ask for a newer minor version or for extensions: they are told what there is. */
  #negotiate(startup, parameters) {
    const extensions = [...parameters.keys()].filter((name) => name.startsWith('_pq_.'));
    if (startup.readUInt16BE(6) === 0 && extensions.length === 0) return;
    this.#write(packet('v', int32(PROTOCOL_MAJOR << 16, extensions.length), ...extensions));
  }

  // Turns

  async #takeTurn() {
    await this.#database.turns.take(this);
    this.#owns = true;
    await this.#database.stage.enter(this.session);
  }

  #giveTurn() {
    this.#owns = false;
    this.#database.turns.give(this);
  }

  // Messages

  async #handle(message) {
    const type = typeOf(message);
    if (!FRONTEND.includes(type)) throw new Violation('08P01', `invalid frontend message type ${message[0]}`);
    if ('dcf'.includes(type)) return; // what was under way when a COPY failed: PostgreSQL ignores it too
    if (this.#skipping) {
      if (type === 'S') this.#endOfSkipping();
      return;
    }
    try {
      if (!this.#owns) await this.#takeTurn();
    } catch (error) {
      if (!(error instanceof Cancelled)) throw error;
      this.#write(errorResponse('ERROR', '57014', 'canceling statement due to user request'));
      this.#skipping = true;
      if ('QS'.includes(type)) this.#endOfSkipping();
      this.#flush();
      return;
    }
    if ('QBEF'.includes(type)) this.#preparing = false;
    switch (type) {
      case 'Q': return this.#query(message);
      case 'P': return this.#parse(message);
      case 'B': return this.#bind(message);
      case 'D':
      case 'C': return this.#describeOrClose(type, message);
      case 'E': return this.#execute(message);
      case 'H': return this.#flushRequest(message);
      default: return this.#run(message, '');
    }
  }

  #endOfSkipping() {
    this.#skipping = false;
    this.#write(readyForQuery('I'));
    this.#flush();
  }

  async #query(message) {
    const [sql] = stringAt(message, 5);
    if (this.#status === 'I' && DISCARD_ALL.test(sql)) return this.#discardAll();
    if (DEALLOCATE_ALL.test(sql) && this.#status !== 'E') return this.#deallocateAll();
    return this.#run(message, sql);
  }

  // Statements and portals have a name per client. The unnamed statement is given one too, since it must outlive the
  // turns of others; the unnamed portal ends with the transaction, and so with the turn.

  #own(name) {
    return `${this.#number}.${name}`;
  }

  #ownPortal(name) {
    return name === '' ? '' : this.#own(name);
  }

  async #parse(message) {
    const [name, behindName] = stringAt(message, 5);
    const [sql] = stringAt(message, behindName);
    if (name === '' && this.#statements.has('')) {
      const closed = await this.#run(packet('C', Buffer.from('S'), this.#own('')), '', '3');
      if (closed.includes('3')) this.#statements.delete('');
    }
    const types = await this.#run(packet('P', this.#own(name), message.subarray(behindName)), sql);
    if (types.includes('1')) this.#statements.set(name, sql);
  }

  async #bind(message) {
    const [portal, behindPortal] = stringAt(message, 5);
    const [statement, behindStatement] = stringAt(message, behindPortal);
    this.#portals.set(portal, this.#statements.get(statement) ?? '');
    const rest = message.subarray(behindStatement);
    await this.#run(packet('B', this.#ownPortal(portal), this.#own(statement), rest), '');
  }

  async #describeOrClose(type, message) {
    const kind = message.subarray(5, 6);
    const [name] = stringAt(message, 6);
    const isStatement = String(kind) === 'S';
    const types = await this.#run(packet(type, kind, isStatement ? this.#own(name) : this.#ownPortal(name)), '');
    if (types.includes('3')) (isStatement ? this.#statements : this.#portals).delete(name);
  }

  async #execute(message) {
    const [portal, behindPortal] = stringAt(message, 5);
    const rest = message.subarray(behindPortal);
    await this.#run(packet('E', this.#ownPortal(portal), rest), this.#portals.get(portal) ?? '');
  }

  /**
   * asyncpg prepares a statement with a Flush and leaves the Sync to its first execution. Nothing has been run then,
   * and the others need not wait for it: the turn ends with a Sync of our own.
   */
  async #flushRequest(message) {
    await this.#run(message, '');
    if (this.#status !== 'I' || !this.#preparing) return;
    this.#skipping = this.#failed;
    await this.#run(packet('S'), '', 'Z');
  }

  /**
   * Run one message and pass its answer on.
   *
   * @param sql the statement that it runs, if it runs one.
   * @param hide types of messages of the answer that the client is not shown.
   * @returns the types of the messages that were answered.
   */
  async #run(message, sql, hide = '') {
    let types = '';
    let ready = null;
    this.#pipeline = true;
    await this.#database.backend.run(
      message,
      (answer) => {
        const type = typeOf(answer);
        types += 'DdN'.includes(type) ? '' : type;
        if (type === 'Z') ready = String.fromCharCode(answer[5]);
        else if (type === 'C') this.#completed(stringAt(answer, 5)[0], sql);
        else if (type === 's') this.#completed('SELECT', sql); // as much of it as was asked for
        else if (type === 'E') this.session.dirty = this.#rolledBack = this.#failed = true;
        if (type !== 'Z' && !hide.includes(type) && !(type === 'N' && isChatter(answer))) this.#write(answer);
      },
      () => this.#copyData(),
    );
    if (ready) await this.#settle(ready, hide.includes('Z'));
    if (ready || typeOf(message) === 'H' || types.includes('E')) this.#flush();
    return types;
  }

  /** What a COPY FROM STDIN is given next. */
  async #copyData() {
    this.#flush();
    try {
      const message = await this.#next(this.#server.limits.idleTransactionSeconds, '25P03', 'a COPY was left idle');
      if (message && typeOf(message) !== 'X') return message;
      this.#ended = true;
    } catch (error) {
      this.#failure ??= error;
    }
    return packet('f', 'the client went away in the middle of COPY');
  }

  /** Take note of what a completed command may have done to the session. */
  #completed(tag, sql) {
    if (!HARMLESS.test(tag)) {
      this.session.dirty = true;
      this.#database.stage.noteCustomSettings(sql);
    }
    if (tag === 'ROLLBACK') this.#rolledBack = true;
    if (tag === 'SET' || tag === 'RESET' || /^DISCARD/.test(tag)) {
      this.#touched = true;
      if (/\breset\b|\bdefault\b|\bdiscard\b/i.test(sql)) this.#resets += `${sql};`;
    }
    if (tag === 'LISTEN' || tag === 'UNLISTEN') this.#listening.push(...channelsIn(sql));
  }

  /** The backend is ready for the next message: bring the session in order, and give the turn up when it is idle. */
  async #settle(status, quietly = false) {
    const { stage } = this.#database;
    this.#status = status;
    this.#pipeline = this.#failed = false;
    this.#preparing = true;
    if (this.#touched && status !== 'E') {
      if (this.#resets) await stage.refill(this.session, this.#resets);
      this.#resets = '';
      for (const [name, value] of await stage.reported()) {
        if (this.#reported.get(name) !== value) this.#write(packet('S', name, value));
        this.#reported.set(name, value);
      }
    }
    if (status === 'I') {
      this.#touched = false;
      await this.#settleChannels();
      this.#portals.clear();
    }
    if (!quietly) this.#write(readyForQuery(status));
    if (status === 'I') {
      this.#flush();
      this.#giveTurn();
    }
  }

  /** LISTEN counts from the commit on. UNLISTEN has ended it for everybody: the others are listened for again. */
  async #settleChannels() {
    const changes = this.#rolledBack ? [] : this.#listening;
    this.#listening = [];
    this.#rolledBack = false;
    for (const { listen, channel } of changes) {
      if (listen) this.channels.add(channel);
      else if (channel === '*') this.channels.clear();
      else this.channels.delete(channel);
    }
    if (changes.some(({ listen }) => !listen)) await this.#listenForAll();
  }

  async #listenForAll() {
    const wanted = this.#server.channels().map((channel) => `LISTEN "${channel.replaceAll('"', '""')}"`);
    if (wanted.length) await this.#database.backend.query(wanted.join('; '));
  }

  // The end of a session

  /** DISCARD ALL, for this client only. */
  async #discardAll() {
    await this.#forget();
    this.session = this.session.restarted();
    await this.#database.stage.enter(this.session);
    this.#touched = true;
    this.#write(packet('C', 'DISCARD ALL'));
    await this.#settle('I');
    this.#flush();
  }

  async #deallocateAll() {
    await this.#closeStatements();
    this.#write(packet('C', 'DEALLOCATE ALL'));
    await this.#settle(this.#status);
    this.#flush();
  }

  async #closeStatements() {
    for (const name of this.#statements.keys()) {
      await this.#database.backend.run(packet('C', Buffer.from('S'), this.#own(name)), () => {});
    }
    this.#statements.clear();
  }

  async #forget() {
    await this.#closeStatements();
    if (this.channels.size) {
      await this.#database.backend.query('UNLISTEN *');
      this.channels.clear();
      await this.#listenForAll();
    }
    await this.#database.stage.leave(this.session);
  }

  /** Leave nothing behind: neither a transaction nor anything else that belongs to this client. */
  async #leave() {
    this.#leaving = true;
    if (!this.#database || this.#database.backend.stopped) return;
    const { backend, turns } = this.#database;
    try {
      if (!this.#owns) await turns.take(this);
      if (this.#pipeline) {
        // A Sync alone would commit what the pipeline has done so far: first make it fail.
        await backend.run(packet('P', '', 'the client is gone', Buffer.alloc(2)), () => {});
        await backend.run(packet('S'), (answer) => { this.#status = String.fromCharCode(answer[5]); });
      }
      if (this.#status !== 'I') await backend.query('ROLLBACK');
      await this.#forget();
    } catch (error) {
      if (!(error instanceof Stopped) && error !== this.#failure) throw error;
    } finally {
      this.#giveTurn();
    }
  }
}

function startupSettings(parameters) {
  const settings = settingsInOptions(parameters.get('options') ?? '');
  for (const [name, value] of parameters) {
    if (!NO_SETTINGS.has(name) && !name.startsWith('_pq_.')) settings.push([name, value]);
  }
  settings.push(['session_authorization', parameters.get('user') ?? '']);
  return settings.map(([name, value]) => [name.toLowerCase(), value]);
}

/** This build tells every client about its own workings, as in "# 1743: aborting transaction 739". */
const isChatter = (notice) => /^# \d+: /.test(fieldsOf(notice).M ?? '');

/** The channels named in LISTEN and UNLISTEN statements, folded to lower case as PostgreSQL does unless quoted. */
function channelsIn(sql) {
  const statements = /\b(un)?listen\s+(?:"((?:[^"]|"")+)"|([\p{L}_][\p{L}\p{N}_$]*|\*))/giu;
  return [...sql.matchAll(statements)].map(([, un, quoted, plain]) => ({
    listen: !un,
    channel: quoted?.replaceAll('""', '"') ?? plain.toLowerCase(),
  }));
}
