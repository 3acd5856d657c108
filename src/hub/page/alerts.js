// Alerts: what is the matter, what to do, who was told and what the channel answered.

import { age, ago, ask, badge, capital, empty, failed, h, hints, hms, icon, iso, keys, leave, loading, main, n0, nodeHref, now, say, section, span, table, title, word } from './ui.js';
import { on } from './live.js';
import { endButton, me, silenceButton } from './people.js';

const CHANNEL = { telegram: 'Telegram', mail: 'mail', webhook: 'webhook', ntfy: 'ntfy' };
const channel = (name) => CHANNEL[name] || name;
const text = (it) => typeof it === 'string' ? it : '';

/// What an incident says: of its head, or else of its last notice.
function told(incident) {
  const head = typeof incident.head === 'object' && incident.head ? incident.head : {};
  const last = incident.notices[0]?.body ?? {};
  const first = (key) => text(head[key]) || text(last[key]);
  return { title: first('title') || capital(word(incident.rule)), severity: first('severity') || 'warning', remedy: first('remedy'), why: first('why'), lines: Array.isArray(last.lines) ? last.lines : [], muted: text(head.muted) };
}
const isOver = (member) => member.body?.ended != null;
const urgency = (incident) => ['critical', 'warning', 'info'].indexOf(told(incident).severity);
const whyOf = (member) => typeof member.body === 'object' && member.body ? text(member.body.why) : text(member.body);

function notice(it) {
  const said = it.state === 'sent' ? `accepted${it.answer ? ', ' + it.answer : ''}` : it.state === 'folded' ? it.answer || 'told within a newer one'
    : it.state === 'refused' ? `refused: ${it.answer || 'it does not say why'}`
    : `${it.tries ? `try ${it.tries} failed${it.answer ? ': ' + it.answer : ''}` : 'waits'}${it.next > now() ? `; next in ${age(it.next - now())}` : ''}`;
  const at = it.answered ?? it.decided, kind = text(it.body?.kind);
  return h('li', null, h('span.mu', { title: iso(at) }, hms(at)), h('span.st', null, icon(it.state), channel(it.channel)),
    h('span' + (it.state === 'sent' ? '.mu' : ''), { ev: `notice ${it.id}${kind ? ', ' + kind : ''}, decided ${iso(it.decided)} · ${said}` }, kind && kind !== 'opened' ? `${word(kind)}: ${said}` : said));
}

function item(incident) {
  const { title: name, severity, remedy, why, lines, muted } = told(incident);
  // Those that are well again are named last.
  const members = incident.members.toSorted((a, b) => isOver(a) - isOver(b));
  const reasons = [...new Set(members.filter((member) => !isOver(member)).map(whyOf).filter(Boolean))];
  const reason = why || (reasons.length > 2 ? `${reasons[0]}; others: ${reasons[1]} …` : reasons.join('; '));
  const more = incident.members_total - Math.min(8, incident.members.length);
  const line = (label, value, cls = '') => h('div', null, h('dt', null, label), h('dd' + cls, null, value));
  return h('article.al', { tabindex: 0, 'data-go': members[0] ? nodeHref(members[0].name) : null, 'aria-label': `${severity}: ${name}` },
    h('div', null, muted ? badge('silenced', severity) : badge(severity), h('div.mu.sn', null, ago(incident.opened, `incident ${incident.id}, opened`))),
    h('div', null, h('h3', null, name), h('dl', null,
      reason && line('Why', reason), lines.map((it) => line('', String(it))), remedy && line('Do', say(remedy)), muted && line('Held', `nobody is told at present: ${muted}`), line('Rule', incident.rule),
      incident.members.length ? line('Nodes', [members.slice(0, 8).flatMap((member, k) => [k ? ', ' : '', h('a', { href: nodeHref(member.name), ev: `${member.name}: ${whyOf(member)}` }, member.name), isOver(member) ? ' (well again)' : '']), more > 0 ? `, ${n0(more)} more` : ''], '.a') : null)),
    h('div.rt', null, incident.notices.length ? h('ul.sent', { 'aria-label': 'Sent' }, incident.notices.map(notice)) : h('span.mu', null, muted ? `Not told: ${muted}.` : 'Nobody was told.'), silenceButton(incident)));
}

/// Of two hubs: which one sends over a channel.
function shared(it) {
  const who = it.sends === 'this' ? `this hub, ${it.hub}` : it.sends === 'other' ? it.hub ? `the other hub, ${it.hub}` : 'nobody yet' : 'each hub by itself: they can’t ask each other';
  return h('p.mu', null, `${capital(channel(it.channel))} is sent by ${who}`, it.since == null ? '' : [', since ', ago(it.since)]);
}

export function alertsPage() {
  title('Alerts');
  hints('j', 'k', '↵');
  const abort = new AbortController();
  let timer = 0, isLeft = false, again = false;
  leave(() => { isLeft = true; abort.abort(); clearTimeout(timer); });
  const page = h('div.page', { tabindex: 0, role: 'region', 'aria-label': 'Alerts' }, h('div.phead', null, h('div.ttl', null, h('h1', null, 'Alerts'))), loading('alerts'));
  main.replaceChildren(page);

  async function load() {
    clearTimeout(timer);
    timer = 0;
    try {
      const answer = await ask('/api/alerts', {}, abort.signal);
      if (!isLeft) show(answer);
    } catch (err) {
      if (err.name !== 'AbortError' && !isLeft) page.replaceChildren(h('div.phead', null, h('div.ttl', null, h('h1', null, 'Alerts'))), failed(err, load));
    }
  }
  function show({ open, open_total: total, recent, silences, channels, pair }) {
    const focused = [...page.querySelectorAll('.al')].indexOf(document.activeElement), top = page.scrollTop;
    const waiting = channels.reduce((sum, it) => sum + it.waiting, 0), refused = channels.reduce((sum, it) => sum + it.refused, 0);
    const silence = (it) => typeof it.body === 'object' && it.body ? [text(it.body.by), text(it.body.why)].filter(Boolean).join(', ') : '';
    const about = (it) => typeof it.body === 'object' && it.body ? Object.entries(it.body).filter(([k, v]) => !['id', 'until', 'by', 'why'].includes(k) && v != null && v !== '').map(([k, v]) => `${word(k)} ${typeof v === 'object' ? JSON.stringify(v) : v}`).join(', ') : String(it.body);
    page.replaceChildren(
      h('div.phead', null, h('div.ttl', null, h('h1', null, 'Alerts'), h('span.mu', null, `${n0(total)} firing, ${n0(silences.length)} ${silences.length === 1 ? 'silence' : 'silences'}, ${n0(waiting)} ${waiting === 1 ? 'notice' : 'notices'} waiting`))),
      section('h-f', 'Firing', open.length ? h('span.whn', null, 'Sent') : null, open.length ? open.toSorted((a, b) => urgency(a) - urgency(b)).map(item) : h('p.mu.empty', null, h('span.st', null, icon('ok'), 'Nothing is the matter.')), total > open.length ? empty(`${n0(total - open.length)} more are older.`) : []),
      h('div.two', null,
        section('h-o', 'Channels', channels.length ? `${n0(refused)} refused, ${n0(waiting)} waiting` : null, channels.length ? table('Channels', ['Channel', '>Waiting', '>Sent in 24 h', 'Last answer'],
          channels.map((it) => [badge(it.waiting && it.answered && !/^2|ok|accepted/i.test(it.answer || '') || it.refused ? 'warning' : 'ok', channel(it.name)), n0(it.waiting), n0(it.sent), it.answered == null ? '–' : h('span', null, text(it.answer), ' ', ago(it.answered))])) : empty('Nothing was sent in 24 h.'), pair ? pair.channels.map(shared) : []),
        section('h-q', 'Silences', null, silences.length ? table('Silences', ['What', 'Until', 'By, why', ...(me.is_admin ? ['End'] : [])],
          silences.map((it) => [badge('silenced', about(it) || 'everything'), h('time', { datetime: iso(it.until), ev: iso(it.until) }, 'in ' + age(it.until - now())), silence(it) || '–', ...(me.is_admin ? [endButton(it)] : [])])) : empty('Nothing is silenced.')),
        section('h-z', 'Recovered in 24 h', null, recent.length ? table('Recovered', ['Alert', '>Lasted', '>Ended'],
          recent.map((it) => [badge('ok', told(it).title), span(it.closed - it.opened), ago(it.closed, `incident ${it.id}, closed`)])) : empty('Nothing ended in 24 h.'))));
    page.scrollTop = top;
    if (focused >= 0) page.querySelectorAll('.al')[focused]?.focus({ preventScroll: true });
  }
  // Not more often than once a second, however much happens.
  const soon = () => { if (!timer) timer = setTimeout(load, again ? 1_000 : 50); again = true; };
  leave(on('alerts', soon));
  leave(on('snapshot', soon));
  addEventListener('me', soon);
  leave(() => removeEventListener('me', soon));
  keys.page = (k) => {
    const items = [...page.querySelectorAll('.al')], at = items.indexOf(document.activeElement);
    if (k === 'j' || k === 'k') { items[Math.max(0, Math.min(items.length - 1, at + (k === 'j' ? 1 : -1)))]?.focus(); return true; }
    if (k === 'Enter' && items[at]?.dataset.go) { location.hash = items[at].dataset.go; return true; }
    return false;
  };
  load();
}
