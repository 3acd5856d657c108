// The fleet: all nodes, sorted and filtered by the server, each value live in its cell.

import { STANDINGS, failed, h, hints, icon, keys, leave, loading, main, n0, nodeHref, title, word } from './ui.js';
import { COLUMNS, column } from './columns.js';
import { Grid } from './grid.js';
import { List } from './list.js';
import { on } from './live.js';

/// Where somebody was in the list, also while another page is open.
export const view = { q: '', standing: '', tags: new Set(), sort: 'standing', dir: 'asc', sel: 0, cell: 0, top: 0, list: null };

function address() {
  const query = new URLSearchParams();
  if (view.sort !== 'standing' || view.dir !== 'asc') { query.set('sort', view.sort); query.set('dir', view.dir); }
  if (view.q) query.set('q', view.q);
  if (view.standing) query.set('standing', view.standing);
  if (view.tags.size) query.set('tag', [...view.tags].join(','));
  const text = query.toString();
  return '#/fleet' + (text ? '?' + text : '');
}

/// Takes filter and order from the address; whether they are others than before.
function read(query) {
  const wanted = new URLSearchParams(query);
  const before = address();
  view.sort = column(wanted.get('sort')).key;
  view.dir = wanted.get('dir') === 'desc' ? 'desc' : 'asc';
  view.q = (wanted.get('q') || '').slice(0, 200);
  view.standing = STANDINGS.includes(wanted.get('standing')) ? wanted.get('standing') : '';
  view.tags = new Set((wanted.get('tag') || '').split(',').filter(Boolean).slice(0, 16));
  return address() !== before;
}

const query = () => ({ sort: view.sort, dir: view.dir, q: view.q.trim(), standing: view.standing, tag: [...view.tags].join(',') });
const isFiltered = () => view.q.trim() || view.standing || view.tags.size;

/// The list that node pages go through with j and k.
export const neighbour = (name, step) => {
  const i = view.list?.place(name);
  const row = i == null ? null : view.list.row(i + step);
  if (row) view.sel = i + step;
  return row?.name;
};
export const placeOf = (name) => {
  const i = view.list?.place(name);
  return i == null ? null : `${n0(i + 1)} of ${n0(view.list.total)}`;
};

export function fleetPage(search) {
  title('Fleet');
  hints('j', 'k', '↵', '/');
  if (read(search) && view.list) { view.list.close(); view.list = null; view.top = view.sel = 0; }

  const grid = new Grid(view, (row) => { location.hash = nodeHref(row.name); });
  const part = h('div.part');
  const shown = h('span.mu.cnt', { role: 'status' });
  const again = h('button.again', { type: 'button', hidden: true, onclick: () => renew() });
  const find = h('input', { type: 'search', 'aria-label': 'Filter nodes', placeholder: 'Filter: name, address, tag:eu, state:down', value: view.q, maxlength: 200, spellcheck: 'false', autocomplete: 'off' });
  const chips = h('div.chips', { role: 'group', 'aria-label': 'Filter by state' });
  const tags = h('div.tags', { role: 'group', 'aria-label': 'Filter by tag', hidden: true });
  const sorts = h('select.sortsel', { 'aria-label': 'Sort by', onchange: () => sortBy(sorts.value, column(sorts.value).down ? 'desc' : 'asc') },
    COLUMNS.map((c) => h('option', { value: c.key, selected: c.key === view.sort }, c.key === 'standing' ? 'Trouble first' : c.title)));
  main.replaceChildren(h('div.fleet', null,
    h('div.bar', null, h('h1', null, 'Fleet'), chips, h('span.sp'), again, shown, sorts, h('div.find', null, find, h('kbd', { 'aria-hidden': 'true' }, '/'))),
    tags, part));

  let typing = 0;
  find.addEventListener('input', () => { view.q = find.value; clearTimeout(typing); typing = setTimeout(renew, 120); });
  find.addEventListener('keydown', (e) => { if (e.key === 'Enter' || e.key === 'ArrowDown') { e.preventDefault(); clearTimeout(typing); if (view.list?.q !== find.value) renew(); grid.el.focus(); } });
  leave(() => clearTimeout(typing));

  const chip = (standing) => h('button.chip', { type: 'button', 'data-s': standing, onclick: () => { view.standing = view.standing === standing ? '' : standing; renew(); } }, icon(standing), h('span'));
  const states = ['up', 'down', 'zombie', 'not_watched', 'clash'];
  chips.append(...states.map(chip));

  function counted() {
    const counts = view.list?.counts;
    states.forEach((s, k) => {
      const b = chips.children[k], of = s === 'up' ? ` of ${counts ? n0(counts.total) : '–'} up` : ' ' + word(s);
      b.setAttribute('aria-pressed', String(view.standing === s));
      b.lastChild.replaceChildren(h('b', null, counts ? n0(counts[s]) : '–'), of);
    });
    const n = view.list?.stirred.size || 0;
    again.hidden = !n;
    again.textContent = n ? `Sort again, ${n0(n)} changed` : '';
    const known = view.list?.tags || [], names = known.map(([tag]) => tag);
    for (const tag of view.tags) if (!names.includes(tag)) known.push([tag, 0]);
    const key = known.map(([tag]) => tag).join() + '|' + [...view.tags].join();
    if (tags.dataset.key === key) return;
    tags.dataset.key = key;
    tags.hidden = !known.length;
    tags.replaceChildren(h('span', null, 'Tags'), ...known.map(([tag, count]) => h('button.chip', { type: 'button', title: `${n0(count)} nodes`, 'aria-pressed': String(view.tags.has(tag)), onclick: () => { view.tags.has(tag) ? view.tags.delete(tag) : view.tags.add(tag); renew(); } }, tag)));
  }

  /// Shows the grid, or why there is none.
  function changed() {
    const list = view.list;
    grid.list = list;
    let other = null;
    if (list.error && list.total == null) other = failed(list.error, renew);
    else if (list.total == null) other = loading('nodes');
    else if (!list.total) other = nothing();
    if (other) { if (part.dataset.state !== other.className) part.replaceChildren(h('div.none', null, other)); } else if (part.firstChild !== grid.el) part.replaceChildren(grid.el);
    part.dataset.state = other ? other.className : '';
    shown.textContent = list.total != null && isFiltered() ? n0(list.total) + ' shown' : '';
    grid.layout();
    frame ||= requestAnimationFrame(() => { frame = 0; grid.draw(true); });
    if (!painted && list.total != null) { painted = true; requestAnimationFrame(() => setTimeout(() => performance.mark('painted'))); }
  }
  let frame = 0;
  leave(() => cancelAnimationFrame(frame));

  function nothing() {
    if (isFiltered()) return h('p', null, 'No node matches. ', h('button', { type: 'button', onclick: clear }, 'Show all ' + n0(view.list.counts?.total || 0)));
    return h('p', null, 'No node has been heard yet. An agent that posts to ', h('code', null, '/api/heartbeat'), ' appears here with its first beat.');
  }
  function clear() {
    Object.assign(view, { q: '', standing: '' });
    view.tags.clear();
    find.value = '';
    renew();
    grid.el.focus();
  }

  /// Asks for the list anew, from its top. The old rows stay until the new ones come.
  function renew() {
    view.list?.close();
    view.top = view.sel = 0;
    history.replaceState(null, '', address());
    grid.sorted(view.sort, view.dir);
    sorts.value = view.sort;
    for (const b of chips.children) b.setAttribute('aria-pressed', String(view.standing === b.dataset.s));
    const old = view.list;
    const list = new List(query(), () => { if (view.list !== list) return; if (grid.list !== list) grid.el.scrollTop = 0; changed(); }, () => { if (view.list === list) counted(); });
    list.q = view.q;
    if (old) { list.counts = old.counts; list.tags = old.tags; }
    view.list = list;
    if (old?.total == null || !grid.el.isConnected) changed();
  }
  function sortBy(key, dir) {
    const first = column(key).down ? 'desc' : 'asc';
    view.dir = dir || (view.sort === key ? (view.dir === 'asc' ? 'desc' : 'asc') : first);
    view.sort = key;
    renew();
  }
  grid.sort = sortBy;

  keys.page = (k) => {
    if (k === '/') { find.focus(); find.select(); return true; }
    if (k === 'Escape' && isFiltered()) { clear(); return true; }
    return grid.key(k);
  };

  leave(on('fleet', (body) => view.list?.change(body)));
  leave(on('snapshot', (body) => { if (view.list && !(body.hello && view.list.at >= body.at)) view.list.refresh(); }));
  const ticking = setInterval(() => { if (!document.hidden) grid.draw(true); }, 1000);
  leave(() => clearInterval(ticking));

  if (!view.list) renew();
  else {
    const top = view.top;
    Object.assign(view.list, { changed, counted });
    if (view.list.stale) { view.list.stale = false; view.list.refresh(); }
    grid.sorted(view.sort, view.dir);
    counted();
    changed();
    grid.draw(true);
    grid.el.scrollTop = top;
  }
  counted();
}
let painted = false;
/// Keeps the list current while another page is open.
on('fleet', (body) => { if (!location.hash.startsWith('#/fleet') && location.hash) view.list?.change(body); });
on('snapshot', () => { if (view.list) view.list.stale = true; });
