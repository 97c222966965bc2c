// An independent peer for wire version 3: client and server, all three
// dialects, on nothing but Node's own net and crypto. It shares no code and no
// cryptographic library with Ferry, and is written from the description of the
// protocol, so that two readings of it meet in the tests.
//
//   node peer.mjs client --to HOST:PORT --dialect D --dir DIR --name N --file PATH [--wrong K]
//   node peer.mjs server --dialect D --dir DIR [--wrong K] [--many]
//
// --slice N sets the ciphertext in a packet (mainstream: 734, 4096 or 8192). With
// it come the habits of the program that had it: with 734, the client confirms
// nothing, closes the connection after a checksum that it likes, sends at once
// again after one that it does not, and gives up after five; with 8192, the
// server answers 901 with 1604, and the client waits for that.
// --wrong K: the client takes the first K checksums for wrong; the server sends
// the first K of each connection wrong. The client keeps me.info and priv.key in DIR as old clients
// did; the server keeps clients.json and files/<client>/<name> there. The
// server takes one file per connection, as the seed's does, unless --many.
// Each ends with one line of JSON that says what happened.

import crypto from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { parseArgs } from 'node:util';

const DIALECTS = {
  seed: { slice: 7902, totalFirst: true, ack: true },
  mainstream: { slice: 8192, totalFirst: false, ack: false },
  'per-slice': { slice: 1040, totalFirst: true, ack: false, perSlice: true },
};
const NAME = 255;
const ZERO_IV = Buffer.alloc(16);

// --- the bytes -------------------------------------------------------------

const CKSUM_TABLE = new Uint32Array(256);
for (let i = 0; i < 256; i++) {
  let c = i << 24;
  for (let k = 0; k < 8; k++) c = c & 0x80000000 ? (c << 1) ^ 0x04c11db7 : c << 1;
  CKSUM_TABLE[i] = c >>> 0;
}

function cksum(bytes) {
  let c = 0;
  const add = (b) => { c = ((c << 8) ^ CKSUM_TABLE[(c >>> 24) ^ b]) >>> 0; };
  for (let i = 0; i < bytes.length; i++) add(bytes[i]);
  for (let n = bytes.length; n > 0; n = Math.floor(n / 256)) add(n % 256);
  return ~c >>> 0;
}

function field(name) {
  const b = Buffer.alloc(NAME);
  if (Buffer.byteLength(name) > NAME) throw new Error('name too long');
  b.write(name, 'utf8');
  return b;
}

const unfield = (b) => b.toString('utf8').replace(/\0+$/, '');

function encrypt(key, plain) {
  const c = crypto.createCipheriv('aes-256-cbc', key, ZERO_IV);
  return Buffer.concat([c.update(plain), c.final()]);
}

function decrypt(key, sealed) {
  const d = crypto.createDecipheriv('aes-256-cbc', key, ZERO_IV);
  return Buffer.concat([d.update(sealed), d.final()]);
}

const OAEP = { padding: crypto.constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha1' };

function request(id, code, payload, size = payload.length) {
  const h = Buffer.alloc(23);
  id.copy(h, 0);
  h.writeUInt8(3, 16);
  h.writeUInt16LE(code, 17);
  h.writeUInt32LE(size, 19);
  return Buffer.concat([h, payload]);
}

function response(code, payload = Buffer.alloc(0)) {
  const h = Buffer.alloc(7);
  h.writeUInt8(3, 0);
  h.writeUInt16LE(code, 1);
  h.writeUInt32LE(payload.length, 3);
  return Buffer.concat([h, payload]);
}

// wire gives read(n), which resolves to exactly n bytes or to null at the end.
function wire(socket) {
  let held = Buffer.alloc(0), ended = false, wake = () => {};
  socket.setNoDelay(true);
  socket.on('data', (d) => { held = held.length ? Buffer.concat([held, d]) : d; wake(); });
  for (const e of ['end', 'close', 'error']) socket.on(e, () => { ended = true; wake(); });
  return {
    async read(n) {
      while (held.length < n) {
        if (ended) return null;
        await new Promise((r) => { wake = r; });
      }
      const b = held.subarray(0, n);
      held = held.subarray(n);
      return b;
    },
    write: (b) => new Promise((resolve) => socket.write(b, () => resolve())),
  };
}

// --- the client --------------------------------------------------------------

function packetsOf(dialect, key, plain) {
  if (dialect.perSlice) {
    const step = dialect.slice - 16, list = [];
    for (let at = 0; at < plain.length || list.length === 0; at += step) {
      list.push(encrypt(key, plain.subarray(at, at + step)));
    }
    return list.map((data) => ({ data, content: data.length }));
  }
  const sealed = encrypt(key, plain);
  const count = dialect.ack ? Math.floor(sealed.length / dialect.slice) + 1 : Math.ceil(sealed.length / dialect.slice);
  return Array.from({ length: count }, (_, i) => (
    { data: sealed.subarray(i * dialect.slice, (i + 1) * dialect.slice), content: sealed.length }));
}

function packetMessage(dialect, id, name, original, packet, number, total) {
  const h = Buffer.alloc(12);
  h.writeUInt32LE(packet.content, 0);
  h.writeUInt32LE(original, 4);
  h.writeUInt16LE(dialect.totalFirst ? total : number, 8);
  h.writeUInt16LE(dialect.totalFirst ? number : total, 10);
  const payload = Buffer.concat([h, field(name), packet.data]);
  return request(id, 828, payload, dialect.ack ? 8169 : payload.length);
}

async function client(o) {
  const dialect = dialectOf(o);
  const [host, port] = o.to.split(':');
  const socket = net.connect(Number(port), host);
  const w = wire(socket);
  const log = [];
  const answer = async () => {
    const h = await w.read(7);
    if (!h) return { code: 0, payload: Buffer.alloc(0) };
    const payload = await w.read(h.readUInt32LE(3));
    log.push(h.readUInt16LE(1));
    return { code: h.readUInt16LE(1), payload };
  };
  const done = (result, code, more = {}) => {
    socket.destroy();
    console.log(JSON.stringify({ result, answers: log, ...more }));
    process.exitCode = code;
  };

  const me = path.join(o.dir, 'me.info');
  let name = o.name, id = Buffer.alloc(16), keys, key;
  const unwrap = (a) => crypto.privateDecrypt({ key: keys, ...OAEP }, a.payload.subarray(16));
  if (fs.existsSync(me)) {
    const lines = fs.readFileSync(me, 'latin1').split('\n');
    name = Buffer.from(lines[0], 'latin1').toString('utf8').replace(/\0+$/, '');
    id = Buffer.from(lines[1].trim(), 'hex');
    keys = crypto.createPrivateKey({ key: Buffer.from(lines.slice(2).join(''), 'base64'), format: 'der', type: 'pkcs8' });
    await w.write(request(id, 827, field(name)));
    const a = await answer();
    if (a.code === 1605) key = unwrap(a);
    else if (a.code !== 1606) return done('reconnect refused', 1);
  }
  if (!key) {
    await w.write(request(Buffer.alloc(16, 0xff), 825, field(name)));
    const a = await answer();
    if (a.code !== 1600) return done('registration refused', 2);
    id = Buffer.from(a.payload);
    keys = crypto.generateKeyPairSync('rsa', { modulusLength: 1024, publicExponent: 17 });
    const spki = keys.publicKey.export({ type: 'spki', format: 'der' });
    keys = keys.privateKey;
    const b64 = keys.export({ type: 'pkcs8', format: 'der' }).toString('base64').match(/.{1,72}/g).join('\n') + '\n';
    fs.writeFileSync(me, `${name}\n${id.toString('hex')}\n${b64}`);
    fs.writeFileSync(path.join(o.dir, 'priv.key'), b64);
    await w.write(request(id, 826, Buffer.concat([field(name), spki])));
    const k = await answer();
    if (k.code !== 1602) return done('key refused', 3);
    key = unwrap(k);
  }

  const plain = fs.readFileSync(o.file);
  const fileName = o.as ?? path.basename(o.file);
  const ours = cksum(plain);
  const packets = packetsOf(dialect, key, plain);
  for (let send = 1; ; send++) {
    for (const [i, p] of packets.entries()) {
      await w.write(packetMessage(dialect, id, fileName, plain.length, p, i + 1, packets.length));
      if (dialect.ack) {
        const a = await answer();
        if (a.code !== 1604) return done(`packet ${i + 1} refused`, 4);
      }
    }
    const most = dialect.unconfirmed ? 5 : 4;
    const a = await answer();
    if (a.code !== 1603) return done('no checksum', 5);
    const theirs = a.payload.readUInt32LE(275);
    const stated = a.payload.readUInt32LE(16);
    const wrong = send <= o.wrong;
    const facts = { sends: send, id: id.toString('hex'), stated, cksum: theirs };
    if (dialect.unconfirmed) {
      if (theirs === ours && !wrong) return done('stored', 0, facts);
      if (send === most) return done('gave up', 7, facts);
      continue;
    }
    if (theirs === ours && !wrong) {
      await w.write(request(id, 900, field(fileName)));
      const last = await answer();
      return done(last.code === 1604 ? 'stored' : 'not acknowledged', last.code === 1604 ? 0 : 6, facts);
    }
    await w.write(request(id, send < most ? 901 : 902, field(fileName)));
    if (send < most && dialect.ackDiffers && (await answer()).code !== 1604) return done('901 not acknowledged', 8);
    if (send === most) {
      const last = await answer();
      return done('gave up', 7, { sends: send, last: last.code });
    }
  }
}

// --- the server --------------------------------------------------------------

function server(o) {
  const dialect = dialectOf(o);
  const book = path.join(o.dir, 'clients.json');
  const clients = fs.existsSync(book) ? JSON.parse(fs.readFileSync(book)) : {};
  const save = () => fs.writeFileSync(book, JSON.stringify(clients));
  const listener = net.createServer((socket) => {
    socket.on('error', () => {});
    serve(socket).catch((e) => { console.error(e); socket.destroy(); });
  });

  async function serve(socket) {
    const w = wire(socket);
    let key, who, transfer, wrong = o.wrong;
    for (;;) {
      const h = await w.read(23);
      if (!h) {
        if (dialect.unconfirmed && transfer?.plain) store(who.name, transfer);
        return;
      }
      const id = Buffer.from(h.subarray(0, 16)), code = h.readUInt16LE(17), size = h.readUInt32LE(19);
      if (code === 828) {
        transfer = await packet(w, h, size, id, transfer);
        continue;
      }
      const payload = await w.read(size);
      const name = unfield(payload.subarray(0, NAME));
      switch (code) {
        case 825: {
          if (Object.values(clients).some((c) => c.name === name)) { await w.write(response(1601)); break; }
          const fresh = crypto.randomBytes(16);
          clients[fresh.toString('hex')] = { name };
          save();
          await w.write(response(1600, fresh));
          break;
        }
        case 826:
        case 827: {
          who = clients[id.toString('hex')];
          if (!who || who.name !== name) { await w.write(response(code === 827 ? 1606 : 1607, id)); who = null; break; }
          if (code === 826) { who.key = payload.subarray(NAME).toString('base64'); save(); }
          const spki = crypto.createPublicKey({ key: Buffer.from(who.key, 'base64'), format: 'der', type: 'spki' });
          key = crypto.randomBytes(32);
          await w.write(response(code === 826 ? 1602 : 1605, Buffer.concat([id, crypto.publicEncrypt({ key: spki, ...OAEP }, key)])));
          break;
        }
        case 900: {
          store(who.name, transfer);
          await w.write(response(1604, id));
          transfer = null;
          if (!o.many) return socket.end();
          break;
        }
        case 901:
          transfer = null;
          if (dialect.ackDiffers) await w.write(response(1604, id));
          break;
        case 902:
          transfer = null;
          await w.write(response(1604, id));
          return socket.end();
        default:
          throw new Error(`code ${code}`);
      }
    }

    async function packet(w, h, size, id, t) {
      const p = await w.read(267);
      const content = p.readUInt32LE(0), original = p.readUInt32LE(4);
      const number = p.readUInt16LE(dialect.totalFirst ? 10 : 8), total = p.readUInt16LE(dialect.totalFirst ? 8 : 10);
      const name = unfield(p.subarray(12));
      if (number === 1) t = { name, parts: [], got: 0 };
      if (!t || t.parts.length + 1 !== number || t.name !== name) throw new Error(`packet ${number} out of order`);
      if (dialect.ack && size !== 8169) throw new Error(`payload size ${size}`);
      const length = dialect.ack ? Math.min(dialect.slice, content - t.got) : size - 267;
      const data = await w.read(length);
      t.parts.push(Buffer.from(data));
      t.got += length;
      if (dialect.ack) {
        if (number === 1 && fs.existsSync(path.join(o.dir, 'files', who.name, name))) {
          await w.write(response(1607));
          return null;
        }
        await w.write(response(1604, id));
      }
      if (number === total) {
        t.plain = dialect.perSlice ? Buffer.concat(t.parts.map((b) => decrypt(key, b))) : decrypt(key, Buffer.concat(t.parts));
        if (t.plain.length !== original) throw new Error(`plaintext of ${t.plain.length} bytes, ${original} stated`);
        let sum = cksum(t.plain);
        if (wrong > 0) { wrong--; sum = (sum ^ 0x5a5a5a5a) >>> 0; }
        const a = Buffer.alloc(24);
        id.copy(a, 0);
        a.writeUInt32LE(dialect.perSlice ? t.plain.length : t.got, 16);
        const c = Buffer.alloc(4);
        c.writeUInt32LE(sum, 0);
        await w.write(response(1603, Buffer.concat([a.subarray(0, 20), field(name), c])));
      }
      return t;
    }
  }

  function store(client, transfer) {
    fs.mkdirSync(path.join(o.dir, 'files', client), { recursive: true });
    fs.writeFileSync(path.join(o.dir, 'files', client, transfer.name), transfer.plain);
  }

  listener.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ listening: listener.address().port })));
}

function dialectOf(o) {
  const d = DIALECTS[o.dialect];
  if (!d) throw new Error(`dialect ${o.dialect}`);
  const slice = o.slice || d.slice, mainstream = o.dialect === 'mainstream';
  return { ...d, slice, unconfirmed: mainstream && slice === 734, ackDiffers: mainstream && slice === 8192 };
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    to: { type: 'string' }, dialect: { type: 'string', default: 'seed' }, slice: { type: 'string' }, dir: { type: 'string', default: '.' },
    name: { type: 'string' }, file: { type: 'string' }, as: { type: 'string' }, wrong: { type: 'string', default: '0' }, many: { type: 'boolean', default: false },
  },
});
const options = { ...values, wrong: Number(values.wrong), slice: values.slice ? Number(values.slice) : 0 };
if (positionals[0] === 'client') await client(options);
else if (positionals[0] === 'server') server(options);
else throw new Error('client or server?');
