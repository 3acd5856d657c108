// A grid of rows of which only those in view exist: 10,000 nodes cost as much as 50.

import { evOut, h, icon, leave, nodeHref, now, straight, turn } from './ui.js';
import { COLUMNS, isAway } from './columns.js';

const HEAD = 30;

export class Grid {
  /// `list` gives rows by place; `open` is called with a row; `view` remembers the place.
  constructor(view, open) {
    Object.assign(this, { view, open, list: null, pool: [], first: -1, raf: 0, idle: 0 });
    this.phone = matchMedia('(max-width:700px)');
    this.height = this.phone.matches ? 56 : 28;
    this.sort = () => {};
    const head = h('div.gr.hd', { role: 'row', 'aria-rowindex': 1 }, COLUMNS.map((c) => {
      const arrow = h('span.ar', { 'aria-hidden': 'true' });
      const button = h('button', { type: 'button', tabindex: -1, onclick: () => this.sort(c.key) }, c.num ? [arrow, c.title] : [c.title, arrow]);
      return h('div.c-' + c.key + (c.num ? '.num' : ''), { role: 'columnheader', 'data-k': c.key }, button);
    }));
    this.head = head;
    this.rows = h('div.rows', { role: 'rowgroup' });
    this.el = h('div.grid', { role: 'grid', tabindex: 0, 'aria-label': 'Nodes', 'aria-colcount': COLUMNS.length },
      h('div.hdg', { role: 'rowgroup' }, head), this.rows);
    this.el.addEventListener('scroll', () => {
      view.top = this.el.scrollTop;
      this.raf ||= requestAnimationFrame(() => { this.raf = 0; this.draw(); });
    }, { passive: true });
    this.rows.addEventListener('click', (e) => this.click(e));
    this.rows.addEventListener('dblclick', (e) => { const r = this.of(e); if (r?.row) this.open(r.row); });
    const known = () => this.draw(true);
    addEventListener('site', known);
    leave(() => removeEventListener('site', known));
    const resize = new ResizeObserver(() => this.resize());
    resize.observe(this.el);
    leave(() => { resize.disconnect(); clearTimeout(this.idle); cancelAnimationFrame(this.raf); });
  }

  get total() { return this.list?.total ?? 0; }

  of(e) { const el = e.target.closest('.row'); return el && this.pool.find((r) => r.el === el); }

  click(e) {
    const r = this.of(e);
    if (!r?.row || e.target.closest('a')) return;
    if (this.phone.matches) { this.open(r.row); return; }
    this.select(r.i, Math.max(0, r.cells.indexOf(e.target.closest('[role=gridcell]'))));
  }

  resize() {
    const height = this.phone.matches ? 56 : 28;
    if (height !== this.height) { this.height = height; for (const r of this.pool) r.i = -1; this.layout(); }
    this.draw(true);
  }

  make() {
    const cells = COLUMNS.map((c) => h('div.c-' + c.key + (c.num ? '.num' : ''), { role: 'gridcell' }));
    const r = { el: h('div.gr.row', { role: 'row' }, cells), cells, i: -1, row: null, icon: icon('up'), link: h('a', { tabindex: -1 }) };
    r.texts = cells.map(() => document.createTextNode(''));
    cells.forEach((cell, k) => {
      if (k === 0) cell.append(h('span.st', null, r.icon, h('b', null, r.texts[0])));
      else if (k === 1) { r.link.append(r.texts[1]); cell.append(r.link); cell.classList.add('nm'); } else cell.append(r.texts[k]);
    });
    return r;
  }

  fill(r, i, at) {
    const row = this.list.row(i);
    if (r.i !== i) {
      r.i = i;
      r.el.style.transform = `translateY(${i * this.height}px)`;
      r.el.setAttribute('aria-rowindex', i + 2);
      r.el.id = 'r' + i;
    }
    r.row = row;
    r.el.classList.toggle('outline', !row);
    r.el.setAttribute('aria-busy', String(!row));
    const isSelected = String(i === this.view.sel);
    if (r.el.getAttribute('aria-selected') !== isSelected) r.el.setAttribute('aria-selected', isSelected);
    const state = row ? (row.gone ? 'gone' : row.standing) : '';
    if (r.state !== state) { r.state = state; if (row) turn(r.icon, state); r.el.classList.toggle('gone', state === 'gone'); }
    if (row && r.name !== row.name) { r.name = row.name; r.link.setAttribute('href', nodeHref(row.name)); }
    COLUMNS.forEach((c, k) => {
      const text = row ? c.text(row, at) : '';
      if (r.texts[k].data !== text) r.texts[k].data = text;
      const list = r.cells[k].classList;
      if (c.late) list.toggle('off', !!row && !row.gone && c.late(row, at));
      else if (c.key === 'gpus' || c.key === 'jobs') list.toggle('mu', !!row && isAway(row));
    });
  }

  /// Titles are written when the scroll rests.
  titles() {
    const at = now();
    for (const r of this.pool) if (r.i >= 0 && r.row) COLUMNS.forEach((c, k) => { r.cells[k].title = straight(c.ev(r.row, at)); });
  }

  draw(force) {
    if (!this.list) return;
    const room = this.el.clientHeight;
    const top = Math.max(0, Math.floor((this.el.scrollTop - HEAD) / this.height) - 4);
    const seen = Math.ceil(room / this.height) + 9;
    while (this.pool.length < seen) { const r = this.make(); this.pool.push(r); this.rows.append(r.el); force = true; }
    if (!force && top === this.first) return;
    this.first = top;
    const [size, end, at] = [this.pool.length, Math.min(this.total, top + this.pool.length), now()];
    this.list.look(top, Math.max(top, end - 1));
    const used = new Uint8Array(size);
    for (let i = top; i < end; i++) {
      const r = this.pool[i % size];
      used[i % size] = 1;
      if (force || r.i !== i) this.fill(r, i, at);
      if (r.el.hidden) r.el.hidden = false;
    }
    for (let k = 0; k < size; k++) if (!used[k]) { const r = this.pool[k]; r.el.hidden = true; r.i = -1; r.row = null; r.el.removeAttribute('id'); }
    clearTimeout(this.idle);
    this.idle = setTimeout(() => this.titles(), 100);
  }

  layout() {
    const n = this.total;
    this.rows.style.height = n * this.height + 'px';
    this.el.setAttribute('aria-rowcount', n + 1);
    this.view.sel = Math.min(this.view.sel, Math.max(0, n - 1));
    if (n) this.el.setAttribute('aria-activedescendant', 'r' + this.view.sel); else this.el.removeAttribute('aria-activedescendant');
  }

  /// Shows in the head by which column the list is sorted.
  sorted(key, dir) {
    for (const cell of this.head.children) {
      const on = cell.dataset.k === key;
      if (on) cell.setAttribute('aria-sort', dir === 'desc' ? 'descending' : 'ascending'); else cell.removeAttribute('aria-sort');
      cell.querySelector('.ar').textContent = on ? (dir === 'desc' ? '▼' : '▲') : '';
    }
  }

  select(i, cell) {
    if (!this.total) return;
    const view = this.view;
    view.sel = Math.max(0, Math.min(this.total - 1, i));
    if (cell != null) view.cell = Math.max(0, Math.min(COLUMNS.length - 1, cell));
    const y = view.sel * this.height, head = this.phone.matches ? 0 : HEAD, room = this.el.clientHeight - head;
    if (y < this.el.scrollTop) this.el.scrollTop = y;
    else if (y + this.height > this.el.scrollTop + room) this.el.scrollTop = y + this.height - room;
    this.draw(true);
    this.el.setAttribute('aria-activedescendant', 'r' + view.sel);
    for (const it of this.rows.querySelectorAll('.cur')) it.classList.remove('cur');
    const r = this.pool.find((it) => it.i === view.sel), c = COLUMNS[view.cell];
    if (!r?.row) { evOut.textContent = 'This row is being loaded.'; return; }
    r.cells[view.cell].classList.add('cur');
    evOut.textContent = straight(`${r.row.name} · ${c.title}: ${c.ev(r.row, now())}`);
  }

  key(k) {
    const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1, PageDown: 20, PageUp: -20, Home: -1e9, End: 1e9 }[k];
    if (step) { this.select(this.view.sel + step); return true; }
    if (k === 'h' || k === 'ArrowLeft') { this.select(this.view.sel, this.view.cell - 1); return true; }
    if (k === 'l' || k === 'ArrowRight') { this.select(this.view.sel, this.view.cell + 1); return true; }
    const row = this.list?.row(this.view.sel);
    if (k === 'Enter' && row) { this.open(row); return true; }
    return false;
  }
}
