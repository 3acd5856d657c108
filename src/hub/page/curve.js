// Keccak-256, EIP-712 digests of receipts, and whose a secp256k1 signature is: all that a receipt's check computes,
// with nothing but numbers. Compared with other programs' results in the tests.

const L64 = (1n << 64n) - 1n;
const rol = (x, n) => ((x << n) | (x >> (64n - n))) & L64;

function permute(s) {
  let r = 1;
  for (let round = 0; round < 24; round++) {
    const c = [0, 1, 2, 3, 4].map((x) => s[x] ^ s[x + 5] ^ s[x + 10] ^ s[x + 15] ^ s[x + 20]);
    for (let k = 0; k < 25; k++) s[k] ^= c[(k + 4) % 5] ^ rol(c[(k + 1) % 5], 1n);
    let x = 1, y = 0, current = s[1];
    for (let t = 0; t < 24; t++) {
      [x, y] = [y, (2 * x + 3 * y) % 5];
      const moved = rol(current, BigInt((t + 1) * (t + 2) / 2 % 64));
      current = s[x + 5 * y];
      s[x + 5 * y] = moved;
    }
    for (let row = 0; row < 25; row += 5) {
      const t = s.slice(row, row + 5);
      for (let k = 0; k < 5; k++) s[row + k] = t[k] ^ (~t[(k + 1) % 5] & L64 & t[(k + 2) % 5]);
    }
    for (let j = 0; j < 7; j++) {
      r = ((r << 1) ^ ((r >> 7) * 0x71)) % 256;
      if (r & 2) s[0] ^= 1n << BigInt(2 ** j - 1);
    }
  }
}

/// The Keccak-256 of these bytes, as bytes.
export function keccak(bytes) {
  const padded = new Uint8Array((Math.floor(bytes.length / 136) + 1) * 136), view = new DataView(padded.buffer);
  padded.set(bytes);
  padded[bytes.length] ^= 1;
  padded[padded.length - 1] ^= 0x80;
  const s = Array(25).fill(0n);
  for (let at = 0; at < padded.length; at += 136) {
    for (let k = 0; k < 17; k++) s[k] ^= view.getBigUint64(at + 8 * k, true);
    permute(s);
  }
  const out = new DataView(new ArrayBuffer(32));
  for (let k = 0; k < 4; k++) out.setBigUint64(8 * k, s[k], true);
  return new Uint8Array(out.buffer);
}

export const hex = (bytes) => '0x' + [...bytes].map((b) => b.toString(16).padStart(2, '0')).join('');
export function bytes(text) {
  if (!/^0x([0-9a-f]{2})*$/i.test(text)) throw new Error('it is not written in hex');
  return Uint8Array.from(text.slice(2).match(/../g) || [], (it) => parseInt(it, 16));
}
export const keccakText = (text) => keccak(new TextEncoder().encode(text));
/// A number as 32 bytes; a negative one as its complement.
export const word = (number) => bytes('0x' + BigInt.asUintN(256, BigInt(number)).toString(16).padStart(64, '0'));
export const join = (...parts) => Uint8Array.from(parts.flatMap((it) => [...it]));

// secp256k1: y² = x³ + 7 over P, with N points.
const P = 2n ** 256n - 2n ** 32n - 977n;
const N = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const G = [0x79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798n, 0x483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8n];
const mod = (x, m) => ((x % m) + m) % m;
function power(base, exponent, m) {
  let out = 1n;
  for (let b = mod(base, m), e = exponent; e > 0n; e >>= 1n, b = b * b % m) if (e & 1n) out = out * b % m;
  return out;
}
function inverse(x, m) {
  let [a, b, u, v] = [mod(x, m), m, 1n, 0n];
  while (a) { const q = b / a; [a, b, u, v] = [b - q * a, a, v - q * u, u]; }
  return mod(v, m);
}
function add(p, q) {
  if (!p) return q;
  if (!q) return p;
  if (p[0] === q[0] && mod(p[1] + q[1], P) === 0n) return null;
  const slope = p[0] === q[0] ? 3n * p[0] * p[0] * inverse(2n * p[1], P) : (q[1] - p[1]) * inverse(q[0] - p[0], P);
  const x = mod(slope * slope - p[0] - q[0], P);
  return [x, mod(slope * (p[0] - x) - p[1], P)];
}
function times(p, k) {
  let out = null;
  for (let q = p; k > 0n; k >>= 1n, q = add(q, q)) if (k & 1n) out = add(out, q);
  return out;
}

/// The address whose key signed this digest. As strict as the node: `v` 27 or 28, `s` in the lower half.
export function signer(digest, signature) {
  if (signature.length !== 65) throw new Error('a signature has 65 bytes');
  const number = (part) => BigInt(hex(part)), v = signature[64];
  const [z, r, s] = [number(digest), number(signature.slice(0, 32)), number(signature.slice(32, 64))];
  if (v !== 27 && v !== 28) throw new Error('its last byte is neither 27 nor 28');
  if (r === 0n || r >= N || s === 0n || s > N / 2n) throw new Error('its numbers are out of their range');
  const square = mod(r ** 3n + 7n, P);
  let y = power(square, (P + 1n) / 4n, P);
  if (y * y % P !== square) throw new Error('it names no point of the curve');
  if ((y & 1n) !== BigInt(v - 27)) y = P - y;
  const back = inverse(r, N), key = add(times([r, y], mod(s * back, N)), times(G, mod(-z * back, N)));
  if (!key) throw new Error('it names no key');
  return hex(keccak(join(word(key[0]), word(key[1]))).slice(12));
}

// The receipt, as docs/protocol.md has it.
export const MEMBERS = [['jobId', 'string'], ['node', 'address'], ['specHash', 'bytes32'], ['imageDigest', 'string'], ['gpuUuids', 'string'], ['inputCid', 'string'], ['outputCid', 'string'], ['exitCode', 'int32'], ['startedAt', 'uint64'], ['finishedAt', 'uint64']];
const DOMAIN = [['name', 'string'], ['version', 'string'], ['chainId', 'uint256'], ['verifyingContract', 'address']];
const FITS = {
  string: (it) => typeof it === 'string',
  address: (it) => /^0x[0-9a-f]{40}$/i.test(it),
  bytes32: (it) => /^0x[0-9a-f]{64}$/i.test(it),
  int32: (it) => Number.isInteger(it) && Math.abs(it) <= 2 ** 31,
  uint64: (it) => Number.isSafeInteger(it) && it >= 0,
  uint256: (it) => Number.isSafeInteger(it) && it >= 0,
};
const named = (members) => JSON.stringify(members.map(([name, type]) => ({ name, type })));
const typed = (types) => JSON.stringify((Array.isArray(types) ? types : []).map(({ name, type }) => ({ name, type })));
const isExactly = (value, members) => value && typeof value === 'object' && Object.keys(value).length === members.length && members.every(([name, type]) => FITS[type](value[name]));

/// What is wrong with the form of a receipt's document; `null` if nothing is.
export function fault(document) {
  const { types, primaryType, domain, message, signature } = document && typeof document === 'object' ? document : {};
  if (primaryType !== 'Receipt' || Object.keys(types || {}).length !== 2) return 'it is no EIP-712 document of a `Receipt`';
  if (typed(types.Receipt) !== named(MEMBERS) || typed(types.EIP712Domain) !== named(DOMAIN)) return 'its types are not those of this protocol';
  if (!isExactly(domain, DOMAIN) || domain.name !== 'LamdaNode' || domain.version !== '1') return 'its domain is not that of this protocol';
  if (!isExactly(message, MEMBERS)) return 'its message has not exactly the members of a receipt';
  return /^0x[0-9a-f]{130}$/i.test(signature) ? null : 'it has no signature of 65 bytes';
}

const encoded = (value, type) => type === 'string' ? keccakText(value) : type === 'bytes32' ? bytes(value) : word(value);
function hash(name, members, value) {
  const kind = keccakText(`${name}(${members.map(([it, type]) => `${type} ${it}`).join(',')})`);
  return keccak(join(kind, ...members.map(([it, type]) => encoded(value[it], type))));
}
/// The EIP-712 digest of a receipt whose form is right.
export const digestOf = ({ domain, message }) => keccak(join([0x19, 1], hash('EIP712Domain', DOMAIN, domain), hash('Receipt', MEMBERS, message)));

// The tree of receipts, in hex of lower case.
export const leafOf = (digest) => hex(keccak(digest));
export const pair = (a, b) => hex(keccak(a < b ? join(bytes(a), bytes(b)) : join(bytes(b), bytes(a))));
/// The path of the leaf at `at` up to the root, and the root. Pairs are hashed by `of`.
export async function pathOf(leaves, at, of = pair) {
  const path = [];
  for (; leaves.length > 1; at >>= 1) {
    if (leaves[at ^ 1]) path.push(leaves[at ^ 1]);
    const above = [];
    for (let k = 0; k < leaves.length; k += 2) above.push(k + 1 < leaves.length ? await of(leaves[k], leaves[k + 1]) : leaves[k]);
    leaves = above;
  }
  return { path, root: leaves[0] };
}
