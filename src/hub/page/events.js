// Events of all nodes, as they come, and those before them.

import { ago, ask, badge, failed, h, hints, hms, iso, jobLink, keys, leave, loading, main, n0, nodeHref, short, title } from './ui.js';
import { on } from './live.js';

const LEVELS = ['debug', 'info', 'warning', 'error', 'critical'];
const SHOWN_MAX = 600;
const state = { levels: new Set(['info', 'warning', 'error', 'critical']), q: '' };

const kind = (body) => body && body.component ? `${body.component}.${body.event_type}` : '–';
const message = (body) => typeof body === 'string' ? body : String(body?.message ?? '');
const proof = (e) => `${e.seq == null ? 'event ' + n0(e.id) : 'EVENTS seq ' + n0(e.seq)} · ${iso(e.at)}`;

/// A table of events of one node.
export function eventTable(rows, names, isOfOne) {
  return h('div.tw', { tabindex: 0, role: 'group', 'aria-label': 'Events, table' }, h('table.evt', null,
    h('thead', null, h('tr', null, ['When', 'Level', 'Kind', 'What'].map((text) => h('th', { scope: 'col' }, text)))),
    h('tbody', null, rows.map((e) => h('tr', null, h('td', null, ago(e.at, proof(e))), h('td', null, badge(e.level)), h('td.m.mu', null, kind(e.body)), h('td.wrap', { ev: proof(e) }, message(e.body), e.job && [' ', jobLink(isOfOne ? e.node : names[e.node] || e.node, e.job)]))))));
}

export function eventsPage(search) {
  title('Events');
  hints('j', 'k', '↵', '/');
  const node = new URLSearchParams(search).get('node') || '';
  let all = [], names = {}, next = null, paused = false, held = 0, error = null, loaded = false, busy = false;
  const abort = new AbortController();
  leave(() => abort.abort());

  const nameOf = (e) => names[e.node] || e.node;
  const fits = (e) => state.levels.has(e.level) && (!state.q || `${nameOf(e)} ${kind(e.body)} ${message(e.body)} ${e.job || ''}`.toLowerCase().includes(state.q));
  const row = (e) => h('tr', { tabindex: -1, 'data-go': nodeHref(nameOf(e)) },
    h('td.m.mu', { title: iso(e.at) }, hms(e.at), h('span.ms', null, iso(e.at).slice(19, 23))), h('td', null, badge(e.level)),
    h('td.d3', null, h('a', { href: nodeHref(nameOf(e)), title: nameOf(e) }, short(nameOf(e), 14, 6))), h('td.d4.m.mu', { title: kind(e.body) }, kind(e.body)),
    h('td.wt', { ev: `${message(e.body)} · ${proof(e)}`, 'data-n': nameOf(e) }, message(e.body), e.job && [' ', jobLink(nameOf(e), e.job)]),
    h('td.d6.m.mu', { ev: proof(e) }, e.seq == null ? 'event ' + n0(e.id) : 'seq ' + n0(e.seq)));
  const body = h('tbody');
  const note = h('div.none', { hidden: true });
  const older = h('button', { type: 'button', onclick: () => load() }, 'Older events');
  const heads = ['Time', 'Level', 'Node', 'Kind', 'What', 'Evidence'];
  const wrap = h('div.evl', { tabindex: 0, role: 'region', 'aria-label': 'Events' }, h('table', null, h('thead', null, h('tr', null, heads.map((text, k) => h('th.c' + (k + 1), { scope: 'col' }, text)))), body), note, h('p.older', null, older));
  const pause = h('button', { type: 'button', onclick: () => { stop(!paused); if (!paused) { wrap.scrollTop = 0; fill(); } } });
  const stop = (on) => { paused = on; if (!on) held = 0; pause.textContent = paused ? `Go on${held ? `, ${n0(held)} new` : ''}` : 'Pause'; };
  const find = h('input', { type: 'search', 'aria-label': 'Filter events', placeholder: 'Filter: node, kind, text', value: state.q, oninput: () => { state.q = find.value.toLowerCase().trim(); fill(); } });
  const chips = h('div.chips', { role: 'group', 'aria-label': 'Levels' }, LEVELS.map((level) => h('button.chip', { type: 'button', 'aria-pressed': String(state.levels.has(level)), onclick: (e) => {
    state.levels.has(level) ? state.levels.delete(level) : state.levels.add(level);
    e.currentTarget.setAttribute('aria-pressed', String(state.levels.has(level)));
    renew();
  } }, badge(level))));
  main.replaceChildren(h('div.evs', null, h('div.bar', null, h('h1', null, node ? 'Events of ' + node : 'Events'), chips, h('span.sp'), pause, h('div.find', null, find, h('kbd', { 'aria-hidden': 'true' }, '/'))), wrap));
  stop(false);

  function fill() {
    const fitting = all.filter(fits);
    body.replaceChildren(...fitting.slice(0, SHOWN_MAX).map(row));
    const what = error ? failed(error, () => load()) : !loaded ? loading('events') : fitting.length ? null
      : h('p', null, all.length ? 'No event that is here matches.' : 'The hub has heard no such event yet.');
    note.hidden = !what;
    note.replaceChildren(...(what ? [what] : []));
    older.hidden = next == null || !!error;
  }
  async function load() {
    if (busy) return;
    busy = true;
    try {
      const answer = await ask('/api/events', { before: next, node, level: [...state.levels].join(',') || 'none' }, abort.signal);
      all = [...all, ...answer.rows];
      Object.assign(names, answer.names);
      next = answer.next;
      error = null;
    } catch (err) { if (err.name === 'AbortError') return; error = err; } finally { busy = false; }
    loaded = true;
    fill();
  }
  function renew() { all = []; next = null; loaded = false; fill(); load(); }

  wrap.addEventListener('scroll', () => { if (!paused && wrap.scrollTop > 60) stop(true); }, { passive: true });
  leave(on('events', ({ events }) => {
    for (const e of events) {
      if (node && nameOf(e) !== node && e.node !== node) continue;
      if (all.length && all[0].id >= e.id) continue;
      all.unshift(e);
      if (!fits(e)) continue;
      if (paused) { held++; stop(true); } else { body.prepend(row(e)); note.hidden = true; }
    }
    if (!paused) { all.length = Math.min(all.length, 5 * SHOWN_MAX); while (body.childElementCount > SHOWN_MAX) body.lastChild.remove(); }
  }));
  leave(on('snapshot', (said) => { if (loaded && !said.hello && !paused) renew(); }));
  keys.page = (k) => {
    const rows = [...body.children], at = rows.indexOf(document.activeElement);
    if (k === 'j' || k === 'k') { if (!paused) stop(true); rows[Math.max(0, Math.min(rows.length - 1, at + (k === 'j' ? 1 : -1)))]?.focus(); return true; }
    if (k === 'Enter' && at >= 0) { location.hash = rows[at].dataset.go; return true; }
    if (k === '/') { find.focus(); find.select(); return true; }
    if (k === 'Escape' && state.q) { state.q = find.value = ''; fill(); return true; }
    return false;
  };
  fill();
  load();
}
