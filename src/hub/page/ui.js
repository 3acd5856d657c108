// What all pages share: making elements, saying times and figures, asking the hub.
// Text goes into text nodes and attributes alone, whoever wrote it.

export const $ = (selector, root = document) => root.querySelector(selector);
export const main = $('#main');
const NS = 'http://www.w3.org/2000/svg';

// Each state has a shape of its own, so that none rests on colour.
const SHAPE = {
  up: 'M6 1.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 0 0 0-9z',
  down: 'M2 3.4L3.4 2L6 4.6L8.6 2L10 3.4L7.4 6L10 8.6L8.6 10L6 7.4L3.4 10L2 8.6L4.6 6z',
  zombie: 'M6 1a5 5 0 1 0 0 10a5 5 0 0 0 0-10zM6 2.5a3.5 3.5 0 0 1 0 7z',
  not_watched: 'M6 1a5 5 0 1 0 0 10a5 5 0 0 0 0-10zM6 2.4a3.6 3.6 0 0 1 0 7.2a3.6 3.6 0 0 1 0-7.2z',
  clash: 'M4 2.2L7.2 6L4 9.8L.8 6zM8 2.2L11.2 6L8 9.8L6.6 8.1L8.4 6L6.6 3.9z',
  ok: 'M1.6 6.4L3 5L5 7L9.2 2.6L10.6 4L5 9.8z',
  warning: 'M6 1L11.6 10.8H.4zM5.4 4.6v3h1.2v-3zM5.4 8.4v1.2h1.2V8.4z',
  run: 'M3 1.6L10 6L3 10.4z',
  info: 'M5.2 2h1.6v1.6H5.2zM5.2 5h1.6v5H5.2z',
  debug: 'M5 5h2v2H5z',
  silenced: 'M1.5 5.2h9v1.6h-9z',
};
const ALIKE = {
  error: 'down', critical: 'down', failed: 'down', timed_out: 'down', rejected: 'down', refused: 'down',
  completed: 'ok', sent: 'ok', resolved: 'ok', folded: 'ok', cancelled: 'silenced', gone: 'silenced',
  processing: 'run', running: 'run', queued: 'run', sending: 'run', interrupted: 'warning',
  accepted: 'run', pulling: 'run', fetching: 'run', uploading: 'run',
};
export const word = (state) => String(state).replaceAll('_', ' ');
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
export const STANDINGS = ['clash', 'down', 'zombie', 'not_watched', 'up'];

/// Makes an element: `h('div.a.b', {title: 'x', onclick: f}, child, …)`. `ev` is evidence: a title, and what
/// the foot bar shows when it is chosen.
export function h(tag, props, ...kids) {
  const [name, ...classes] = tag.split('.');
  const element = document.createElement(name || 'div');
  if (classes.length) element.className = classes.join(' ');
  for (const key in props) {
    const value = props[key];
    if (value == null || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key === 'style') for (const name in value) element.style.setProperty(name, value[name]);
    else if (key === 'ev') evidence(element, value);
    else element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...kids.flat(9).filter((kid) => kid != null && kid !== false));
  return element;
}
export function evidence(element, text) { element.title = element.dataset.ev = straight(text); }
/// Text without the marks that turn the direction of what stands beside it. Where a text stands alone, it is shown
/// as it is, and kept to itself by the style sheet.
export const straight = (text) => String(text).replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, '\ufffd');

export function icon(state) {
  const svg = document.createElementNS(NS, 'svg');
  svg.setAttribute('viewBox', '0 0 12 12');
  svg.setAttribute('aria-hidden', 'true');
  svg.append(document.createElementNS(NS, 'path'));
  turn(svg, state);
  return svg;
}
/// Gives an icon the shape of another state.
export function turn(svg, state) {
  const shape = SHAPE[state] ? state : ALIKE[state] || 'info';
  svg.setAttribute('class', 'i s-' + shape);
  svg.firstChild.setAttribute('d', SHAPE[shape]);
}
export const badge = (state, text) => h('span.st', null, icon(state), h('b', null, text || word(state)));

// Figures and times. The hub's clock counts, not that of this machine.
const format = new Intl.NumberFormat('en-US');
export const n0 = (x) => format.format(Math.round(x));
let offset = 0;
export const setNow = (at) => { if (Number.isFinite(at)) offset = at - Date.now(); };
export const now = () => Date.now() + offset;
export function age(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  return s < 60 ? s + ' s' : s < 3600 ? Math.floor(s / 60) + ' min' : s < 172800 ? Math.floor(s / 3600) + ' h' : Math.floor(s / 86400) + ' d';
}
const two = (x) => String(Math.floor(x) % 60).padStart(2, '0');
export const span = (ms) => ms < 1000 ? Math.round(ms) + ' ms' : ms < 60000 ? (ms / 1000).toFixed(1) + ' s'
  : ms < 3600000 ? Math.floor(ms / 60000) + ' min ' + two(ms / 1000) + ' s' : n0(Math.floor(ms / 3600000)) + ' h ' + two(ms / 60000) + ' min';
export function iso(t) {
  const date = new Date(t);
  return Number.isNaN(date.getTime()) ? 'unknown' : date.toISOString();
}
export const hms = (t) => iso(t).slice(11, 19);
/// A time as its age, which goes on; the time itself is its title.
export function ago(t, ev) {
  if (t == null) return h('span.mu', null, '–');
  const element = h('time', { datetime: iso(t), ev: iso(t) + (ev ? ' · ' + ev : '') }, age(now() - t) + ' ago');
  element.dataset.t = t;
  return element;
}
setInterval(() => {
  const at = now();
  for (const element of document.querySelectorAll('time[data-t]')) {
    const text = age(at - element.dataset.t) + ' ago';
    if (element.textContent !== text) element.textContent = text;
  }
}, 1000);
export const gib = (mib) => mib == null ? '–' : (mib >= 10240 ? n0(mib / 1024) : (mib / 1024).toFixed(1)) + ' GiB';
export const short = (text, a = 8, b = 6) => text.length > a + b + 1 ? text.slice(0, a) + '…' + text.slice(-b) : text;
/// Text with `code` in it.
export const say = (text) => String(text).split('`').map((part, k) => k % 2 ? h('code', null, part) : part);
export const mono = (text, ev) => h('span.m', { ev: ev || text }, text.length > 40 ? short(text, 18, 8) : text);

// Addresses of pages.
export const nodeHref = (name) => '#/node/' + encodeURIComponent(name);
export const jobHref = (node, job) => '#/job/' + encodeURIComponent(node) + '/' + encodeURIComponent(job);
export const jobLink = (node, job) => h('a.a.m', { href: jobHref(node, job), title: job }, short(job, 20, 6));

// Asking the hub.
export class Refused extends Error {
  constructor(status, detail) { super(detail); this.status = status; }
}
export async function ask(path, params, signal) {
  const query = new URLSearchParams();
  for (const key in params) if (params[key] != null && params[key] !== '') query.set(key, params[key]);
  const text = query.toString();
  let answer;
  try {
    answer = await fetch(path + (text ? '?' + text : ''), { signal, headers: { accept: 'application/json' } });
  } catch (err) {
    if (err.name === 'AbortError') throw err;
    throw new Refused(0, 'The hub does not answer.');
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const detail = typeof body.detail === 'string' ? body.detail : 'The hub answered ' + answer.status + '.';
    throw new Refused(answer.status, detail);
  }
  if (body.at) setNow(body.at);
  return body;
}

// States of a part: loading, empty, failed.
export const loading = (what) => h('p.wait', { role: 'status' }, 'Loading ' + what + '…');
export const empty = (text) => h('p.mu.empty', null, text);
export function failed(err, again) {
  const login = err.status === 401;
  return h('div.say.bad', { role: 'alert' }, h('p', null, h('b', null, login ? 'This is shown to people who are logged in.' : err.message)),
    again && !login && h('p', null, h('button', { type: 'button', onclick: again }, 'Try again')));
}

// What the page at hand is to do when it is left, and with keys.
let leaving = [];
export const leave = (f) => leaving.push(f);
export function left() { for (const f of leaving.splice(0)) f(); keys.page = () => false; }
export const keys = { page: () => false };
export const evOut = $('#ev');
export const hints = (...names) => $('#hint').replaceChildren(...names.map((name) => h('kbd', null, name)));
export const title = (text) => { document.title = text ? straight(text) + ' · ' + site.title : site.title; };
/// What /api/site says; until it answers, the title of the page itself.
export const site = { title: document.title, version: '', public: 'full', logs: true, chain: null, patience: {} };

/// A table with a head, which scrolls sideways where there is no room.
export function table(label, heads, rows) {
  const head = (text) => h('th' + (text[0] === '>' ? '.num' : ''), { scope: 'col' }, text.replace(/^>/, ''));
  const cell = (kid, k) => h('td' + (heads[k][0] === '>' ? '.num' : ''), null, kid);
  return h('div.tw', { tabindex: 0, role: 'group', 'aria-label': label + ', table' }, h('table', null,
    h('thead', null, h('tr', null, heads.map(head))), h('tbody', null, rows.map((row) => h('tr', null, row.map(cell))))));
}
export const section = (id, name, note, ...kids) => h('section', { 'aria-labelledby': id },
  h('div.sh', null, h('h2', { id }, name), h('span.sp'), note && h('span.mu', null, note)), kids);
export const kv = (name, value) => h('div', null, h('dt', null, name), h('dd', null, value));
