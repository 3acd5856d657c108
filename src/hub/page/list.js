// The list of nodes as the server sorts and filters it: pages of 500, of which three are kept. A live change
// goes into its row; the order stays until somebody sorts or filters.

import { streamSince } from './live.js';
import { ask } from './ui.js';

export const PAGE = 500;
const KEPT = 3;

export class List {
  /// `changed` is called when rows came or changed; `counted` when the counts did.
  constructor(query, changed, counted) {
    Object.assign(this, { query, changed, counted, pages: new Map(), places: new Map(), total: null, counts: null, tags: [], error: null, at: 0, stirred: new Set() });
    this.abort = new AbortController();
    this.asked = new Set();
    this.centre = 0;
    this.load(0);
  }

  close() { this.abort.abort(); }

  /// The row at this place, if it is here.
  row(i) { return this.pages.get(Math.floor(i / PAGE))?.rows[i % PAGE]; }

  /// The place of the row of this name, if it is here.
  place(name) { return this.places.get(name); }

  /// Says which rows are in view, so that their pages come.
  look(from, to) {
    const last = this.total == null ? 0 : Math.max(0, Math.ceil(this.total / PAGE) - 1);
    const [a, b] = [Math.floor(from / PAGE), Math.min(last, Math.floor(to / PAGE))];
    this.centre = Math.floor((from + to) / 2 / PAGE);
    for (let p = a; p <= b; p++) if (!this.pages.has(p)) this.load(p);
  }

  async load(p, again) {
    if (this.asked.has(p)) return;
    this.asked.add(p);
    const before = this.pages.get(p - 1);
    const from = before?.next ? { cursor: before.next } : { skip: p ? p * PAGE : null };
    try {
      const answer = await ask('/api/fleet', { ...this.query, ...from, limit: PAGE }, this.abort.signal);
      this.take(p, answer);
      this.error = null;
      // The picture is older than the stream: what changed between them is in neither.
      if (answer.at < streamSince() && !again) setTimeout(() => this.load(p, true));
    } catch (err) {
      if (err.name === 'AbortError') return;
      this.error = err;
    } finally {
      this.asked.delete(p);
    }
    this.changed();
  }

  take(p, { rows, next, total, counts, tags, at }) {
    // A page after which nothing comes ends the list, whatever was counted meanwhile.
    this.total = next == null ? p * PAGE + rows.length : Math.max(total, p * PAGE + rows.length + 1);
    this.counts = counts;
    this.tags = tags;
    this.at = Math.max(this.at, at);
    this.forget(p);
    this.pages.set(p, { rows, next, at });
    rows.forEach((row, k) => this.places.set(row.name, p * PAGE + k));
    while (this.pages.size > KEPT) {
      const far = [...this.pages.keys()].reduce((a, b) => Math.abs(a - this.centre) >= Math.abs(b - this.centre) ? a : b);
      this.forget(far);
      this.pages.delete(far);
    }
    this.counted();
  }

  forget(p) {
    for (const row of this.pages.get(p)?.rows || []) if (Math.floor(this.places.get(row.name) / PAGE) === p) this.places.delete(row.name);
  }

  /// Takes what the stream says has changed.
  change({ rows, beats, gone, counts }) {
    for (const row of rows) this.put(row.name, row);
    for (const [name, own, nats, nats_seq, chain, chain_block] of beats) {
      const row = this.known(name);
      if (row) Object.assign(row, { own, nats, nats_seq, chain, chain_block });
    }
    for (const name of gone) {
      const row = this.known(name);
      if (row) row.gone = true;
      this.stirred.add(name);
    }
    this.counts = counts;
    this.counted();
    this.changed();
  }

  known(name) { const i = this.places.get(name); return i == null ? undefined : this.row(i); }

  put(name, row) {
    const i = this.places.get(name);
    if (i != null) this.pages.get(Math.floor(i / PAGE)).rows[i % PAGE] = row;
    // The order is not that of now any more: the node is new, or stands otherwise.
    if (this.at && Math.max(row.first, row.since) > this.at && this.stirred.size < 1000) this.stirred.add(name);
  }

  /// Takes the pages that are here anew, after a gap.
  refresh() {
    this.stirred.clear();
    const here = [...this.pages.keys()];
    for (const p of here.length ? here : [0]) {
      const page = this.pages.get(p - 1);
      if (page) page.next = null; // its cursor is of the old order
      this.load(p);
    }
  }
}
