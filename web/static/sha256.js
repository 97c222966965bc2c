// SHA-256 (FIPS 180-4) of bytes that come piece by piece: crypto.subtle wants
// all of them at once, and is missing on plain http.

const block = 64;

/** The first 32 bits of the fractional parts of a root of the first primes. */
const [initial, rounds] = constants();

function constants() {
  /** @type {number[]} */
  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p !== 0)) primes.push(n);
  const fraction = (/** @type {number} */ x) => ((x - Math.floor(x)) * 2 ** 32) | 0;
  return [Int32Array.from(primes.slice(0, 8), (p) => fraction(Math.sqrt(p))), Int32Array.from(primes, (p) => fraction(Math.cbrt(p)))];
}

export class SHA256 {
  #state = initial.slice();
  #schedule = new Int32Array(64);
  /** What is not a whole block yet. */
  #rest = new Uint8Array(block);
  #length = 0;

  /** @param {Uint8Array} bytes */
  update(bytes) {
    let at = 0;
    const held = this.#length % block;
    this.#length += bytes.length;
    if (held > 0) {
      at = Math.min(block - held, bytes.length);
      this.#rest.set(bytes.subarray(0, at), held);
      if (held + at < block) return;
      this.#compress(this.#rest, 0, block);
    }
    const whole = bytes.length - ((bytes.length - at) % block);
    this.#compress(bytes, at, whole);
    this.#rest.set(bytes.subarray(whole));
  }

  /** What it is of, in hexadecimal digits; nothing may be added after. */
  digest() {
    const bits = this.#length * 8;
    const padding = new Uint8Array(block - ((this.#length + 8) % block) + 8);
    padding[0] = 0x80;
    const view = new DataView(padding.buffer);
    view.setUint32(padding.length - 8, Math.floor(bits / 2 ** 32));
    view.setUint32(padding.length - 4, bits >>> 0);
    this.update(padding);
    return Array.from(this.#state, (word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
  }

  /**
   * @param {Uint8Array} bytes
   * @param {number} from
   * @param {number} to whole blocks after from
   */
  #compress(bytes, from, to) {
    const state = this.#state;
    const w = this.#schedule;
    const k = rounds;
    for (; from < to; from += block) {
      for (let i = 0, at = from; i < 16; i++, at += 4) w[i] = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
      for (let i = 16; i < 64; i++) {
        const x = w[i - 15];
        const y = w[i - 2];
        const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
        const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
        w[i] = (w[i - 16] + s0 + w[i - 7] + s1) | 0;
      }
      let a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
      for (let i = 0; i < 64; i++) {
        const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
        const t1 = (h + s1 + (g ^ (e & (f ^ g))) + k[i] + w[i]) | 0;
        const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
        const t2 = (s0 + ((a & b) | (c & (a | b)))) | 0;
        h = g;
        g = f;
        f = e;
        e = (d + t1) | 0;
        d = c;
        c = b;
        b = a;
        a = (t1 + t2) | 0;
      }
      state[0] += a;
      state[1] += b;
      state[2] += c;
      state[3] += d;
      state[4] += e;
      state[5] += f;
      state[6] += g;
      state[7] += h;
    }
  }
}
