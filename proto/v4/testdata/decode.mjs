// Another reader of wire version 4, written from docs/protocol-v4.md with
// nothing but Node's own crypto. It derives the keys from client key, wrapped
// secret and exporter value, opens every message of every conversation here,
// takes its fields apart, and wants all to be as the manifest says.
//
//   node decode.mjs [FOLDER]

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

const folder = process.argv[2] ?? path.dirname(process.argv[1]);
const file = (name) => fs.readFileSync(path.join(folder, name));
const manifest = JSON.parse(file('manifest.json').toString('utf8'));
const bytes = (hex) => Buffer.from(hex, 'hex');

// Keys.

function unwrap(pem, wrapped) {
  return crypto.privateDecrypt({
    key: pem,
    padding: crypto.constants.RSA_PKCS1_OAEP_PADDING,
    oaepHash: 'sha256',
    oaepLabel: Buffer.from('ferry/4 secret'),
  }, wrapped);
}

function keys(secret, exporter, id) {
  const derive = (label) => Buffer.from(crypto.hkdfSync('sha256', secret, exporter, Buffer.concat([Buffer.from(label), id]), 32));
  return { client: derive('ferry/4 client to server'), server: derive('ferry/4 server to client') };
}

// HKDF-Expand of 32 bytes is one block.
const nextKey = (key) => crypto.createHmac('sha256', key).update('ferry/4 next key').update(Buffer.of(1)).digest();

function open(key, count, header, sealed) {
  assert.ok(sealed.length >= 16, 'a sealed payload has a tag');
  const nonce = Buffer.alloc(12);
  nonce.writeBigUInt64LE(count, 4);
  const d = crypto.createDecipheriv('aes-256-gcm', key, nonce);
  d.setAAD(header);
  d.setAuthTag(sealed.subarray(-16));
  return Buffer.concat([d.update(sealed.subarray(0, -16)), d.final()]);
}

// Payloads.

class Reader {
  constructor(b) { this.b = b; this.at = 0; }
  take(n) {
    assert.ok(this.at + n <= this.b.length, 'the payload ends early');
    this.at += n;
    return this.b.subarray(this.at - n, this.at);
  }
  u8() { return this.take(1).readUInt8(); }
  u16() { return this.take(2).readUInt16LE(); }
  u32() { return this.take(4).readUInt32LE(); }
  u64() { return this.take(8).readBigUInt64LE().toString(); }
  i64() { return this.take(8).readBigInt64LE().toString(); }
  hex(n) { return this.take(n).toString('hex'); }
  bytes() { return this.hex(this.u16()); }
  str() { return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(this.take(this.u16())); }
  rest() { return this.take(this.b.length - this.at); }
}

const sum = (r) => ({ cksum: r.u32(), sha256: r.hex(32) });
const differs = (r) => ({ size: r.i64(), sum: sum(r) });
const client = (r) => ({ id: r.hex(16) });
const wrapped = (r) => ({ id: r.hex(16), secret: r.bytes() });
const offset = (r) => ({ bytes: r.i64() });

function offer(r) {
  const o = { transfer: r.hex(16), size: r.i64(), mode: r.u32(), modTime: r.i64() };
  const flags = r.u8();
  assert.ok(flags <= 1, 'flags');
  return { ...o, known: flags === 1, sum: sum(r), name: r.str() };
}

function stored(r) {
  const numbers = Array.from({ length: r.u32() }, () => r.u64());
  assert.ok(numbers.length >= 1 && numbers.length <= 128, 'files of one answer');
  const length = r.u32();
  const envelope = r.rest();
  assert.equal(envelope.length, length);
  checkReceipt(envelope.toString('utf8'), numbers.length);
  return { numbers, envelope: envelope.toString('hex') };
}

function refused(r) {
  const m = { reason: r.u16(), after: r.u32(), words: r.str(), exists: { size: '0', sum: { cksum: 0, sha256: '00'.repeat(32) } } };
  if (m.reason === 3) m.exists = differs(r);
  return m;
}

const payloads = {
  825: (r) => ({ name: r.str(), token: r.str() }),
  826: (r) => ({ key: r.bytes() }),
  827: (r) => ({ id: r.hex(16), name: r.str() }),
  828: (r) => { r.rest(); },
  829: (r) => ({ packet: r.u32() }),
  830: offer,
  831: sum,
  832: (r) => ({ ...offer(r), content: r.rest().toString('hex') }),
  833: (r) => ({ key: r.bytes(), signature: r.bytes() }),
  901: () => undefined,
  902: () => undefined,
  1600: client,
  1601: () => undefined,
  1602: wrapped,
  1603: stored,
  1604: offset,
  1605: wrapped,
  1606: client,
  1607: refused,
  1608: differs,
  1610: (r) => ({ packet: r.u32(), window: r.u64(), unanswered: r.u32() }),
  1611: offset,
};

// Receipts.

function checkReceipt(text, files) {
  const envelope = JSON.parse(text);
  const payload = Buffer.from(envelope.payload, 'base64');
  const statement = JSON.parse(payload.toString('utf8'));
  const der = Buffer.from(statement.predicate.serverKey, 'base64');
  assert.equal('sha256:' + crypto.createHash('sha256').update(der).digest('hex'), manifest.pin);
  assert.equal(envelope.signatures[0].keyid, manifest.pin);
  const pae = Buffer.concat([Buffer.from(`DSSEv1 ${envelope.payloadType.length} ${envelope.payloadType} ${payload.length} `), payload]);
  const key = crypto.createPublicKey({ key: der, format: 'der', type: 'spki' });
  assert.ok(crypto.verify('sha256', pae, key, Buffer.from(envelope.signatures[0].sig, 'base64')), 'the receipt is signed');
  assert.equal(statement.subject.length, files);
  assert.equal(statement.predicate.files.length, files);
  assert.equal(statement.predicate.client.id, manifest.clientId);
}

// What a file adds up to.

const table = Array.from({ length: 256 }, (_, i) => {
  let crc = i << 24;
  for (let bit = 0; bit < 8; bit++) crc = crc < 0 ? (crc << 1) ^ 0x04c11db7 : crc << 1;
  return crc;
});

function cksum(b) {
  let crc = 0;
  const add = (byte) => { crc = (crc << 8) ^ table[(crc >>> 24) ^ byte]; };
  for (const byte of b) add(byte);
  for (let n = b.length; n > 0; n = Math.floor(n / 256)) add(n & 255);
  return ~crc >>> 0;
}

const sumOf = (b) => ({ cksum: cksum(b), sha256: crypto.createHash('sha256').update(b).digest('hex') });

// A Session keeps to what the page says about the order of things, as far as
// bytes depend on it.
class Session {
  constructor() { this.files = new Map(); this.offers = new Map(); }

  note(from, code, number, payload, says) {
    switch (code) {
      case 830:
        this.offers.set(number, says);
        break;
      case 1611:
        this.current = number;
        // What was kept is the content that all files of the vectors have.
        this.files.set(number, Buffer.from(Array.from({ length: Number(says.bytes) }, (_, i) => (i * 7 + Math.floor(i / 251)) & 255)));
        break;
      case 828:
        if (this.current === undefined) return; // a violation, which is what that vector is about
        assert.equal(number, String(this.files.get(this.current).length), 'a packet begins where the one before it ended');
        assert.ok(payload.length >= 1 && payload.length <= this.packet, 'a packet has 1 to as many bytes as were agreed on');
        this.files.set(this.current, Buffer.concat([this.files.get(this.current), payload]));
        break;
      case 901:
        this.current = number;
        this.files.set(number, Buffer.alloc(0));
        break;
      case 831:
        this.ended = { number, says };
        break;
      case 832: {
        const content = bytes(says.content);
        assert.equal(String(content.length), says.size);
        this.files.set(number, content);
        this.ended = { number, says: says.sum };
        this.offers.set(number, says);
        break;
      }
      case 1603: {
        // Of what was sent here, what is stored adds up to what the client said.
        for (const n of says.numbers) {
          const sent = this.files.get(n);
          if (sent && this.offers.get(n).size === String(sent.length) && this.offers.get(n).known) {
            assert.deepEqual(sumOf(sent), this.offers.get(n).sum);
          }
        }
        break;
      }
      case 1608: {
        const sent = this.files.get(number);
        assert.deepEqual(says, { size: String(sent.length), sum: sumOf(sent) });
        assert.notDeepEqual(says.sum, this.ended.says);
        break;
      }
      case 1610:
        this.packet = says.packet;
        break;
      case 826:
        assert.deepEqual(publicOf('client.pem'), bytes(says.key));
        break;
    }
  }
}

function publicOf(pem) {
  return crypto.createPublicKey(file(pem)).export({ format: 'der', type: 'spki' });
}

// checkRotate wants a signature by the new key, for this connection or not.
function checkRotate(says, exporter, good) {
  const key = bytes(says.key);
  assert.deepEqual(publicOf('next.pem'), key);
  const context = Buffer.concat([Buffer.from('ferry/4 new key\0'), exporter, bytes(manifest.clientId), key]);
  const signed = crypto.verify('sha256', context, crypto.createPublicKey({ key, format: 'der', type: 'spki' }), bytes(says.signature));
  assert.equal(signed, good, 'the signature of the new key');
}

// split takes the next message off a side.
function split(side) {
  const header = side.said.subarray(0, 16);
  assert.equal(header.length, 16);
  assert.equal(header.readUInt16LE(2), 0);
  const length = header.readUInt32LE(4);
  const body = side.said.subarray(16, 16 + length);
  assert.equal(body.length, length, 'the message is whole');
  side.said = side.said.subarray(16 + length);
  return { code: header.readUInt16LE(0), number: header.readBigUInt64LE(8).toString(), header, body };
}

function readConversation(c) {
  const exporter = bytes(manifest.exporter);
  const sides = {};
  for (const [from, way] of [['client', 'c2s'], ['server', 's2c']]) {
    sides[from] = { said: file(`${c.name}.${way}.bin`), count: 0n };
  }
  const session = new Session();
  for (const [i, want] of c.messages.entries()) {
    const side = sides[want.from];
    const { code, number, header, body } = split(side);
    assert.equal(code, want.code);
    assert.equal(number, want.number);
    let payload = body;
    if (want.sealed) {
      assert.ok(side.key, 'there are keys before a message is sealed');
      if (want.opens === false) {
        assert.throws(() => open(side.key, side.count, header, body), 'it does not open');
        const others = keys(session.secret, bytes(c.exporter), bytes(manifest.clientId));
        payload = open(others.client, side.count, header, body);
      } else {
        payload = open(side.key, side.count, header, body);
      }
      side.count++;
    } else {
      assert.ok(body.length <= 4096, 'payloads before the keys are short');
    }
    assert.equal(payload.toString('hex'), want.payload ?? '', `${c.name}: payload of message ${i}`);
    const r = new Reader(payload);
    assert.ok(payloads[code], `${code} exists`);
    const says = payloads[code](r);
    assert.equal(r.at, payload.length, 'bytes are left over');
    assert.deepEqual(says, want.says, `${c.name}: fields of message ${i}`);
    if (code === 1602 || code === 1605) {
      const next = c.name === 'rotate-reconnect';
      session.secret = unwrap(file(next ? 'next.pem' : 'client.pem'), bytes(says.secret));
      const both = keys(session.secret, exporter, bytes(says.id));
      sides.client.key = both.client;
      sides.server.key = both.server;
    }
    if (code === 833) checkRotate(says, exporter, c.name === 'rotate');
    session.note(want.from, code, number, payload, says);
  }
  for (const [from, side] of Object.entries(sides)) {
    assert.equal(side.said.length, 0, `${c.name}: the ${from} says more`);
  }
}

function readEpochs(first) {
  for (const e of manifest.epochs) {
    let key = first;
    for (let n = 0n; n < BigInt(e.count) / (1n << 24n); n++) key = nextKey(key);
    assert.equal(key.toString('hex'), e.key, `the key of message ${e.count}`);
    const { number, header, body } = split({ said: bytes(e.message) });
    assert.equal(number, e.count);
    assert.equal(open(key, BigInt(e.count), header, body).toString('hex'), e.payload);
  }
}

// The keys, first by themselves.
for (const [pem, wrap, hex] of [['client.pem', 'wrapped.bin', manifest.wrapped], ['next.pem', 'wrapped-next.bin', manifest.wrappedNext]]) {
  assert.equal(file(wrap).toString('hex'), hex);
  assert.equal(unwrap(file(pem), file(wrap)).toString('hex'), manifest.secret);
}
const made = keys(bytes(manifest.secret), bytes(manifest.exporter), bytes(manifest.clientId));
assert.equal(made.client.toString('hex'), manifest.toServer);
assert.equal(made.server.toString('hex'), manifest.toClient);
readEpochs(made.client);

assert.ok(manifest.conversations.length > 0);
let messages = 0;
for (const c of manifest.conversations) {
  try {
    readConversation(c);
  } catch (err) {
    throw new Error(`${c.name}: ${err.message}`, { cause: err });
  }
  messages += c.messages.length;
}
console.log(`${manifest.conversations.length} conversations, ${messages} messages and ${manifest.epochs.length} epochs are what the manifest says`);
